/** What happened, for the administrator: one line an event, never a secret. */

/** Where log lines go. */
export interface Log {
  /** Something that an administrator must act on: it does not mend itself. */
  error(text: string): void;
  /** Something works less well than configured. */
  warning(text: string): void;
  /** A step that an administrator may want to see. */
  info(text: string): void;
  /** Detail for finding a fault. */
  debug(text: string): void;
}

/** The names of lines and the priorities that the journal knows them by (sd-daemon(3)). */
const PRIORITIES = { error: 3, warning: 4, info: 6, debug: 7 } as const;

/** How {@link lineLog} writes its lines. */
export interface LineFormat {
  /** For the journal: `<4>text` instead of `warning: text`. */
  readonly priorities?: boolean;
  /** What all lines are about, in brackets at their beginning. */
  readonly about?: string;
}

/** A log that writes `level: text` lines; debug by the storage's `tnb-debug` (0 to 2). */
export function lineLog(
  write: (line: string) => void,
  level: () => number,
  format: LineFormat = {},
): Log {
  const about = format.about === undefined ? "" : `[${oneLine(format.about)}] `;
  const line = (name: keyof typeof PRIORITIES, text: string) => {
    const head = format.priorities === true ? `<${PRIORITIES[name]}>` : `${name}: `;
    write(`${head}${about}${oneLine(text)}`);
  };
  return {
    error: (text) => line("error", text),
    warning: (text) => line("warning", text),
    info: (text) => line("info", text),
    debug: (text) => level() > 0 && line("debug", text),
  };
}

/** No text from elsewhere begins a line of its own, which might claim another priority. */
function oneLine(text: string): string {
  return text.replaceAll(/[\r\n]+/g, " ");
}

/** The same log, with what its lines are about in brackets at their beginning. */
export function aboutLog(log: Log, about: string): Log {
  const head = `[${oneLine(about)}] `;
  return {
    error: (text) => log.error(head + text),
    warning: (text) => log.warning(head + text),
    info: (text) => log.info(head + text),
    debug: (text) => log.debug(head + text),
  };
}

/** A log that keeps nothing. */
export const silentLog: Log = { error() {}, warning() {}, info() {}, debug() {} };
