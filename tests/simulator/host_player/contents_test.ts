import { assert, assertEquals, assertRejects } from "@std/assert";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Contents, copyChunks } from "../../../src/simulator/host_player/contents.ts";
import { ZvolBusyError } from "../../../src/simulator/exports.ts";
import { iscsi, lun, MIB, namespace, NOTHING, nvme, PORTALS, withNode } from "./support.ts";

const ZVOL = "tank/pve/vm-1-disk-0";
const CLONE = "tank/pve/vm-2-disk-0";

async function withContents(use: (contents: Contents) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "tnblock-contents-"));
  try {
    await use(new Contents(directory));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function write(contents: Contents, name: string, text: string): void {
  writeFileSync(contents.file(name) ?? "", text, { flag: "r+" });
}

function start(contents: Contents, name: string): string {
  return readFileSync(contents.file(name) ?? "").toString("utf8", 0, 3);
}

Deno.test("a roll back replaces content and size within the same file", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, 4 * MIB);
    write(contents, ZVOL, "one");
    const { ino } = statSync(contents.file(ZVOL) ?? "");
    await contents.snapshot(ZVOL, "s");
    write(contents, ZVOL, "two");
    contents.resize(ZVOL, 8 * MIB);
    assertEquals(await contents.rollback(ZVOL, "s"), 4 * MIB);
    assertEquals(start(contents, ZVOL), "one");
    assertEquals(statSync(contents.file(ZVOL) ?? "").ino, ino);
  }));

Deno.test("a clone of a blank volume's snapshot is blank, and may be larger", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, 4 * MIB);
    await contents.snapshot(ZVOL, "s");
    await contents.create(CLONE, 8 * MIB, `${ZVOL}@s`);
    assertEquals(statSync(contents.file(CLONE) ?? "").size, 8 * MIB);
  }));

Deno.test("a copy of a sparse volume is sparse", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, 256 * MIB);
    write(contents, ZVOL, "one");
    await contents.snapshot(ZVOL, "s");
    const { size, blocks } = statSync(contents.file(`${ZVOL}@s`) ?? "");
    assertEquals(size, 256 * MIB);
    assert(blocks * 512 < MIB, `${blocks} blocks`);
  }));

Deno.test("copying by hand keeps content, size and holes", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, 5 * MIB + 512);
    write(contents, ZVOL, "one");
    const [source, target] = [contents.file(ZVOL) ?? "", `${contents.file(ZVOL)}.copy`];
    writeFileSync(target, "longer than nothing");
    await copyChunks(source, target);
    assert(readFileSync(source).equals(readFileSync(target)));
    assert(statSync(target).blocks * 512 <= 2 * MIB);
  }));

Deno.test("snapshots follow a renamed volume and go with a destroyed one", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, MIB);
    write(contents, ZVOL, "one");
    await contents.snapshot(ZVOL, "s");
    contents.rename(ZVOL, CLONE);
    contents.renameSnapshot(CLONE, "s", "t");
    assertEquals(start(contents, `${CLONE}@t`), "one");
    contents.destroy(CLONE);
    contents.destroySnapshot(CLONE, "t");
    assert(!contents.has(`${CLONE}@t`));
  }));

Deno.test("a promoted clone takes over the snapshots up to its origin", () =>
  withContents(async (contents) => {
    await contents.create(ZVOL, MIB);
    for (const snapshot of ["a", "b", "c"]) {
      write(contents, ZVOL, `${snapshot}${snapshot}${snapshot}`);
      await contents.snapshot(ZVOL, snapshot);
    }
    contents.renameSnapshot(ZVOL, "a", "first");
    await contents.create(CLONE, MIB, `${ZVOL}@b`);
    contents.promote(CLONE);
    const where = ["first", "b", "c"].map((snapshot) =>
      contents.has(`${CLONE}@${snapshot}`) ? "clone" : "origin"
    );
    assertEquals(where, ["clone", "clone", "origin"]);
    assertEquals(start(contents, `${CLONE}@first`), "aaa");
    contents.promote(ZVOL);
    assert(contents.has(`${ZVOL}@b`));
  }));

Deno.test("a volume that a running service exports cannot be destroyed", () =>
  withNode(async ({ player }) => {
    const { zvol, size } = lun(1);
    await player.createZvol(zvol, size);
    await player.apply(iscsi([lun(1)]));
    assert(await assertRejects(() => player.destroyZvol(zvol)) instanceof ZvolBusyError);
    await player.apply(NOTHING);
    await player.destroyZvol(zvol);
    assert(!player.hasNode(zvol));
  }));

Deno.test("a disk stays what it is while its volume is renamed and rolled back", () =>
  withNode(async (node) => {
    const { player } = node;
    const { zvol, size } = namespace(1);
    await player.createZvol(zvol, size);
    await player.apply(nvme([namespace(1)]));
    await node.connectTo(PORTALS[0]);
    const inode = node.inode("/dev/nvme0n1");
    writeFileSync(node.at("/dev/nvme0n1"), "one", { flag: "r+" });
    await player.createSnapshot(zvol, "s");
    writeFileSync(node.at("/dev/nvme0n1"), "two", { flag: "r+" });
    await player.renameZvol(zvol, CLONE);
    await player.rollback(CLONE, "s");
    await player.apply(nvme([namespace(1, { zvol: CLONE })]));
    assertEquals(node.inode("/dev/nvme0n1"), inode);
    assertEquals(readFileSync(node.at("/dev/nvme0n1")).toString("utf8", 0, 3), "one");
  }));
