/** What the tests about snapshots share: the matrix that they run over, and looks at volumes and snapshots. */
import { open } from "node:fs/promises";
import { Place, type PlaceOptions, type TransportKind } from "../support/place.ts";

/** Releases, each with the transports that it has. */
const MATRIX = [
  ["25.04", "iscsi"],
  ["25.10", "iscsi"],
  ["26", "iscsi"],
  ["25.10", "nvme-tcp"],
  ["26", "nvme-tcp"],
] as const;

/** One place of the matrix. */
export interface Case {
  readonly place: Place;
  readonly transport: TransportKind;
  readonly release: typeof MATRIX[number][0];
  /** Full path of `vm-100-disk-0`. */
  readonly zvol: string;
  /** The release's name of a snapshot method: `zfs.snapshot.create` or `pool.snapshot.create`. */
  readonly method: (verb: string) => string;
}

/** Runs a test over every transport and release. */
export function over(
  name: string,
  run: (place: Place, the: Case) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const [release, transport] of MATRIX) {
    Deno.test(`${transport}, ${release}: ${name}`, async () => {
      await using place = await Place.start(transport, { release, ...options });
      await run(place, {
        place,
        transport,
        release,
        zvol: `${place.simulator.ready.dataset}/vm-100-disk-0`,
        method: (verb) => `${release === "25.04" ? "zfs" : "pool"}.snapshot.${verb}`,
      });
    });
  }
}

/** Names of all snapshots of the array, sorted, without what they are of. */
export async function snapshotNames(place: Place): Promise<string[]> {
  const { snapshots = [] } = await place.objects();
  return snapshots.map((one) => String(one.name).split("@")[1] ?? "").sort();
}

/** The last components of all zvols' paths, sorted. */
export async function zvolNames(place: Place): Promise<string[]> {
  const { zvols = [] } = await place.objects();
  return zvols.map((one) => String(one.name).split("/").at(-1) ?? "").sort();
}

/** How many exports there are: LUNs and namespaces. */
export async function exportCount(place: Place): Promise<number> {
  const { mappings = [], extents = [], namespaces = [] } = await place.objects();
  return Math.max(mappings.length, extents.length) + namespaces.length;
}

/** Calls a method that must succeed; tells how many writes it cost the array. */
export async function writesOf(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<number> {
  place.calls.length = 0;
  await place.must(method, args);
  return place.calls.filter((call) => /\.(create|update|delete|destroy|clone|rollback)$/.test(call))
    .length;
}

/** Writes at the beginning of an attached volume. */
export async function writeContent(place: Place, volname: string, text: string): Promise<void> {
  const file = await open(place.linkOf(volname), "r+");
  try {
    await file.write(text, 0);
  } finally {
    await file.close();
  }
}

/** The first characters of what is attached: a volume, or with `snapshot` one of its snapshots. */
export async function contentOf(
  place: Place,
  volname: string,
  length: number,
  snapshot?: string,
  node?: string,
): Promise<string> {
  const link = place.linkOf(volname, node) + (snapshot === undefined ? "" : `@${snapshot}`);
  const file = await open(link, "r");
  try {
    const { buffer } = await file.read(new Uint8Array(length), 0, length, 0);
    return new TextDecoder().decode(buffer);
  } finally {
    await file.close();
  }
}

/** Whether a volume, or a snapshot of it, has a link on the node. */
export async function isAttached(
  place: Place,
  volname: string,
  snapshot?: string,
  node?: string,
): Promise<boolean> {
  const link = place.linkOf(volname, node) + (snapshot === undefined ? "" : `@${snapshot}`);
  return await Deno.lstat(link).then(() => true, () => false);
}

/** The array goes on with the call that a fault holds, and comes to its end. */
export async function comesLate(place: Place): Promise<void> {
  await place.faults([]);
  // Far more turns than a call takes here: each is a connection, a login, and answers that wait for the disk.
  for (let turn = 0; turn < 5; turn++) {
    await place.array((nas) => nas.zvols.list(place.simulator.ready.dataset));
  }
}
