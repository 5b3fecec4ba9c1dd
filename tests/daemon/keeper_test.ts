import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Place, type PlaceOptions, TRANSPORTS } from "../support/place.ts";
import { HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { plantForeign } from "../contract/foreign.ts";
import { holdOpen, NODES } from "../volumes/life_support.ts";
import { isLinked, type KeptNode, keptNode, portalsOf, scsiPaths } from "./keeper_support.ts";
import { eventually } from "./memory_support.ts";

const MINUTE = 61_000;

/** Over both transports, with a daemon on the first node. */
function both(
  name: string,
  run: (place: Place, node: KeptNode) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, options);
      await using node = await keptNode(place);
      await run(place, node);
    });
  }
}

/** A volume that the daemon has made and attached. */
async function attachedVolume(node: KeptNode): Promise<string> {
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  const volname = await node.must("alloc_image", args);
  await node.must("activate_volume", { volname });
  return volname;
}

/** Plays a program of the node. */
async function play(place: Place, pid: number, files: Record<string, string>): Promise<void> {
  await Deno.mkdir(`${place.directory}/proc/${pid}`, { recursive: true });
  for (const [name, text] of Object.entries(files)) {
    await Deno.writeTextFile(`${place.directory}/proc/${pid}/${name}`, text);
  }
}

both(
  "a portal that could not be connected is connected later, and active disks get their path",
  async (place, node) => {
    const [, second] = portalsOf(place);
    assert(second !== undefined);
    await place.player.setPortalUp(...second, false);
    const volname = await attachedVolume(node);
    await node.keeper.round();
    assertEquals(node.state().portals.map(({ state }) => state), ["live", "missing"]);
    assertEquals(node.state().disks.map(({ paths }) => paths), [{ up: 1, configured: 2 }]);
    await place.player.setPortalUp(...second, true);
    node.leap(10_000);
    await node.keeper.round();
    await node.keeper.round();
    await node.keeper.round();
    assertEquals(node.state().portals.map(({ state }) => state), ["live", "live"]);
    assertEquals(node.state().disks.map(({ paths }) => paths), [{ up: 2, configured: 2 }]);
    assertEquals(await isLinked(place, volname), true);
  },
);

both("a portal that stays away is tried seldom, and told of once", async (place, node) => {
  const [, second] = portalsOf(place);
  assert(second !== undefined);
  await place.player.setPortalUp(...second, false);
  await node.must("activate_storage");
  node.log.length = 0;
  await node.keeper.round();
  node.efforts.length = 0;
  for (let round = 0; round < 3; round++) await node.keeper.round();
  assertEquals(node.efforts, []);
  for (const pause of [10_000, 20_000, 40_000]) {
    node.leap(pause);
    await node.keeper.round();
  }
  const probes = node.efforts.filter((effort) => effort === second.join(":"));
  assertEquals(probes.length, 3, node.efforts.join("\n"));
  const told = node.log.filter((line) => line.startsWith("warning:"));
  assertEquals(told.length, 1, told.join("\n"));
  assertStringIncludes(node.state().portals[1]?.error ?? "", second[0]);
});

both("a volume that nobody uses is let go of after a minute, not before", async (place, node) => {
  const volname = await attachedVolume(node);
  await node.keeper.round();
  node.leap(50_000);
  await node.keeper.round();
  assertEquals(await isLinked(place, volname), true);
  node.leap(11_000);
  await node.keeper.round();
  assertEquals([await isLinked(place, volname), scsiPaths(place)], [false, 0]);
  assertEquals(node.state().portals.map(({ state }) => state), ["live", "live"]);
});

both(
  "a volume that is in use stays, and the minute begins when it is used no more",
  async (place, node) => {
    const volname = await attachedVolume(node);
    {
      await using _guest = await holdOpen(place, volname, "pve1");
      for (let round = 0; round < 3; round++) {
        node.leap(MINUTE);
        await node.keeper.round();
      }
      assertEquals(node.state().disks.map(({ inUse }) => inUse), [true]);
    }
    node.leap(30_000);
    await node.keeper.round();
    assertEquals(await isLinked(place, volname), true);
    node.leap(31_000);
    await node.keeper.round();
    assertEquals(await isLinked(place, volname), false);
  },
);

