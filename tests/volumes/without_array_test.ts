/** Volumes that are attached while the array's API is away, and those that are not. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import type { VolumeRef } from "../../src/common/volume.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import {
  type Evidence,
  isNoAnswer,
  isOtherNameOf,
  MOST_AGE_MS,
  whyNot,
} from "../../src/volumes/without_array.ts";
import type { Place } from "../support/place.ts";
import { both, NODES } from "./life_support.ts";
import { configure, elsewhere, keptNames, reboot, unconfigure } from "./reboot_support.ts";

const MIB = 1024 * 1024;
const DAY_MS = 24 * 3_600_000;
const VOLUME: VolumeRef = { zvol: "vm-100-disk-0", tag: { kind: "lun", lun: 5 } };
const KEPT = { tag: { kind: "lun", lun: 5 } } as const;
const NAMED: Evidence = {
  isNamed: true,
  otherwise: [],
  here: [],
  isComplete: true,
  hasQuorum: true,
};

for (
  const [what, kept, ageMs, change, why] of [
    ["a minute old", KEPT, 60_000, {}, undefined],
    ["as old as may be", KEPT, MOST_AGE_MS, {}, undefined],
    ["older", KEPT, MOST_AGE_MS + DAY_MS, {}, /31 days old/],
    ["of a time that the clock has not reached", KEPT, -DAY_MS, {}, undefined],
    ["nothing", undefined, 0, {}, /does not know its disk/],
    ["of another LUN", { tag: { kind: "lun", lun: 6 } }, 0, {}, /another disk by that name/],
    ["named by nobody", KEPT, 0, { isNamed: false }, /no guest's configuration names it/],
    ["another guest's by now", KEPT, 0, { otherwise: [200] }, /guest 200 .* another name/],
    ["here by another name", KEPT, 0, { here: ["vm-200-disk-0"] }, /as vm-200-disk-0/],
    ["not known to be nobody else's", KEPT, 0, { isComplete: false }, /not all configurations/],
    ["seen without quorum", KEPT, 0, { hasQuorum: false }, /no quorum/],
  ] as const
) {
  Deno.test(`what was kept and is ${what} ${why === undefined ? "will" : "will not"} do`, () => {
    const found = whyNot(kept, VOLUME, ageMs, { ...NAMED, ...change });
    if (why === undefined) assertEquals(found, undefined);
    else assertMatch(found ?? "", why);
  });
}

for (
  const [name, error, is] of [
    ["a refused connection", new ArrayError("unreachable", "no", { outcome: "not-sent" }), true],
    [
      "a connection that was cut",
      new ArrayError("unreachable", "no", { outcome: "unknown" }),
      true,
    ],
    ["silence", new TnblockError("timeout", "no"), true],
    [
      "a host that the array cannot reach",
      new ArrayError("unreachable", "no", { outcome: "answered" }),
      false,
    ],
    ["a revoked key", new ArrayError("auth", "no", { outcome: "answered" }), false],
    ["a missing role", new ArrayError("denied", "no", { outcome: "answered" }), false],
    ["another certificate", new ArrayError("tls", "no", { outcome: "not-sent" }), false],
    ["a lock-out", new TnblockError("rate-limited", "no"), false],
    ["a volume that is not there", new TnblockError("not-found", "no"), false],
    ["a bug", new TypeError("no"), false],
  ] as const
) {
  Deno.test(`${name} is ${is ? "no answer" : "an answer, or no reason to do without one"}`, () => {
    assertEquals(isNoAnswer(error), is);
  });
}

Deno.test("only the same export by another zvol's name is another name of a disk", () => {
  const names = [
    "vol-vm-200-disk-3-lun5",
    "vol-base-9-disk-0-lun1/vol-vm-200-disk-0-lun5",
    "vol-base-9-disk-0-lun5",
    "vol-vm-100-disk-0-lun5",
    "vol-base-9-disk-0-lun1/vol-vm-100-disk-0-lun5",
    "vol-base-9-disk-0-lun5/vol-vm-200-disk-0-lun7",
    "vol-vm-200-disk-0-lun55",
    "vm-200-lun5",
  ];
  assertEquals(
    names.filter((one) => isOtherNameOf(one, "vm-100-disk-0", "lun5")),
    names.slice(0, 3),
  );
});

/** A guest with a disk that has something on it, stopped again. */
async function stoppedGuest(place: Place, volname?: string): Promise<string> {
  volname ??= await place.alloc();
  await configure(place, 100, volname);
  await place.must("activate_volume", { volname });
  await Deno.writeTextFile(place.linkOf(volname), "guest", { create: false });
  await place.must("deactivate_volume", { volname });
  return volname;
}

/** What PVE asks before a guest's start. */
async function start(place: Place, volname: string): Promise<string> {
  assertEquals(await place.must("check_connection"), true);
  await place.must("activate_storage");
  const { ok, error } = await place.ask("activate_volume", { volname }, { deadlineMs: 8_000 });
  return ok ? "started" : `${error?.code}: ${error?.message}`;
}

