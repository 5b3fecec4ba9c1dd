/** Everything that PVE may ask of two nodes in any order, with what the model says to it. */
import { assertEquals } from "@std/assert";
import { BASE_SNAPSHOT, plain, type Volume } from "./model.ts";
import { type Choice, GUESTS, type World } from "./world.ts";

/** Does one thing to the storage and to its model; what cannot be asked just now is left out. */
export type Verb = (world: World, choice: Choice) => Promise<void>;

/** Volumes stay small: content is a label at the beginning. */
const MOST_MIB = 6;
const MOST_VOLUMES = 5;
const NAMES = ["s1", "s2", "s3"] as const;

const isBase = (volume: Volume) => volume.zvol.startsWith("base-");
const guestsDisks = (world: World) => world.model.volumes.filter((volume) => !isBase(volume));
/** What a running guest of another node uses is PVE's to protect: no verb is asked then. */
const isOpenElsewhere = (volume: Volume, node: string) =>
  [...volume.openOn].some((other) => other !== node);
/** PVE moves a volume only when it is let go of everywhere; the other node would keep the old way to it. */
const isLinkedElsewhere = (world: World, volume: Volume, node: string) =>
  world.model.nodes.some((other) => other !== node && world.model.isLinked(volume, other));
const isRead = (volume: Volume) => volume.snapshots.some((one) => one.readers.size > 0);
const zvolOf = (volname: string) =>
  plain(volname).replace(/^vol-(.*)-(?:lun\d+|ns[0-9a-f-]{36})$/, "$1");
const tagOf = (volname: string) => /(?:lun\d+|ns[0-9a-f-]{36})$/.exec(volname)?.[0];

async function alloc(world: World, { node, one }: Choice): Promise<void> {
  const { model } = world;
  if (model.volumes.length >= MOST_VOLUMES) return;
  const vmid = one(GUESTS) ?? GUESTS[0];
  const size = one([1, 2]) ?? 1;
  const args = { vmid, format: "raw", name: null, sizeKiB: size * 1024 };
  const volname = (await world.expect(node, "alloc_image", args))?.result;
  const zvol = zvolOf(volname);
  model.checkNew(zvol, "vm", vmid);
  model.add({ volname, zvol, size, content: "", origin: undefined });
}

async function free(world: World, { node, one, coin }: Choice): Promise<void> {
  const { model } = world;
  const volume = one(model.volumes);
  if (volume === undefined || isOpenElsewhere(volume, node)) return;
  const done = await world.expect(
    node,
    "free_image",
    { volname: volume.volname, isBase: isBase(volume) ? 1 : 0, ...(coin ? { finish: true } : {}) },
    [
      volume.openOn.has(node) && "in-use",
      volume.snapshots.some((snapshot) => model.hasDependents(snapshot, node)) && "has-dependents",
    ],
  );
  if (done === undefined) return;
  if (!coin) await world.expect(node, "free_image_finish", { token: done.result.token });
  model.remove(volume, node);
}

async function activate(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(world.model.volumes);
  if (volume === undefined) return;
  await world.expect(node, "activate_volume", { volname: volume.volname });
  world.model.linksOf(node).set(volume.zvol, { volname: plain(volume.volname), volume });
}

async function deactivate(world: World, { node, one }: Choice): Promise<void> {
  const { model } = world;
  const volume = one(model.volumes);
  if (volume === undefined) return;
  const link = model.linksOf(node).get(volume.zvol);
  const done = await world.expect(node, "deactivate_volume", { volname: volume.volname }, [
    volume.openOn.has(node) && "in-use",
    // The way is still that of an older disk of this name.
    link !== undefined && link.volume === undefined && link.volname !== plain(volume.volname) &&
    "volume-replaced",
  ]);
  if (done !== undefined) model.linksOf(node).delete(volume.zvol);
}

async function open(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter((volume) => world.model.isLinked(volume, node)));
  if (volume === undefined || volume.openOn.size > 0) return;
  await world.open(volume, node);
}

async function close(world: World, { one }: Choice): Promise<void> {
  const volume = one(world.model.volumes.filter((volume) => volume.openOn.size > 0));
  for (const node of volume?.openOn ?? []) {
    if (volume !== undefined) await world.close(volume, node);
  }
}

async function write(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter((volume) => world.model.isLinked(volume, node)));
  if (volume !== undefined) await world.write(volume, node);
}

async function snapshot(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world));
  const name = one(NAMES) ?? "s1";
  if (volume === undefined) return;
  const exists = volume.snapshots.some((snapshot) => snapshot.name === name);
  const args = { volname: volume.volname, snapshot: name };
  const done = await world.expect(node, "volume_snapshot", args, [exists && "exists"]);
  if (done === undefined) return;
  const { content, size } = volume;
  volume.snapshots.push({ name, content, size, readers: new Set() });
}

