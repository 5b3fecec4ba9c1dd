import { assertEquals } from "@std/assert";
import {
  decideSteps,
  type KeeperView,
  MOST_STEPS,
  READING_IDLE_MS,
  retryAfterMs,
} from "../../src/daemon/keeper_decide.ts";
import { isTaskOf } from "../../src/daemon/keeper_guests.ts";
import type { DiskGlance, DiskIdentity, VolumeExport } from "../../src/transport/transport.ts";
import { areOnlookers, decideFate } from "../../src/volumes/tidy.ts";
import type { HeldHere } from "../../src/volumes/tidy_look.ts";

const NAA = "6589cfc0000000000000000000000001";
const identity: DiskIdentity = { kind: "iscsi", lun: 5, naa: NAA };
const other: DiskIdentity = { kind: "iscsi", lun: 5, naa: NAA.replace(/1$/, "2") };
const NOW = 1_000_000;

/** A volume that is attached, checked, and all right. */
function held(change: Partial<HeldHere> = {}, disk: Partial<DiskGlance> = {}): HeldHere {
  return {
    name: "vm-100-disk-0",
    known: { tag: { kind: "lun", lun: 5 }, identity, size: 1 },
    isLinked: true,
    linked: identity,
    isAttached: true,
    seemsUsed: false,
    disk: {
      device: "/dev/dm-0",
      size: 1,
      paths: { up: 2, configured: 2 },
      lost: 0,
      strangers: [],
      mark: "one",
      ...disk,
    },
    ...change,
  };
}

/** What is to be done for one name, used `idleMs` ago. */
function decided(one: HeldHere, idleMs = 0, change: Partial<KeeperView> = {}): string[] {
  const steps = decideSteps({
    portals: [{ portal: { address: "10.0.0.9", port: 3260 }, state: "live" }],
    held: [one],
    strays: [],
    tracked: new Map([[one.name, { usedMs: NOW - idleMs, checkedMark: "one" }]]),
    failures: new Map(),
    mayBeGone: () => false,
    ...change,
  }, NOW);
  return steps.map(({ kind }) => kind);
}

const gone = { mayBeGone: () => true };
const failed = (key: string, agoMs: number, count = 1): Partial<KeeperView> => ({
  failures: new Map([[key, { count, lastMs: NOW - agoMs }]]),
});

const TABLE: readonly [string, HeldHere, number, Partial<KeeperView>, string[]][] = [
  ["all is right", held(), 0, {}, []],
  ["idle for less than a minute", held(), 59_999, {}, []],
  ["idle for a minute", held(), 60_000, {}, ["idle"]],
  ["idle, but a glance shows a user", held({ seemsUsed: true }), 60_000, {}, []],
  ["idle with every path away", held(), 60_000, { portals: [] }, []],
  ["not seen before", held(), 0, { tracked: new Map() }, ["check"]],
  ["paths without link", held({ isLinked: false, linked: undefined }), 60_000, {}, ["idle"]],
  [
    "known for when the API is away, with nothing attached",
    held({ isLinked: false, linked: undefined, isAttached: false, disk: undefined }),
    10 * READING_IDLE_MS,
    {},
    [],
  ],
  ["a path came back", held({}, { lost: 1 }), 0, {}, ["mend"]],
  ["a path came back while it is used", held({ seemsUsed: true }, { lost: 1 }), 0, {}, ["mend"]],
  ["a path came back, idle", held({}, { lost: 1 }), 60_000, {}, ["idle"]],
  [
    "mending failed a moment ago",
    held({}, { lost: 1 }),
    0,
    failed("mend vm-100-disk-0", 9_999),
    [],
  ],
  ["mending failed before", held({}, { lost: 1 }), 0, failed("mend vm-100-disk-0", 10_000), [
    "mend",
  ]],
  ["another device", held({}, { mark: "two" }), 0, {}, ["check"]],
  ["another device, used", held({ seemsUsed: true }, { mark: "two" }), 0, {}, ["check"]],
  [
    "another device, and checking it failed a moment ago; idle",
    held({}, { mark: "two" }),
    60_000,
    failed("check vm-100-disk-0", 1_000),
    ["idle"],
  ],
  ["a dangling link", held({}, { device: undefined, mark: "two" }), 0, {}, []],
  ["the link is for another disk", held({ linked: other }), 0, {}, ["check"]],
  ["the link names no disk", held({ linked: undefined }), 0, {}, ["check"]],
  ["the link leads elsewhere", held({}, { strangers: [other.naa] }), 0, {}, ["check"]],
  ["memory knows it no more", held(), 0, gone, ["release"]],
  ["memory knows it no more, in use", held({ seemsUsed: true }), 0, gone, ["release"]],
  ["a file without disk, unknown to memory", held({ isLinked: false, disk: undefined }), 0, gone, [
    "release",
  ]],
  [
    "memory knows it no more, looked a moment ago; idle",
    held(),
    60_000,
    { ...gone, ...failed("release vm-100-disk-0", 1_000) },
    ["idle"],
  ],
  ["a clone for reading, unknown to memory", held({ name: "vm-100-disk-0@a" }), 60_000, gone, []],
  ["a clone for reading after an hour", held({ name: "vm-100-disk-0@a" }), READING_IDLE_MS, {}, [
    "idle",
  ]],
  [
    "a clone for reading from before a restart of the node, after an hour",
    held({ name: "vm-1-a@b", isLinked: false, linked: undefined, isAttached: false }),
    READING_IDLE_MS,
    {},
    ["idle"],
  ],
];

