/** What the tests about the journal and recovery share. */
import { assert, assertEquals } from "@std/assert";
import type { HookWorld } from "../../../src/pve/hook.ts";
import { recoverStorage } from "../../../src/volumes/recover/recover.ts";
import type { Seen } from "../../../src/volumes/recover/settle.ts";
import { askUntilDeath, type Death, openPlace } from "../../support/mortal.ts";
import type { Place } from "../../support/place.ts";
import { zvolNames } from "../snapshot_support.ts";

export { both } from "../../support/both.ts";

export const ALLOC = { vmid: 100, format: "raw", sizeKiB: 65536 };

/** Kills a verb at a write; it must not have answered. */
export async function kill(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  death: Death,
): Promise<void> {
  const { reply } = await askUntilDeath(place, method, args, death);
  assertEquals(reply, undefined);
}

/** Puts a volume into the configuration of a guest of the first node. */
export async function name(place: Place, vmid: number, volname: string): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    const folder = `${directory}/etc/pve/nodes/pve1/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/${vmid}.conf`, `scsi0: san:${volname},size=64M\n`);
  }
}

/** The last write of an allocation, or of a clone on 25.10. */
export const lastWrite = (place: Place) => place.transport === "iscsi" ? 3 : 2;

export const own = async (place: Place) =>
  (await zvolNames(place)).filter((zvol) => !zvol.startsWith("tnb-weight-"));

export const outcomes = (found: readonly { readonly outcome: string }[]) =>
  found.map(({ outcome }) => outcome);

/** Lets so much time pass that no call whose answer was lost can come any more. */
export async function forgetLateCalls(place: Place): Promise<void> {
  for (const { directory } of place.nodes.values()) {
    for (const folder of ["etc/pve/priv/tnblock/doomed", "run/tnblock/doomed"]) {
      await Deno.remove(`${directory}/${folder}`, { recursive: true }).catch(() => {});
    }
  }
}

/** The name that a volume with this zvol has now. */
export async function volnameOf(place: Place, zvol: string): Promise<string> {
  const rows: { volid: string }[] = await place.must("list_images");
  const row = rows.find(({ volid }) => volid.includes(`vol-${zvol}-`));
  assert(row !== undefined);
  return row.volid.slice("san:".length);
}

/** As long as a write may take. */
export const SETTLE_MS = 300_000;

/** Recovery as one daemon does it, over many passes; time goes on when it is told to. */
export class Watching {
  readonly #seen = new Map<string, Seen>();

  constructor(private readonly place: Place) {}

  /** One pass, after a time. */
  async pass(afterMs = 0, world: Partial<HookWorld> = {}): Promise<string[]> {
    for (const [id, { unmarked, ...seen }] of this.#seen) {
      this.#seen.set(id, {
        ...seen,
        deadSinceMs: seen.deadSinceMs - afterMs,
        ...(unmarked && { unmarked: { ...unmarked, sinceMs: unmarked.sinceMs - afterMs } }),
      });
    }
    const storage = await openPlace(this.place, undefined, world);
    try {
      return outcomes(await recoverStorage(storage, { settleMs: SETTLE_MS, seen: this.#seen }));
    } finally {
      await storage.close();
    }
  }
}