async function deleteSnapshot(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world));
  const name = one(NAMES) ?? "s1";
  if (volume === undefined) return;
  const found = volume.snapshots.find((snapshot) => snapshot.name === name);
  const args = { volname: volume.volname, snapshot: name };
  const done = await world.expect(node, "volume_snapshot_delete", args, [
    found !== undefined && world.model.hasDependents(found, node) && "has-dependents",
  ]);
  if (done === undefined || found === undefined) return;
  world.model.stopReading(volume, found, node);
  volume.snapshots.splice(volume.snapshots.indexOf(found), 1);
}

async function rollBack(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter((volume) => volume.snapshots.length > 0));
  const found = volume === undefined ? undefined : one(volume.snapshots);
  if (volume === undefined || found === undefined || isOpenElsewhere(volume, node)) return;
  const newer = volume.snapshots.slice(volume.snapshots.indexOf(found) + 1);
  const args = { volname: volume.volname, snapshot: found.name };
  const asked = await world.expect(node, "volume_rollback_is_possible", args);
  assertEquals(
    [asked?.result.possible, asked?.result.blockers],
    [newer.length === 0, newer.map((snapshot) => snapshot.name)],
  );
  const done = await world.expect(node, "volume_snapshot_rollback", args, [
    newer.length > 0 && "has-dependents",
    volume.openOn.has(node) && "in-use",
  ]);
  if (done === undefined) return;
  volume.content = found.content;
  volume.size = found.size;
}

async function info(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(world.model.volumes);
  if (volume === undefined) return;
  const args = { volname: volume.volname };
  const found = await world.expect(node, "volume_snapshot_info", args);
  assertEquals(
    Object.keys(found?.result).sort(),
    volume.snapshots.map((snapshot) => snapshot.name).sort(),
  );
}

async function clone(world: World, { node, one, coin }: Choice): Promise<void> {
  const { model } = world;
  const volume = one(model.volumes.filter((volume) => volume.snapshots.length > 0));
  if (volume === undefined || model.volumes.length >= MOST_VOLUMES) return;
  const snapshot = isBase(volume)
    ? volume.snapshots.find(({ name }) => name === BASE_SNAPSHOT)
    : one(volume.snapshots);
  if (snapshot === undefined) return;
  const vmid = GUESTS[coin ? 1 : 0];
  const args = {
    volname: volume.volname,
    vmid,
    ...(isBase(volume) ? {} : { snapshot: snapshot.name }),
  };
  const volname = (await world.expect(node, "clone_image", args))?.result;
  const zvol = zvolOf(volname);
  model.checkNew(zvol, "vm", vmid);
  assertEquals(volname.includes("/"), isBase(volume));
  const { size, content } = snapshot;
  model.add({ volname, zvol, size, content, origin: { volume, snapshot } });
}

async function createBase(world: World, { node, one }: Choice): Promise<void> {
  const { model } = world;
  const volume = one(guestsDisks(world));
  if (
    volume === undefined || isOpenElsewhere(volume, node) || isLinkedElsewhere(world, volume, node)
  ) return;
  const zvol = volume.zvol.replace(/^vm-/, "base-");
  const done = await world.expect(node, "create_base", { volname: volume.volname }, [
    (volume.openOn.has(node) || isRead(volume)) && "in-use",
    model.byZvol(zvol) !== undefined && "exists",
  ]);
  if (done === undefined) return;
  assertEquals([zvolOf(done.result), tagOf(done.result)], [zvol, tagOf(volume.volname)]);
  model.rename(volume, zvol, done.result, node);
  const { content, size } = volume;
  volume.snapshots.push({ name: BASE_SNAPSHOT, content, size, readers: new Set() });
}

async function rename(world: World, { node, one, coin }: Choice): Promise<void> {
  const { model } = world;
  const volume = one(model.volumes);
  if (
    volume === undefined || isOpenElsewhere(volume, node) || isLinkedElsewhere(world, volume, node)
  ) return;
  const targetVmid = GUESTS[coin ? 1 : 0];
  const hasClones = volume.snapshots.some((one) => model.clonesOf(one).length > 0);
  const args = { volname: volume.volname, targetVmid };
  const done = await world.expect(node, "rename_volume", args, [
    (volume.openOn.has(node) || isRead(volume)) && "in-use",
    isBase(volume) && hasClones && "has-dependents",
  ]);
  if (done === undefined) return;
  const zvol = zvolOf(done.result);
  model.checkNew(zvol, isBase(volume) ? "base" : "vm", targetVmid);
  assertEquals(tagOf(done.result), tagOf(volume.volname));
  model.rename(volume, zvol, done.result, node);
}

