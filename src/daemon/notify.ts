/**
 * Tells systemd how the daemon is: ready, alive, stopping (sd_notify(3)). The runtimes have no datagrams on
 * unix sockets, so systemd-notify(1) carries the words; it speaks as its parent.
 */
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";

const SYSTEMD_NOTIFY = "/usr/bin/systemd-notify";

/** It sends one datagram; where that takes so long, the next one comes. */
const NOTIFY_MS = 10_000;

/** Words to the manager of this service. */
export interface Notifier {
  /** Requests are answered from now on. Begins to say that we are alive, where that is expected. */
  ready(): Promise<void>;
  /** It ends; being alive is still said. */
  stopping(): Promise<void>;
  /** Says nothing more. */
  close(): void;
}

/** What systemd has told in the environment. */
export interface NotifySettings {
  /** Where words go; without it nobody listens. */
  readonly socket: string | undefined;
  /** Milliseconds between two signs of life; undefined where none are expected. */
  readonly everyMs: number | undefined;
}

/**
 * Reads NOTIFY_SOCKET and WATCHDOG_USEC. A sign of life is given three times as often as it must be: one may
 * be late on a node that is busy.
 */
export function notifySettings(
  env: Readonly<Record<string, string | undefined>>,
  pid: number,
): NotifySettings {
  const socket = env["NOTIFY_SOCKET"];
  const forUs = env["WATCHDOG_PID"] === undefined || env["WATCHDOG_PID"] === String(pid);
  const usec = Number(env["WATCHDOG_USEC"]);
  const everyMs = socket !== undefined && forUs && usec > 0 ? usec / 1000 / 3 : undefined;
  return { socket: socket === "" ? undefined : socket, everyMs };
}

/** The words' way. Never fails: a daemon that cannot say that it works, works. */
export function notifier(
  host: Pick<Host, "run" | "wait">,
  settings: NotifySettings,
  log: Log,
): Notifier {
  const over = new AbortController();
  let failures = 0;

  const say = async (...words: string[]) => {
    if (settings.socket === undefined || over.signal.aborted) return;
    try {
      const { status, stderr } = await host.run(SYSTEMD_NOTIFY, words, {
        deadlineMs: NOTIFY_MS,
        signal: over.signal,
        environment: { NOTIFY_SOCKET: settings.socket },
      });
      if (status !== 0) throw new Error(stderr.trim() || `status ${status}`);
      failures = 0;
    } catch (error) {
      failures += 1;
      if (failures > 1 || over.signal.aborted) return;
      const reason = error instanceof Error ? error.message : String(error);
      log.warning(`systemd is not told how the daemon is: ${reason}`);
    }
  };

  /** From the loop that answers requests: when that stands still, so does this. */
  const live = async (everyMs: number) => {
    for (;;) {
      await host.wait(everyMs, over.signal);
      await say("WATCHDOG=1");
    }
  };

  return {
    ready: async () => {
      await say("--ready", "--status=Answering requests");
      if (settings.everyMs !== undefined) live(settings.everyMs).catch(() => {});
    },
    stopping: () => say("STOPPING=1", "--status=Waiting for what is under way"),
    close: () => over.abort(),
  };
}
