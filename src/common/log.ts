/** What happened, for the administrator: one line an event, never a secret. */

/** Where log lines go. */
export interface Log {
  /** Something works less well than configured. */
  warning(text: string): void;
  /** A step that an administrator may want to see. */
  info(text: string): void;
  /** Detail for finding a fault. */
  debug(text: string): void;
}

/** A log that writes `level: text` lines; info and debug by the storage's `tnb-debug` (0 to 2). */
export function lineLog(write: (line: string) => void, level: () => number): Log {
  const line = (name: string, text: string) =>
    write(`${name}: ${text.replaceAll(/[\r\n]+/g, " ")}`);
  return {
    warning: (text) => line("warning", text),
    info: (text) => line("info", text),
    debug: (text) => level() > 0 && line("debug", text),
  };
}

/** A log that keeps nothing. */
export const silentLog: Log = { warning() {}, info() {}, debug() {} };