const isLinked = (place: Place, volname: string) =>
  Deno.stat(place.linkOf(volname)).then(() => true, () => false);

both(
  "after a boot with the API away a guest's disk is attached, and it is said how",
  async (place) => {
    const volname = await stoppedGuest(place);
    await reboot(place);
    await place.simulator.goDown();
    place.log.length = 0;
    assertEquals(await start(place, volname), "started");
    assertStringIncludes(await place.beginning(volname), "guest");
    assertMatch(
      place.log.join("\n"),
      /"vm-100-disk-0" is attached by what the array said of it 0 min/,
    );
    // And so again.
    await place.must("deactivate_volume", { volname });
    assertEquals(await isLinked(place, volname), false);
    assertEquals(await start(place, volname), "started");
  },
);

both("a node that lost power under a running guest starts it with the API away", async (place) => {
  const volname = await stoppedGuest(place);
  await place.must("activate_volume", { volname });
  await reboot(place);
  await place.simulator.goDown();
  assertEquals(await start(place, volname), "started");
  assertStringIncludes(await place.beginning(volname), "guest");
});

both(
  "a guest's cloud-init volume has its size without the array, and is attached as well",
  async (place) => {
    const volname = await stoppedGuest(place, await place.alloc(100, 4096, "vm-100-cloudinit"));
    const { size } = await place.must("volume_size_info", { volname });
    await reboot(place);
    await place.simulator.goDown();
    assertEquals((await place.must("volume_size_info", { volname })).size, size);
    assertEquals(await start(place, volname), "started");
  },
);

both(
  "the size of a cloud-init volume that no guest has is not told without the array",
  async (place) => {
    const volname = await stoppedGuest(place, await place.alloc(100, 4096, "vm-100-cloudinit"));
    await unconfigure(place, 100);
    await place.simulator.goDown();
    const { error } = await place.ask("volume_size_info", { volname });
    assertEquals(error?.code, "unreachable");
  },
);

both("a disk that no guest has is not attached without the array", async (place) => {
  const volname = await stoppedGuest(place);
  await unconfigure(place, 100);
  await place.simulator.goDown();
  assertMatch(await start(place, volname), /^unreachable: .* no guest's configuration names it: /);
  assertEquals(await isLinked(place, volname), false);
});

both("a disk that is another guest's by now is not attached without the array", async (place) => {
  const volname = await stoppedGuest(place);
  const now = await elsewhere(
    place,
    volname,
    (there) => place.must("rename_volume", { volname, targetVmid: 200 }, there),
  );
  assertEquals(await keptNames(place), ["vm-100-disk-0"]);
  await place.simulator.goDown();
  await configure(place, 200, now);
  // The configuration of the former owner has stayed, as it does when a move is stopped.
  assertMatch(await start(place, volname), /^unreachable: .* guest 200 has its disk under another/);
  await unconfigure(place, 100);
  assertMatch(await start(place, volname), /^unreachable: /);
  assertEquals(await isLinked(place, volname), false);
}, { nodes: NODES });

both(
  "a disk that was freed and made anew elsewhere is not attached without the array",
  async (place) => {
    const volname = await stoppedGuest(place);
    const { mappings: [before] = [] } = await place.objects();
    await elsewhere(place, volname, async (there) => {
      await place.must("free_image", { volname, isBase: 0, finish: true }, there);
      await place.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 }, there);
    });
    if (place.transport === "iscsi") {
      // Under the very same number: only the identity tells.
      const { mappings: [{ id, target, extent }] = [] } = await place.objects();
      await place.array((nas) =>
        nas.session.call("iscsi.targetextent.update", [id, { target, extent, lunid: before.lunid }])
      );
    }
    await place.simulator.goDown();
    const told = await start(place, volname);
    assertMatch(told, /^(volume-replaced|array-fault): Cannot attach .* as this node last knew it/);
    assertEquals(await isLinked(place, volname), false);
  },
  { nodes: NODES },
);

both("a disk that was rolled back elsewhere to a smaller size is not attached", async (place) => {
  const volname = await stoppedGuest(place);
  await place.must("volume_snapshot", { volname, snapshot: "small" });
  await place.must("volume_resize", { volname, size: 96 * MIB, running: 0 });
  await stoppedGuest(place, volname);
  const rollback = { volname, snapshot: "small" };
  await elsewhere(
    place,
    volname,
    (there) => place.must("volume_snapshot_rollback", rollback, there),
  );
  await place.simulator.goDown();
  assertMatch(await start(place, volname), /^host-fault: Cannot attach .* has 67108864 bytes/);
  assertEquals(await isLinked(place, volname), false);
}, { nodes: NODES });

both("a disk that was grown elsewhere is attached at its size", async (place) => {
  const volname = await stoppedGuest(place);
  const args = { volname, size: 96 * MIB, running: 0 };
  await place.must("volume_resize", args, { node: "pve2" });
  await place.simulator.goDown();
  assertEquals(await start(place, volname), "started");
  assertEquals((await Deno.stat(place.linkOf(volname))).size, 96 * MIB);
}, { nodes: NODES });

