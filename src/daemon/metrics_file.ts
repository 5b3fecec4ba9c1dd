/**
 * Writes the metrics where Prometheus finds them: always to a file of our own, and into the folder that the
 * node exporter reads (`--collector.textfile.directory`) where there is one.
 */
import type { Log } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { renderMetrics } from "./metrics.ts";
import type { State } from "./state.ts";

/** Ours. */
export const METRICS_FILE = "/run/tnblock/metrics.prom";

/** The folder of Debian's prometheus-node-exporter. */
const TEXTFILES = "/var/lib/prometheus/node-exporter";

/** Milliseconds between two writes, and before the first. */
const PERIOD_MS = 15_000;
const FIRST_MS = 1_000;

/** How it is done. */
export interface MetricsOptions {
  readonly host: Host;
  readonly log: Log;
  readonly state: () => Promise<State>;
  readonly periodMs?: number | undefined;
}

/** Writing, until it is stopped. */
export interface MetricsTask {
  /** Writes no more, and removes the files: old figures look like new ones. */
  stop(): Promise<void>;
}

/** Starts writing. */
export function writeMetrics(options: MetricsOptions): MetricsTask {
  const { host, log, state, periodMs = PERIOD_MS } = options;
  const { files } = host;
  const over = new AbortController();
  const written = new Set<string>();
  let trouble: string | undefined;

  const write = async () => {
    const { daemon, ...rest } = await state();
    if (daemon === null || over.signal.aborted) return;
    const text = renderMetrics({ ...rest, daemon });
    const paths = [METRICS_FILE];
    const folder = await files.status(TEXTFILES);
    if (folder?.kind === "directory") paths.push(`${TEXTFILES}/tnblock.prom`);
    for (const path of paths) {
      written.add(path);
      await files.replaceText(path, text, 0o644);
    }
  };

  /** A daemon whose figures nobody sees works all the same. */
  const tryToWrite = async () => {
    try {
      await write();
      trouble = undefined;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      if (trouble === undefined) log.warning(`the metrics are not written: ${reason}`);
      trouble = reason;
    }
  };

  const loop = (async () => {
    await host.wait(Math.min(FIRST_MS, periodMs), over.signal).catch(() => {});
    while (!over.signal.aborted) {
      await tryToWrite();
      await host.wait(periodMs, over.signal).catch(() => {});
    }
  })();

  return {
    stop: async () => {
      over.abort();
      await loop;
      for (const path of written) await files.remove(path).catch(() => {});
    },
  };
}
