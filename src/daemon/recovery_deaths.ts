/**
 * Since when stopped operations are known to have no process, kept for the next daemon. In memory of the node, and
 * by its time since boot: neither outlives a reboot, and no clock that is set changes it.
 */
import { uptime } from "node:os";
import * as v from "valibot";
import type { Host } from "../host/host.ts";
import type { Seen } from "../volumes/recover/settle.ts";

/** For each entry the seconds since boot at which it was first seen dead. */
export const DEATHS_FILE = "/run/tnblock/recovery.json";

const schema = v.record(v.string(), v.number());

/** What a former daemon of this boot saw; nothing when that cannot be read: it is waited for anew then. */
export async function readDeaths(host: Host): Promise<Map<string, Seen>> {
  try {
    const now = uptime();
    const parsed = v.parse(schema, JSON.parse(await host.files.readText(DEATHS_FILE) ?? "{}"));
    return new Map(
      Object.entries(parsed).filter(([, at]) => at <= now).map(([id, at]) => [
        id,
        { deadSinceMs: host.monotonicMs() - (now - at) * 1000 },
      ]),
    );
  } catch {
    return new Map();
  }
}

/** Keeps it; without it the next daemon waits anew. */
export async function writeDeaths(host: Host, seen: ReadonlyMap<string, Seen>): Promise<void> {
  const now = uptime();
  const deaths = [...seen].map(([id, { deadSinceMs }]) => [
    id,
    now - (host.monotonicMs() - deadSinceMs) / 1000,
  ]);
  await host.files.replaceText(
    DEATHS_FILE,
    `${JSON.stringify(Object.fromEntries(deaths))}\n`,
    0o600,
  ).catch(() => {});
}