for (const [name, one, idleMs, change, expected] of TABLE) {
  Deno.test(`what is done: ${name}`, () => assertEquals(decided(one, idleMs, change), expected));
}

Deno.test("portals are connected one by one as their pauses end, wrong links come first, and a round is bounded", () => {
  const portal = (number: number) => ({ address: `10.0.0.${number}`, port: 3260 });
  const many = Array.from({ length: 20 }, (_, index) => held({ name: `vm-1-disk-${index}` }));
  const view: KeeperView = {
    portals: [
      { portal: portal(1), state: "missing" },
      { portal: portal(2), state: "recovering" },
      { portal: portal(3), state: "live" },
      { portal: portal(4), state: "missing" },
    ],
    held: [...many, held({ name: "wrong", linked: other })],
    strays: [],
    tracked: new Map(many.map(({ name }) => [name, { usedMs: 0, checkedMark: "one" }])),
    failures: new Map([["connect 10.0.0.4:3260", { count: 3, lastMs: NOW - 39_999 }]]),
    mayBeGone: () => false,
  };
  const steps = decideSteps(view, NOW).map(({ kind, subject }) => `${kind} ${subject}`);
  assertEquals(steps.slice(0, 3), ["check wrong", "connect 10.0.0.1:3260", "idle vm-1-disk-0"]);
  assertEquals(steps.length, MOST_STEPS);
  assertEquals(
    decideSteps(view, NOW + 1)[2],
    { kind: "connect", subject: "10.0.0.4:3260", portal: portal(4) },
  );
});

Deno.test("pauses grow from ten seconds to five minutes", () => {
  assertEquals([1, 2, 3, 5, 6, 100].map(retryAfterMs), [
    10_000,
    20_000,
    40_000,
    160_000,
    300_000,
    300_000,
  ]);
});

Deno.test("only what a fresh look shows to be gone, or another disk, is let go of", () => {
  const ours = (change: Partial<VolumeExport>) => ({
    kind: "ours" as const,
    export: { zvol: "tank/a", identity, rows: [], enabled: true, sectorSize: 512, ...change },
  });
  const none = { kind: "none" as const };
  const half = { kind: "half" as const, rows: [] };
  const table = [
    [true, ours({}), "there"],
    [true, ours({ enabled: false }), "there"],
    [true, ours({ identity: other }), "gone"],
    [true, ours({ identity: other, enabled: false }), "unsure"],
    [true, none, "unsure"],
    [true, half, "unsure"],
    [true, { kind: "foreign" as const, what: "x" }, "unsure"],
    [false, half, "unsure"],
    [false, none, "gone"],
  ] as const;
  for (const [hasZvol, found, fate] of table) {
    assertEquals([found, decideFate(identity, hasZvol, found)], [found, fate]);
  }
});

Deno.test("onlookers are programs alone, and none that runs a guest", () => {
  assertEquals([
    areOnlookers([]),
    areOnlookers(["vgs (process 7)"]),
    areOnlookers(["vgs (process 7)", "kvm (process 8)"]),
    areOnlookers(["qemu-system-x86 (process 8)"]),
    areOnlookers(["the device dm-7 on top of it"]),
    areOnlookers(["the loop device loop0"]),
    areOnlookers(["vgs (process 7)", "the loop device loop0"]),
    areOnlookers(["a virtual machine that has locked it"]),
  ], [false, true, false, false, false, false, false, false]);
});

Deno.test("a task is its guest's, or a backup's of any guest", () => {
  const line = (type: string, guest: string) =>
    `task UPID:pve1:0000ABCD:0001F:65A0:${type}:${guest}:root@pam:\0`;
  assertEquals([
    isTaskOf(100, line("qmclone", "100")),
    isTaskOf(100, line("qmclone", "1001")),
    isTaskOf(100, line("vzdump", "")),
    isTaskOf(100, line("vncshell", "")),
    isTaskOf(100, "/usr/bin/kvm\0-id\0" + "100"),
    isTaskOf(100, ""),
  ], [true, false, true, false, false, false]);
});
