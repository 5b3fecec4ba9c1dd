import { assertEquals } from "@std/assert";
import {
  type EventListener,
  meaningOf,
  type RecentExtents,
  SharedEvents,
} from "../../src/daemon/memory_events.ts";
import { type Picture, withAll } from "../../src/daemon/memory_picture.ts";
import type { ArrayEvent, Session } from "../../src/truenas/session.ts";

const DATASET = "tank/pve";

/** A picture with extent 7 and mapping 70 on vm-1, and namespace 9 on vm-2. */
const PICTURE: Picture = withAll(
  new Map(),
  {
    zvols: [],
    exports: [
      {
        zvol: "tank/pve/vm-1",
        identity: { kind: "iscsi", lun: 1, naa: "a" },
        rows: [{ kind: "mapping", id: 70 }, { kind: "extent", id: 7 }],
        enabled: true,
        sectorSize: 512,
      },
      {
        zvol: "tank/pve/vm-2",
        identity: { kind: "nvme-tcp", nsid: 1, uuid: "u" },
        rows: [{ kind: "namespace", id: 9 }],
        enabled: true,
        sectorSize: 512,
      },
    ],
  },
  1,
  new Map(),
);

const paths = (...names: string[]) => ({ kind: "paths", paths: names });
const ALL = { kind: "all" };
const NOTHING = { kind: "nothing" };

const CASES: readonly [string, string, string, string | number, unknown, unknown][] = [
  [
    "a zvol of the dataset",
    "added",
    "pool.dataset.query",
    "tank/pve/vm-1",
    {},
    paths("tank/pve/vm-1"),
  ],
  [
    "a zvol's end",
    "removed",
    "pool.dataset.query",
    "tank/pve/vm-1",
    undefined,
    paths("tank/pve/vm-1"),
  ],
  ["somebody else's zvol", "changed", "pool.dataset.query", "tank/other/vm-1", {}, NOTHING],
  ["what is deeper", "changed", "pool.dataset.query", "tank/pve/x/vm-1", {}, NOTHING],
  ["the dataset itself", "changed", "pool.dataset.query", "tank/pve", {}, ALL],
  ["what the dataset is in", "removed", "pool.dataset.query", "tank", undefined, ALL],
  ["a neighbour with a longer name", "removed", "pool.dataset.query", "tan", undefined, NOTHING],
  ["our pool", "changed", "pool.query", 1, { name: "tank" }, ALL],
  ["another pool", "changed", "pool.query", 2, { name: "fast" }, NOTHING],
  ["a pool that went", "removed", "pool.query", 2, undefined, ALL],
  [
    "an extent by its path",
    "added",
    "iscsi.extent.query",
    8,
    { path: "zvol/tank/pve/vm-8" },
    paths("tank/pve/vm-8"),
  ],
  [
    "an extent that was pointed elsewhere",
    "changed",
    "iscsi.extent.query",
    7,
    { disk: "zvol/tank/pve/vm-8" },
    paths("tank/pve/vm-1", "tank/pve/vm-8"),
  ],
  [
    "an extent that went",
    "removed",
    "iscsi.extent.query",
    7,
    undefined,
    paths("tank/pve/vm-1"),
  ],
  ["a foreign one that went", "removed", "iscsi.extent.query", 99, undefined, NOTHING],
  ["a new one without its fields (25.04)", "added", "iscsi.extent.query", 99, undefined, ALL],
  [
    "an extent on a file",
    "added",
    "iscsi.extent.query",
    99,
    { path: "/mnt/tank/file" },
    NOTHING,
  ],
  [
    "a mapping of a known extent",
    "added",
    "iscsi.targetextent.query",
    71,
    { extent: 7 },
    paths("tank/pve/vm-1"),
  ],
  [
    "a mapping of an extent that only an event told of",
    "added",
    "iscsi.targetextent.query",
    72,
    { extent: 5 },
    paths("tank/pve/vm-5"),
  ],
  ["a foreign mapping", "added", "iscsi.targetextent.query", 73, { extent: 6 }, NOTHING],
  [
    "a mapping that went",
    "removed",
    "iscsi.targetextent.query",
    70,
    undefined,
    paths("tank/pve/vm-1"),
  ],
  [
    "a namespace by its path, with a blank",
    "added",
    "nvmet.namespace.query",
    10,
    { device_path: "zvol/tank/pve/vm+3" },
    paths("tank/pve/vm 3"),
  ],
  [
    "a namespace that went",
    "removed",
    "nvmet.namespace.query",
    9,
    undefined,
    paths("tank/pve/vm-2"),
  ],
  ["anything else", "changed", "alert.list", 1, {}, NOTHING],
];

for (const [name, kind, collection, id, fields, expected] of CASES) {
  Deno.test(`${collection} ${kind}: ${name}`, () => {
    const recent: RecentExtents = new Map([[5, "tank/pve/vm-5"]]);
    const event: ArrayEvent = { kind, collection, id, fields };
    assertEquals(meaningOf(event, DATASET, PICTURE, recent), expected);
  });
}

Deno.test("of the extents that events told of only so many are remembered", () => {
  const recent: RecentExtents = new Map();
  for (let id = 1; id <= 3_000; id++) {
    const fields = { path: `zvol/tank/pve/vm-${id}` };
    const event = { kind: "added", collection: "iscsi.extent.query", id, fields };
    meaningOf(event, DATASET, new Map(), recent);
  }
  assertEquals(recent.size, 1_000);
  assertEquals(recent.get(3_000), "tank/pve/vm-3000");
});

/** A session that counts its subscriptions and can tell of events. */
function fakeSession() {
  const listeners = new Map<string, (event: ArrayEvent) => void>();
  let count = 0;
  const session = {
    subscribe: (collection: string, listener: (event: ArrayEvent) => void) => {
      count++;
      listeners.set(collection, listener);
      return Promise.resolve(() => Promise.resolve());
    },
  } as unknown as Session;
  return { session, listeners, count: () => count };
}

Deno.test("two storages on one session share its subscriptions", async () => {
  const { session, listeners, count } = fakeSession();
  const events = new SharedEvents();
  const heard: string[] = [];
  const one: EventListener = () => heard.push("one");
  const other: EventListener = () => heard.push("other");
  await Promise.all([
    events.follow(session, "pool.query", one),
    events.follow(session, "pool.query", other),
  ]);
  assertEquals(count(), 1);
  const event = { kind: "changed", collection: "pool.query", id: 1, fields: {} };
  listeners.get("pool.query")?.(event);
  assertEquals(heard, ["one", "other"]);
  events.leave(session, one);
  listeners.get("pool.query")?.(event);
  assertEquals(heard, ["one", "other", "other"]);
});

Deno.test("a subscription that the array ended is told, and begun anew when asked for", async () => {
  const { session, listeners, count } = fakeSession();
  const events = new SharedEvents();
  const heard: (ArrayEvent | undefined)[] = [];
  await events.follow(session, "pool.query", (event) => heard.push(event));
  listeners.get("pool.query")?.({
    kind: "unsubscribed",
    collection: "pool.query",
    id: undefined,
    fields: undefined,
  });
  assertEquals(heard, [undefined]);
  await events.follow(session, "pool.query", (event) => heard.push(event));
  assertEquals(count(), 2);
});
