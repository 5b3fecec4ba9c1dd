/** What the array holds, for comparing before and after, and running a verb with each of its calls failing. */
import { assertEquals } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import type { Place, Reply } from "./place.ts";

/** Everything on the array, whatever the order that it was made in. */
export async function arrayState(place: Place): Promise<Record<string, unknown>> {
  const objects = await place.objects();
  const keyOf = (row: Record<string, unknown>) => `${row.name ?? ""} ${row.id ?? ""}`;
  return Object.fromEntries(
    Object.entries(objects).map(([kind, rows]) => [
      kind,
      Array.isArray(rows)
        ? [...rows].sort((a, b) => keyOf(a) < keyOf(b) ? -1 : 1).map((row) => sorted(row))
        : rows,
    ]),
  );
}

/** The same object with its keys in order: marks that are taken away and put back move to the end. */
function sorted(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(
    Object.entries(value).sort(([a], [b]) => a < b ? -1 : 1).map(([key, inner]) => [
      key,
      sorted(inner),
    ]),
  );
}

/** Calls that change something. */
export const isWrite = (method: string): boolean =>
  /\.(create|update|delete|destroy|clone|rename|rollback)$/.test(method);

/** The writes since the calls were last forgotten. */
export function writes(place: Place): string[] {
  return place.calls.filter(isWrite);
}

/** A call of a verb: its method, and that it is the nth of this method. */
export interface NthCall {
  readonly method: string;
  readonly nth: number;
}

/** The calls of a verb in their order, each with its number among its kind. */
export function nthCalls(calls: readonly string[]): NthCall[] {
  const counts = new Map<string, number>();
  return calls.map((method) => {
    const nth = (counts.get(method) ?? 0) + 1;
    counts.set(method, nth);
    return { method, nth };
  });
}

/**
 * Runs a verb once for each of its calls, with that call refused by the array: each time the verb must
 * fail, and leave the array exactly as it was.
 */
export async function failEachCall(
  place: Place,
  calls: readonly string[],
  run: () => Promise<Reply>,
): Promise<void> {
  const before = await arrayState(place);
  for (const call of nthCalls(calls)) {
    await place.faults([{ ...call, do: "error", errno: 5 }]);
    const reply = await run();
    await place.faults([]);
    assertEquals([call, reply.ok], [call, false]);
    assertEquals({ call, ...await arrayState(place) }, { call, ...before });
  }
}

/** Zvols, snapshots and exports as a guest sees them: names, identities and what hangs on what. */
export async function disks(place: Place): Promise<unknown> {
  const { zvols = [], snapshots = [], extents = [], mappings = [], namespaces = [] } = await place
    .objects();
  return {
    zvols: zvols.map((zvol) => [zvol.name, zvol.guid, zvol.origin]).sort(),
    snapshots: snapshots.map((snapshot) => [snapshot.name, snapshot.guid]).sort(),
    extents: extents.map((row) => [row.id, row.name, row.path, row.naa, row.enabled]),
    mappings,
    namespaces: namespaces.map((row) => [row.id, row.nsid, row.device_path, row.enabled]),
  };
}

/** Asks the hook for something, and never takes the answer; gives whether it was a success. */
export async function askInVain(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<boolean> {
  const request = place.request(method, args);
  const { reply, settled, undelivered } = answer(JSON.stringify(request), {
    host: linuxHost({ root: place.directory }),
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
  });
  const { ok } = await reply;
  await settled;
  await undelivered();
  return ok;
}