async function resize(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter(({ size }) => size < MOST_MIB));
  if (volume === undefined) return;
  const size = volume.size + 1;
  const running = volume.openOn.has(node) ? 1 : 0;
  const args = { volname: volume.volname, size: size << 20, running };
  await world.expect(node, "volume_resize", args);
  volume.size = size;
  if (!world.model.isLinked(volume, node)) return;
  // QEMU is told right after: the node must see it by now.
  const disk = await Deno.stat(world.place.linkOf(volume.volname, node));
  assertEquals(disk.size, size << 20);
}

async function readSnapshot(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter((volume) => volume.snapshots.length > 0));
  const found = volume === undefined ? undefined : one(volume.snapshots);
  if (volume === undefined || found === undefined) return;
  await world.expect(node, "activate_volume", { volname: volume.volname, snapshot: found.name });
  world.model.startReading(volume, found, node);
}

async function stopReading(world: World, { node, one }: Choice): Promise<void> {
  const volume = one(guestsDisks(world).filter(isRead));
  const found = volume === undefined ? undefined : one(volume.snapshots);
  if (volume === undefined || found === undefined) return;
  await world.expect(node, "deactivate_volume", { volname: volume.volname, snapshot: found.name });
  world.model.stopReading(volume, found, node);
}

/** A name out of an old configuration reaches nothing that is there today. */
async function useStaleName(world: World, { node, one, coin }: Choice): Promise<void> {
  const { model } = world;
  const volname = one([...model.stale]);
  if (volname === undefined) return;
  const zvol = zvolOf(volname);
  const isNameUsed = model.byZvol(zvol) !== undefined;
  const link = model.linksOf(node).get(zvol);
  const refusal = isNameUsed ? "volume-replaced" : "not-found";
  for (const method of ["activate_volume", "volume_size_info", "volume_snapshot_info"]) {
    await world.expect(node, method, { volname }, [refusal]);
  }
  await world.expect(node, "volume_resize", { volname, size: 64 << 20, running: 0 }, [refusal]);
  if (coin) {
    const done = await world.expect(node, "free_image", { volname, isBase: 0, finish: true }, [
      isNameUsed && refusal,
    ]);
    if (done !== undefined) model.linksOf(node).delete(zvol);
    return;
  }
  const isOther = link !== undefined && link.volname !== volname;
  const done = await world.expect(node, "deactivate_volume", { volname }, [
    isOther && "volume-replaced",
  ]);
  if (done !== undefined) model.linksOf(node).delete(zvol);
}

/** A verb as sequences draw it. */
interface Drawn {
  readonly name: string;
  readonly often: number;
  readonly verb: Verb;
  /** What is done when the verb cannot be asked just now, so that few steps are empty. */
  readonly instead?: string;
}

/** All of them. */
export const VERBS: readonly Drawn[] = [
  { name: "alloc", often: 2, verb: alloc, instead: "write" },
  { name: "free", often: 2, verb: free, instead: "alloc" },
  { name: "activate", often: 3, verb: activate, instead: "alloc" },
  { name: "deactivate", often: 1, verb: deactivate, instead: "alloc" },
  { name: "open", often: 1, verb: open, instead: "activate" },
  { name: "close", often: 1, verb: close, instead: "open" },
  { name: "write", often: 4, verb: write, instead: "activate" },
  { name: "snapshot", often: 3, verb: snapshot, instead: "alloc" },
  { name: "delete snapshot", often: 2, verb: deleteSnapshot, instead: "snapshot" },
  { name: "roll back", often: 3, verb: rollBack, instead: "snapshot" },
  { name: "snapshot info", often: 1, verb: info, instead: "snapshot" },
  { name: "clone", often: 2, verb: clone, instead: "snapshot" },
  { name: "create base", often: 2, verb: createBase, instead: "alloc" },
  { name: "rename", often: 2, verb: rename, instead: "alloc" },
  { name: "resize", often: 2, verb: resize, instead: "alloc" },
  { name: "read snapshot", often: 2, verb: readSnapshot, instead: "snapshot" },
  { name: "stop reading", often: 1, verb: stopReading, instead: "read snapshot" },
  { name: "use a stale name", often: 2, verb: useStaleName, instead: "free" },
];

/** Does the verb of this name, or what is done instead of it. */
export async function perform(world: World, name: string, choice: () => Choice): Promise<void> {
  const before = world.story.length;
  for (let next: string | undefined = name; next !== undefined && world.story.length === before;) {
    const drawn = VERBS.find((verb) => verb.name === next);
    await drawn?.verb(world, choice());
    next = drawn?.instead;
    // The first that has nothing else in its stead, and the second time round.
    if (next === name) return;
  }
}