both(
  "an activation begins the minute anew, also one by a hook that works by itself",
  async (place, node) => {
    const volname = await attachedVolume(node);
    await node.keeper.round();
    node.leap(50_000);
    await node.must("activate_volume", { volname });
    node.leap(50_000);
    await node.keeper.round();
    assertEquals(await isLinked(place, volname), true);
    // A hook that works by itself says so by what it keeps of the volume.
    const kept = `${place.directory}/var/lib/tnblock/san/vm-100-disk-0.json`;
    await Deno.utime(kept, 0, 0);
    await place.must("activate_volume", { volname });
    const keptMs = (await Deno.stat(kept)).mtime?.getTime() ?? 0;
    assertEquals(Date.now() - keptMs < 30_000, true);
    node.leap(20_000);
    const madeS = (Date.now() + 90_000) / 1000;
    await Deno.utime(kept, madeS, madeS);
    await node.keeper.round();
    assertEquals(await isLinked(place, volname), true);
    node.leap(40_000);
    await node.keeper.round();
    assertEquals(await isLinked(place, volname), false);
  },
);

both("a volume stays while a task of its guest runs, or the guest itself", async (place, node) => {
  const volname = await attachedVolume(node);
  await node.keeper.round();
  const upid = "UPID:pve1:0000ABCD:0001:65A0:qmclone:100:root@pam:";
  await play(place, 4711, { cmdline: `task ${upid}\0` });
  node.leap(MINUTE);
  await node.keeper.round();
  await Deno.remove(`${place.directory}/proc/4711`, { recursive: true });
  await play(place, 4712, { cmdline: "/usr/bin/kvm\0" });
  await Deno.mkdir(`${place.directory}/run/qemu-server`, { recursive: true });
  await Deno.writeTextFile(`${place.directory}/run/qemu-server/100.pid`, "4712\n");
  node.leap(MINUTE);
  await node.keeper.round();
  assertEquals(await isLinked(place, volname), true);
  await Deno.remove(`${place.directory}/proc/4712`, { recursive: true });
  node.leap(MINUTE);
  await node.keeper.round();
  assertEquals(await isLinked(place, volname), false);
});

both(
  "a volume that another operation works on is left alone, and nothing waits for it",
  async (place, node) => {
    const volname = await attachedVolume(node);
    await node.keeper.round();
    await place.faults([{ method: "pool.dataset.update", do: "hold" }]);
    const resize = place.ask("volume_resize", { volname, size: 128 << 20, running: 0 });
    await place.held("pool.dataset.update");
    node.leap(MINUTE);
    const start = performance.now();
    await node.keeper.round();
    const took = performance.now() - start;
    const stays = await isLinked(place, volname);
    await place.faults([]);
    assertEquals([stays, (await resize).ok, took < 5_000], [true, true, true]);
  },
);

both(
  "a volume that another node freed is let go of at once, by a fresh look",
  async (place, node) => {
    const volname = await attachedVolume(node);
    const kept = await attachedVolume(node);
    await node.keeper.round();
    await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
    await eventually(async () => {
      await node.keeper.round();
      assertEquals(await isLinked(place, volname), false);
    });
    assertEquals(scsiPaths(place), place.transport === "iscsi" ? 2 : 0);
    assertEquals(await isLinked(place, kept), true);
  },
  { nodes: NODES },
);

Deno.test("iscsi: a volume that is gone and in use here is left as it is, and told of once", async () => {
  await using place = await Place.start("iscsi", { nodes: NODES });
  await using node = await keptNode(place);
  const volname = await attachedVolume(node);
  await node.keeper.round();
  await using _guest = await holdOpen(place, volname, "pve1");
  await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
  await eventually(async () => {
    await node.keeper.round();
    assert(node.log.some((line) => line.includes("it is used on this node by qemu-system-x86")));
  });
  for (let round = 0; round < 3; round++) {
    node.leap(20_000);
    await node.keeper.round();
  }
  const told = node.log.filter((line) => line.includes("it is used on this node by"));
  assertEquals([told.length, await isLinked(place, volname), scsiPaths(place)], [1, true, 2]);
});

Deno.test("iscsi: a scan of the node's disks that hangs on a volume freed elsewhere is let out", async () => {
  await using place = await Place.start("iscsi", { nodes: NODES });
  await using node = await keptNode(place);
  const volname = await attachedVolume(node);
  await node.keeper.round();
  const scan = await holdOpen(place, volname, "pve1");
  await Deno.writeTextFile(`${place.directory}/proc/4711/comm`, "vgs\n");
  await place.must("free_image", { volname, isBase: 0, finish: true }, { node: "pve2" });
  const ended = eventually(async () => {
    assert(node.efforts.some((effort) => effort.includes("disablequeueing")));
    await scan[Symbol.asyncDispose]();
  });
  await eventually(async () => {
    await node.keeper.round();
    assertEquals([await isLinked(place, volname), scsiPaths(place)], [false, 0]);
  });
  await ended;
});