both("without quorum nothing is attached without the array", async (place) => {
  const volname = await stoppedGuest(place);
  const members = `${place.directory}/etc/pve/.members`;
  const cluster = (quorate: number) =>
    Deno.writeTextFile(members, JSON.stringify({ nodename: "pve1", cluster: { quorate } }));
  await place.simulator.goDown();
  await cluster(0);
  assertMatch(await start(place, volname), /^unreachable: .* no quorum/);
  // pmxcfs has begun, and does not know its cluster yet.
  await Deno.writeTextFile(members, JSON.stringify({ nodename: "pve1", version: 0 }));
  await Deno.writeTextFile(`${place.directory}/etc/pve/corosync.conf`, "totem {}\n");
  assertMatch(await start(place, volname), /^unreachable: .* no quorum/);
  await cluster(1);
  assertEquals(await start(place, volname), "started");
});

both("an array that refuses the key, or shows another certificate, is not away", async (place) => {
  const volname = await stoppedGuest(place);
  const config = { "tnb-tls-fingerprint": "AB".repeat(32) };
  const stranger = await place.ask("activate_volume", { volname }, { config });
  assertEquals(stranger.error?.code, "tls");
  await place.writeSecrets({ "tnb-api-key": `1-${"r".repeat(64)}` });
  const refused = await place.ask("activate_volume", { volname });
  assertEquals(refused.error?.code, "auth");
  assertEquals(await isLinked(place, volname), false);
});

both("what is kept of a volume is nothing to an array that answers", async (place) => {
  const volname = await stoppedGuest(place);
  await elsewhere(
    place,
    volname,
    (there) => place.must("free_image", { volname, isBase: 0, finish: true }, there),
  );
  assertEquals(await keptNames(place), ["vm-100-disk-0"]);
  assertEquals((await place.ask("activate_volume", { volname })).error?.code, "not-found");
}, { nodes: NODES });

both("a guest whose disk was rolled back while it was attached starts", async (place) => {
  const volname = await place.alloc();
  await configure(place, 100, volname);
  await place.must("activate_volume", { volname });
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("volume_snapshot_rollback", { volname, snapshot: "before" });
  // It is attached already: nothing is told anew.
  await place.must("activate_volume", { volname });
  await reboot(place);
  await place.simulator.goDown();
  assertEquals(await start(place, volname), "started");
});

both("of another array's volume of the same name nothing is known", async (place) => {
  const volname = await stoppedGuest(place);
  const config = { "tnb-api-host": "127.0.0.9" };
  const { error } = await place.ask("activate_volume", { volname }, { config });
  assertEquals(error?.code, "unreachable");
  assertStringIncludes(error?.message ?? "", "does not know its disk");
});

both("without the array a snapshot is not read, and a template is not attached", async (place) => {
  const volname = await stoppedGuest(place);
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("activate_volume", { volname, snapshot: "before" });
  await place.must("deactivate_volume", { volname, snapshot: "before" });
  const other = await place.alloc(9);
  const base = await place.must("create_base", { volname: other });
  await configure(place, 9, base);
  await place.must("activate_volume", { volname: base });
  await place.must("deactivate_volume", { volname: base });
  assertEquals(await keptNames(place), ["vm-100-disk-0"]);
  await place.simulator.goDown();
  for (const args of [{ volname, snapshot: "before" }, { volname: base }]) {
    assertEquals((await place.ask("activate_volume", args)).error?.code, "unreachable");
  }
});

both("what is freed, renamed or rolled back here is kept no longer", async (place) => {
  const renamed = await place.must("rename_volume", {
    volname: await stoppedGuest(place),
    targetVmid: 200,
  });
  assertEquals(await keptNames(place), []);
  const volname = await stoppedGuest(place, renamed);
  assertEquals(await keptNames(place), ["vm-200-disk-0"]);
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("volume_snapshot_rollback", { volname, snapshot: "before" });
  assertEquals(await keptNames(place), []);
  await stoppedGuest(place, volname);
  assertEquals(await keptNames(place), ["vm-200-disk-0"]);
  await unconfigure(place, 100);
  await place.must("free_image", { volname, isBase: 0, finish: true });
  assertEquals(await keptNames(place), []);
});

both(
  "what has not changed is written once an hour, however often it is attached",
  async (place) => {
    const volname = await stoppedGuest(place);
    const file = `${place.directory}/var/lib/tnblock/.verified/san/vm-100-disk-0.json`;
    const before = await Deno.stat(file);
    assertEquals((before.mode ?? 0) & 0o777, 0o600);
    await stoppedGuest(place, volname);
    assertEquals((await Deno.stat(file)).ino, before.ino);
    const kept = JSON.parse(await Deno.readTextFile(file));
    await Deno.writeTextFile(file, JSON.stringify({ ...kept, toldMs: kept.toldMs - 3_600_000 }));
    await stoppedGuest(place, volname);
    assert(JSON.parse(await Deno.readTextFile(file)).toldMs >= kept.toldMs);
  },
);
