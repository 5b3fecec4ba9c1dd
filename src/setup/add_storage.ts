/** `pvesm add`, with what it leaves on the array and the node when it, or what comes after it, fails. */
import { TnblockError } from "../common/error.ts";
import { guestVolnames } from "../host/guest_volnames.ts";
import { weightName } from "../volumes/weight.ts";
import { OWNER_PROPERTY } from "../volumes/ownership.ts";
import * as datasets from "../truenas/datasets.ts";
import * as extents from "../truenas/extents.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import * as zvols from "../truenas/zvols.ts";
import type { Work } from "./work.ts";
import { connectionsTo, endConnections } from "./connections.ts";
import { type Action, setWords } from "./plan.ts";
import { runPvesm } from "./pvesm.ts";
import { readAllSections } from "./used_names.ts";

/** Adds the storage. The secrets are in their file already: nothing of them is in the command. */
export async function addStorage(
  work: Work,
  id: string,
  options: Readonly<Record<string, string>>,
): Promise<void> {
  const { world, draft, targetName } = work;
  const { host } = world;
  if (targetName === undefined) {
    throw new TnblockError("internal", "Cannot add a storage without its target or subsystem");
  }
  const known = await connectionsTo(host, targetName);
  work.onFailure(
    "connections of this node",
    async () => await endConnections(host, targetName, known) > 0,
  );
  await noteMarks(work, targetName);
  work.onFailure(`storage ${id}`, async () => {
    if (!(await readAllSections(host.files)).some((one) => one.id === id)) return false;
    // In these seconds somebody may have put a disk on it.
    const { volnames } = await guestVolnames(host, id);
    if (volnames.size > 0) {
      throw new TnblockError("in-use", `guests name ${volnames.size} volumes of it already`);
    }
    await runPvesm(host, ["remove", id]);
    return true;
  });
  const name = draft.transport === "iscsi" ? "tnb-target-iqn" : "tnb-subsystem-nqn";
  const words = Object.entries({ ...options, [name]: targetName }).flatMap((
    [option, value],
  ) => [`--${option}`, value]);
  await runPvesm(host, ["add", "tnblock", id, ...words]);
}

/** Changes the section; the plugin checks the whole of it before Proxmox VE writes it. */
export async function changeStorage(
  { world: { host }, onFailure }: Work,
  { id, set, drop, before }: Extract<Action, { kind: "change" }>,
): Promise<void> {
  onFailure(`settings of ${id}`, async () => {
    const now = (await readAllSections(host.files)).find((one) => one.id === id)?.options ?? {};
    const names = [...Object.keys(set), ...drop];
    if (names.every((name) => now[name] === before[name])) return false;
    const back = Object.fromEntries(
      names.flatMap((name) => before[name] === undefined ? [] : [[name, before[name]]]),
    );
    const gone = names.filter((name) => before[name] === undefined && now[name] !== undefined);
    await runPvesm(host, setWords(id, back, gone));
    return true;
  });
  await runPvesm(host, setWords(id, set, drop));
}

/** What validating a storage leaves on the array: the owner's mark of the dataset, and a target's weight. */
async function noteMarks(work: Work, targetName: string): Promise<void> {
  const { draft } = work;
  const { name, isNew } = draft.dataset;
  const array = await work.array();
  const before = (await datasets.read(array, name))?.userProperties[OWNER_PROPERTY];
  if (!isNew && before === undefined) {
    work.onFailure(`mark of dataset ${name}`, async () => {
      const now = await datasets.read(await work.array(), name);
      if (now?.userProperties[OWNER_PROPERTY] === undefined) return false;
      await datasets.setUserProperties(await work.array(), name, { [OWNER_PROPERTY]: undefined });
      return true;
    });
  }
  if (draft.transport !== "iscsi") return;
  const weight = `${name}/${weightName(targetName)}`;
  if (await zvols.read(array, weight) !== undefined) return;
  work.onFailure(`weight ${weight}`, async () => {
    const caller = await work.array();
    if (await zvols.read(caller, weight) === undefined) return false;
    const rows = await extents.byZvol(caller, weight);
    for (const mapping of await targetExtents.byExtents(caller, rows.map((row) => row.id))) {
      await targetExtents.remove(caller, mapping.id, { force: true });
    }
    for (const extent of rows) await extents.remove(caller, extent.id, { force: true });
    await zvols.destroy(caller, weight);
    return true;
  });
}