both(
  "a link that leads to another disk is removed and told of, and the disks stay",
  async (place, node) => {
    const volname = await attachedVolume(node);
    const other = await attachedVolume(node);
    await node.keeper.round();
    const target = await Deno.readLink(place.linkOf(other));
    await Deno.remove(place.linkOf(volname));
    await Deno.symlink(target, place.linkOf(volname));
    await node.keeper.round();
    assertEquals([await isLinked(place, volname), await isLinked(place, other)], [false, true]);
    const errors = node.log.filter((line) => line.startsWith("error:"));
    assertEquals(errors.length, 1);
    assertStringIncludes(errors[0] ?? "", "it is for another disk");
  },
);

Deno.test("iscsi: a disk whose LUN became another volume's loses its link at the daemon's first look", async () => {
  await using place = await Place.start("iscsi");
  const [volname, other] = [await place.alloc(), await place.alloc()];
  await place.must("activate_volume", { volname });
  const { mappings = [], extents = [] } = await place.objects();
  const idOf = (name: string) =>
    extents.find((row) =>
      String(row.disk ?? row.path).endsWith(name.replace(/^vol-(.*)-lun\d+$/, "$1"))
    )
      ?.id;
  const mapping = (name: string) => mappings.find((row) => row.extent === idOf(name));
  await place.array(async (nas) => {
    const [one, two] = [mapping(volname), mapping(other)];
    await nas.session.call("iscsi.targetextent.delete", [two?.id, true]);
    await nas.session.call("iscsi.targetextent.update", [one?.id, { extent: idOf(other) }]);
  });
  await using node = await keptNode(place);
  await node.must("check_connection");
  await node.keeper.round();
  assertEquals(await isLinked(place, volname), false, node.log.join("\n"));
  assert(node.log.some((line) => line.startsWith("error:") && line.includes("leads to")));
});

both(
  "all is well: a look runs no program, connects nowhere and asks the array nothing",
  async (place, node) => {
    const volname = await attachedVolume(node);
    await using _guest = await holdOpen(place, volname, "pve1");
    // What was activated a moment ago has been looked at.
    node.efforts.length = 0;
    await node.keeper.round();
    assertEquals(node.efforts, []);
    await eventually(async () => {
      node.calls.length = node.efforts.length = 0;
      await node.keeper.round();
      assertEquals([node.calls, node.efforts], [[], []]);
    });
  },
);

both(
  "activate_storage is answered from the last look while that is young and showed a live portal",
  async (place, node) => {
    await node.must("activate_storage");
    await node.keeper.round();
    for (const portal of portalsOf(place)) await place.player.setPortalUp(...portal, false);
    node.efforts.length = 0;
    await node.must("activate_storage");
    assertEquals(node.efforts, []);
    node.leap(16_000);
    const late = await node.must("activate_storage").then(() => "", String);
    assertStringIncludes(late, "unreachable");
    // A young look that showed none lets it try, too.
    await node.keeper.round();
    const none = await node.must("activate_storage").then(() => "", String);
    assertStringIncludes(none, "unreachable");
  },
);

both(
  "activate_storage costs a look at the portals while none answers, and connects as soon as one does",
  async (place, node) => {
    await node.must("activate_storage");
    for (const portal of portalsOf(place)) await place.player.setPortalUp(...portal, false);
    const refusal = () => node.must("activate_storage").then(() => "", String);
    const first = await refusal();
    assertStringIncludes(first, "unreachable");
    node.efforts.length = 0;
    assertEquals(await refusal(), first);
    // No program ran, and no kernel was asked.
    assertEquals(node.efforts.filter((effort) => effort.startsWith("/")), []);
    for (const portal of portalsOf(place)) await place.player.setPortalUp(...portal, true);
    await node.must("activate_storage");
  },
);

both(
  "a clone for reading that nobody has open goes after an hour, one that is open stays",
  async (place, node) => {
    const volname = await attachedVolume(node);
    await node.must("volume_snapshot", { volname, snapshot: "before" });
    await node.must("activate_volume", { volname, snapshot: "before" });
    const clones = async () =>
      (await place.objects()).zvols?.filter((row) => /\/tnb-read-/.test(row.name)).length;
    await node.keeper.round();
    {
      await using _reader = await holdOpen(place, "vm-100-disk-0@before", "pve1");
      node.leap(3_700_000);
      await node.keeper.round();
      assertEquals(node.state().disks.map(({ zvol, inUse }) => [zvol, inUse]), [
        ["vm-100-disk-0", false],
        ["vm-100-disk-0@before", true],
      ]);
    }
    node.leap(3_000_000);
    await node.keeper.round();
    assertEquals(await clones(), 1);
    node.leap(700_000);
    await node.keeper.round();
    assertEquals(await clones(), 0, node.log.join("\n"));
  },
);

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: looks go on while a step hangs`, async () => {
    await using place = await Place.start(transport);
    const [, second] = portalsOf(place);
    assert(second !== undefined);
    await place.player.setPortalUp(...second, false);
    await place.must("activate_storage");
    await using node = await keptNode(place, 10);
    const hung = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    node.onProbe = async (address) => {
      if (address !== second.join(":")) return;
      hung.resolve();
      await released.promise;
    };
    await hung.promise;
    const before = node.state().lastRoundMs;
    await eventually(() => {
      assert(node.state().lastRoundMs !== before);
      return Promise.resolve();
    });
    node.efforts.length = 0;
    await node.must("activate_storage");
    assertEquals(node.efforts, []);
    released.resolve();
  });
}

both(
  "a portal that is lost and comes back is told of once each, and its storage stays active",
  async (place, node) => {
    const [, second] = portalsOf(place);
    assert(second !== undefined);
    await node.must("activate_storage");
    await node.keeper.round();
    node.log.length = 0;
    await place.player.setPortalUp(...second, false);
    for (let round = 0; round < 3; round++) {
      node.leap(20_000);
      await node.keeper.round();
    }
    assertEquals(node.state().portals.map(({ state }) => state), ["live", "recovering"]);
    await node.must("activate_storage");
    await place.player.setPortalUp(...second, true);
    for (let round = 0; round < 3; round++) await node.keeper.round();
    assertEquals(node.log.filter((line) => line.includes(second[0])), [
      `warning: storage "san": the path to ${
        second.join(":")
      } is lost; the node is reconnecting it`,
      `info: storage "san": the path to ${second.join(":")} is back`,
    ]);
  },
);

Deno.test("iscsi: a path that was taken out of a map when the disk grew is taken back, under a running guest", async () => {
  await using place = await Place.start("iscsi");
  await using node = await keptNode(place);
  const [, second] = portalsOf(place);
  assert(second !== undefined);
  const volname = await attachedVolume(node);
  await using _guest = await holdOpen(place, volname, "pve1");
  await node.keeper.round();
  await place.player.setPortalSilent(...second, true);
  node.onProbe = (address) =>
    address === second.join(":")
      ? Promise.reject(new HostError("ETIMEDOUT", "nobody answers"))
      : Promise.resolve();
  await node.must("volume_resize", { volname, size: 128 << 20, running: 1 });
  await node.keeper.round();
  assertEquals(node.state().disks[0]?.paths, { up: 1, configured: 2 });
  await place.player.setPortalSilent(...second, false);
  node.onProbe = () => Promise.resolve();
  await eventually(async () => {
    node.leap(20_000);
    await node.keeper.round();
    assertEquals(node.state().disks[0]?.paths, { up: 2, configured: 2 });
  });
  assertEquals((await Deno.stat(place.linkOf(volname))).size, 128 << 20);
});

Deno.test("iscsi: paths that somebody's scan has left go after a minute, but for used and foreign ones", async () => {
  await using place = await Place.start("iscsi");
  await using node = await keptNode(place);
  await plantForeign(place);
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await node.must("alloc_image", args);
  await node.must("alloc_image", args);
  const used = await attachedVolume(node);
  await using _guest = await holdOpen(place, used, "pve1");
  await node.must("list_images");
  const sessions = [...Deno.readDirSync(`${place.directory}/sys/class/scsi_host`)];
  const host = linuxHost({ root: place.directory });
  for (const { name } of sessions) {
    const scan = `/sys/class/scsi_host/${name}/scan`;
    await host.files.writeControl(scan, "- - -", { deadlineMs: 10_000 });
  }
  // Two volumes and the weight, which are idle, one that is used, and the foreign one.
  await eventually(() => Promise.resolve(assertEquals(scsiPaths(place), 10)));
  await eventually(async () => assertEquals((await node.must("list_images")).length, 3));
  await node.keeper.round();
  assertEquals(scsiPaths(place), 10);
  node.leap(MINUTE);
  await node.must("status");
  await node.keeper.round();
  assertEquals(scsiPaths(place), 4, node.log.join("\n"));
  // What is not ours is not looked up again and again either.
  await eventually(async () => {
    node.calls.length = 0;
    await node.keeper.round();
    assertEquals(node.calls, []);
  });
});

both(
  "a storage is kept as storage.cfg has it, whatever settings a request tries",
  async (place, node) => {
    await node.keeper.round();
    assertEquals(node.state().portals.map(({ state }) => state), ["missing", "missing"]);
    await node.keeper.round();
    assertEquals(node.state().portals.map(({ state }) => state), ["live", "live"]);
    const tried = { "tnb-discovery-portal": "127.0.0.9:9", "tnb-portals": "127.0.0.9:9" };
    await node.must("check_connection", {}, { config: tried });
    await node.keeper.round();
    assertEquals(
      node.state().portals.map(({ address }) => address),
      portalsOf(place).map((portal) => portal.join(":")),
    );
  },
);
