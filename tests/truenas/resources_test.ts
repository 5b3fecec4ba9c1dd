import { assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { bindResources } from "../../src/truenas/array.ts";
import type { Resources } from "../../src/truenas/array.ts";
import { parseRelease } from "../../src/truenas/dialect.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import { iqnOf } from "../../src/truenas/targets.ts";
import { CallTable, type Line, LINES, UNUSED } from "../support/call_table.ts";

const GIB = 1024 ** 3;
/** As 25.10 answers: the number is in `extra`, ENOENT. */
const NOT_FOUND = new ArrayError("not-found", "Cannot read: not found", {
  outcome: "answered",
  errno: 2,
});

function table(line: Line): { calls: CallTable; nas: Resources } {
  const calls = new CallTable(line);
  return { calls, nas: bindResources(calls) };
}

const raw = (value: string | number) => ({ raw: String(value), source: null, value });
const old = (value: string | number, pretty = String(value)) => ({
  parsed: value,
  rawvalue: String(value),
  value: pretty,
  source: "LOCAL",
  source_info: null,
});

const RESOURCE_PROPERTIES = [
  "used",
  "available",
  "volsize",
  "volblocksize",
  "refreservation",
  "referenced",
  "creation",
  "origin",
  "guid",
  "createtxg",
];
const DATASET_PROPERTIES = [...RESOURCE_PROPERTIES.slice(0, 5), "creation", "origin"];
const RESOURCE_QUERY = {
  properties: RESOURCE_PROPERTIES,
  get_user_properties: true,
  get_source: false,
};
const DATASET_OPTIONS = (extra: object) => ({
  select: ["id", "type", "user_properties", ...DATASET_PROPERTIES],
  extra: { properties: DATASET_PROPERTIES, ...extra },
});

/** A zvol as `zfs.resource.query` tells it; JSON has lost digits of the guid beside the properties. */
const RESOURCE_ZVOL = {
  name: "tank/pve/vm-1",
  pool: "tank",
  type: "VOLUME",
  guid: 7446418386297157000,
  createtxg: 1046,
  properties: {
    used: raw(57344),
    available: raw(96 * GIB),
    volsize: raw(10 * GIB),
    volblocksize: raw(16384),
    refreservation: raw(0),
    referenced: raw(57344),
    creation: raw(1795320303),
    origin: raw("tank/pve/base@b"),
    guid: { raw: "7446418386297156546", source: null, value: 7446418386297157000 },
    createtxg: raw(1046),
  },
  user_properties: { "tnblock:volume": "tank/pve/vm-1", comments: "c" },
  children: [],
};
const RESOURCE_PARENT = {
  ...RESOURCE_ZVOL,
  name: "tank/pve",
  type: "FILESYSTEM",
  properties: { used: raw(1000), available: raw(96 * GIB), origin: raw("") },
  user_properties: null,
};

/** The same as `pool.dataset.query` of 25.04 tells it. */
const DATASET_ZVOL = {
  id: "tank/pve/vm-1",
  type: "VOLUME",
  user_properties: { "tnblock:volume": old("tank/pve/vm-1") },
  used: old(57344, "56K"),
  available: old(96 * GIB, "96G"),
  volsize: old(10 * GIB, "10G"),
  volblocksize: old(16384, "16K"),
  refreservation: { ...old(0), parsed: null, value: null },
  creation: {
    parsed: { $date: 1795320303000 },
    rawvalue: "1795320303",
    value: "Sun Nov 22  4:05 2026",
    source: "NONE",
    source_info: null,
  },
  origin: old("tank/pve/base@b"),
};
const DATASET_PARENT = {
  id: "tank/pve",
  type: "FILESYSTEM",
  user_properties: {},
  used: old(1000),
  available: old(96 * GIB),
};

const ZVOL = {
  name: "tank/pve/vm-1",
  volsize: 10 * GIB,
  volblocksize: 16384,
  used: 57344,
  referenced: 57344,
  sparse: true,
  reserved: 0,
  createdMs: 1795320303000,
  origin: "tank/pve/base@b",
  guid: "7446418386297156546",
  createTxg: "1046",
  userProperties: { "tnblock:volume": "tank/pve/vm-1" },
};
const ZVOL_2504 = { ...ZVOL, referenced: undefined, guid: undefined, createTxg: undefined };

Deno.test("one zvol is read by a direct look-up, its guid to the last digit", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    if (line === "25.04") {
      calls.expect("pool.dataset.query", [
        [["id", "=", "tank/pve/vm-1"]],
        DATASET_OPTIONS({ retrieve_children: false }),
      ], [DATASET_ZVOL]);
    } else {
      calls.expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: ["tank/pve/vm-1"] }], [
        RESOURCE_ZVOL,
      ]);
    }
    assertEquals(await nas.zvols.read("tank/pve/vm-1"), line === "25.04" ? ZVOL_2504 : ZVOL);
    calls.done();
  }
});

Deno.test("a zvol that does not exist is undefined, however the release says so", async () => {
  const query = [{ ...RESOURCE_QUERY, paths: ["tank/x"] }];
  const old = [[["id", "=", "tank/x"]], DATASET_OPTIONS({ retrieve_children: false })];
  for (
    const [line, method, params, answer] of [
      ["25.04", "pool.dataset.query", old, []],
      ["25.10", "zfs.resource.query", query, NOT_FOUND],
      ["26", "zfs.resource.query", query, []],
    ] as const
  ) {
    const { calls, nas } = table(line);
    calls.expect(method, params, answer);
    assertEquals(await nas.zvols.read("tank/x"), undefined);
    calls.done();
  }
});

Deno.test("a filesystem is no zvol", async () => {
  const { calls, nas } = table("26");
  calls.expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: ["tank/pve"] }], [
    RESOURCE_PARENT,
  ]);
  assertEquals(await nas.zvols.read("tank/pve"), undefined);
});

Deno.test("the zvols below a dataset and its space come with one call, grandchildren left out", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    if (line === "25.04") {
      calls.expect("pool.dataset.query", [
        [["OR", [["id", "=", "tank/pve"], ["id", "^", "tank/pve/"]]]],
        DATASET_OPTIONS({}),
      ], [
        DATASET_PARENT,
        DATASET_ZVOL,
        { ...DATASET_PARENT, id: "tank/pve/sub" },
        { ...DATASET_ZVOL, id: "tank/pve/sub/z" },
      ]);
    } else {
      const depth = line === "26" ? { max_depth: 1 } : {};
      calls.expect("zfs.resource.query", [{
        ...RESOURCE_QUERY,
        paths: ["tank/pve"],
        get_children: true,
        ...depth,
      }], [
        RESOURCE_PARENT,
        RESOURCE_ZVOL,
        { ...RESOURCE_PARENT, name: "tank/pve/sub" },
        { ...RESOURCE_ZVOL, name: "tank/pve/sub/z" },
      ]);
    }
    const listing = await nas.zvols.list("tank/pve");
    assertEquals(listing.zvols, [line === "25.04" ? ZVOL_2504 : ZVOL]);
    assertEquals(listing.filesystems, ["tank/pve/sub"]);
    assertEquals([listing.parent.available, listing.parent.used], [96 * GIB, 1000]);
    calls.done();
  }
});

Deno.test("listing below a dataset that does not exist is not-found, never an empty list", async () => {
  const children = { ...RESOURCE_QUERY, paths: ["tank/x"], get_children: true };
  for (
    const [line, method, params, answer] of [
      [
        "25.04",
        "pool.dataset.query",
        [[["OR", [["id", "=", "tank/x"], ["id", "^", "tank/x/"]]]], DATASET_OPTIONS({})],
        [],
      ],
      ["25.10", "zfs.resource.query", [children], NOT_FOUND],
      ["26", "zfs.resource.query", [{ ...children, max_depth: 1 }], []],
    ] as const
  ) {
    const { calls, nas } = table(line);
    calls.expect(method, params, answer);
    const error = await assertRejects(() => nas.zvols.list("tank/x"));
    assertInstanceOf(error, ArrayError);
    assertEquals(error.code, "not-found");
  }
});

Deno.test("of several zvols, one that is missing does not hide the others", async () => {
  const names = ["tank/pve/vm-1", "tank/x"];
  const one = (path: string) => [{ ...RESOURCE_QUERY, paths: [path] }];
  const { calls, nas } = table("25.10");
  calls.expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: names }], NOT_FOUND)
    .expect("zfs.resource.query", one("tank/pve/vm-1"), [RESOURCE_ZVOL])
    .expect("zfs.resource.query", one("tank/x"), NOT_FOUND);
  assertEquals(await nas.zvols.readSome(names), [ZVOL]);
  calls.done();
  const later = table("26");
  later.calls.expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: names }], [RESOURCE_ZVOL]);
  assertEquals(await later.nas.zvols.readSome(names), [ZVOL]);
  assertEquals(await later.nas.zvols.readSome([]), []);
});

Deno.test("the clones of a zvol are found anywhere in its pool", async () => {
  const { calls, nas } = table("25.10");
  calls.expect("zfs.resource.query", [{
    ...RESOURCE_QUERY,
    properties: ["origin"],
    get_user_properties: false,
    paths: ["tank"],
    get_children: true,
  }], [
    RESOURCE_PARENT,
    { ...RESOURCE_ZVOL, name: "tank/other/c", properties: { origin: raw("tank/pve/base@b") } },
    { ...RESOURCE_ZVOL, name: "tank/d", properties: { origin: raw("tank/pve/base2@b") } },
  ]);
  assertEquals(await nas.zvols.clones("tank/pve/base"), [
    { name: "tank/other/c", origin: "tank/pve/base@b" },
  ]);
});

const NEW_ZVOL = {
  name: "tank/pve/vm-1",
  volsize: GIB,
  volblocksize: "16K",
  sparse: true,
  compression: "LZ4",
  userProperties: { "tnblock:op": "7f3a" },
};
const PLAIN_CREATE = {
  name: "tank/pve/vm-1",
  type: "VOLUME",
  volsize: GIB,
  volblocksize: "16K",
  sparse: true,
  force_size: true,
  compression: "LZ4",
  user_properties: [{ key: "tnblock:op", value: "7f3a" }],
};
const EXPLICIT_CREATE = {
  comments: "INHERIT",
  snapdev: "INHERIT",
  special_small_block_size: "INHERIT",
  reservation: 0,
};

Deno.test("a zvol is created past the 80 % rule; 25.10 gets its optional fields explicitly", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const sparse = line === "25.10"
      ? { ...EXPLICIT_CREATE, refreservation: 0, ...PLAIN_CREATE }
      : PLAIN_CREATE;
    calls.expect("pool.dataset.create", [sparse], UNUSED);
    await nas.zvols.create(NEW_ZVOL);
    // A refreservation of 0 would make it sparse after all.
    const thick = line === "25.10" ? { ...EXPLICIT_CREATE, ...PLAIN_CREATE } : PLAIN_CREATE;
    calls.expect("pool.dataset.create", [{ ...thick, sparse: false }], UNUSED);
    await nas.zvols.create({ ...NEW_ZVOL, sparse: false });
    calls.done();
    assertEquals(calls.options[0]?.lane, "write");
    assertEquals(calls.options[0]?.doing, 'Cannot create zvol "tank/pve/vm-1"');
  }
});

Deno.test("marks are set and removed one by one, growing leaves them alone", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    calls.expect("pool.dataset.update", ["tank/z", {
      user_properties_update: [{ key: "a:b", value: "1" }, { key: "a:c", remove: true }],
    }], UNUSED);
    await nas.zvols.setUserProperties("tank/z", { "a:b": "1", "a:c": undefined });
    calls.expect("pool.dataset.update", ["tank/z", { volsize: 2 * GIB, force_size: true }], UNUSED);
    await nas.zvols.grow("tank/z", 2 * GIB);
    calls.done();
  }
});

Deno.test("on 25.x a zvol is destroyed with its snapshots only when told so", async () => {
  for (const line of ["25.04", "25.10"] as const) {
    for (const withSnapshots of [true, false]) {
      const { calls, nas } = table(line);
      const options = { recursive: withSnapshots, force: false };
      calls.expect("pool.dataset.delete", ["tank/z", options], true);
      await nas.zvols.destroy("tank/z", { withSnapshots });
      calls.done();
    }
  }
});

Deno.test("on 26 a destroy is never recursive, and is read back", async () => {
  const destroy = [{ path: "tank/z", recursive: false }];
  const readBack = [{ ...RESOURCE_QUERY, paths: ["tank/z"] }];
  const gone = table("26");
  gone.calls.expect("zfs.resource.destroy", destroy, null)
    .expect("zfs.resource.query", readBack, []);
  await gone.nas.zvols.destroy("tank/z", { withSnapshots: true });
  gone.calls.done();
  const still = table("26");
  still.calls.expect("zfs.resource.destroy", destroy, null)
    .expect("zfs.resource.query", readBack, [{ ...RESOURCE_ZVOL, name: "tank/z" }]);
  const error = await assertRejects(() => still.nas.zvols.destroy("tank/z"));
  assertInstanceOf(error, ArrayError);
  assertEquals(error.code, "busy");
});

Deno.test("on a 26 that knows only the 25.10 dialect a destroy is not recursive either", async () => {
  const calls = new CallTable("25.10");
  const nas = bindResources({
    release: parseRelease("26.0.0-BETA.1", "v25.10.0"),
    call: (method, params, options) => calls.call(method, params, options),
    callJob: (method, params, options) => calls.callJob(method, params, options),
  });
  calls.expect("pool.dataset.delete", ["tank/z", { recursive: false, force: false }], true)
    .expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: ["tank/z"] }], []);
  await nas.zvols.destroy("tank/z", { withSnapshots: true });
  calls.done();
});

Deno.test("a zvol is renamed where the release can, and not even tried on 25.04", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    if (line === "25.04") {
      const error = await assertRejects(() => nas.zvols.rename("tank/a", "tank/b"));
      assertInstanceOf(error, ArrayError);
      assertEquals([error.code, error.outcome], ["unsupported", "not-sent"]);
    } else {
      const options = { new_name: "tank/b", recursive: false, force: true };
      calls.expect("pool.dataset.rename", ["tank/a", options], null);
      await nas.zvols.rename("tank/a", "tank/b");
    }
    calls.expect("pool.dataset.promote", ["tank/b"], null);
    await nas.zvols.promote("tank/b");
    calls.done();
  }
});

Deno.test("a dataset is read with its space and marks", async () => {
  const { calls, nas } = table("25.10");
  calls.expect("zfs.resource.query", [{ ...RESOURCE_QUERY, paths: ["tank/pve"] }], [
    { ...RESOURCE_PARENT, user_properties: { "tnblock:owner": "c/san" } },
  ]);
  assertEquals(await nas.datasets.read("tank/pve"), {
    name: "tank/pve",
    type: "FILESYSTEM",
    available: 96 * GIB,
    used: 1000,
    userProperties: { "tnblock:owner": "c/san" },
  });
});

/** A snapshot row of 25.x. */
const SNAPSHOT_ROW = {
  id: "tank/z@s1",
  name: "tank/z@s1",
  snapshot_name: "s1",
  dataset: "tank/z",
  pool: "tank",
  type: "SNAPSHOT",
  createtxg: "1241",
  holds: {},
  properties: {
    "my:p": { value: "v", rawvalue: "v", source: "LOCAL", parsed: "v" },
    creation: {
      parsed: { $date: 1795320302000 },
      rawvalue: "1795320302",
      value: "x",
      source: "NONE",
    },
    createtxg: { parsed: "1241", rawvalue: "1241", value: "1241", source: "NONE" },
    guid: {
      parsed: "5758300810007837149",
      rawvalue: "5758300810007837149",
      value: "5758300810007837149",
      source: "NONE",
    },
    used: { parsed: 0, rawvalue: "0", value: "0B", source: "NONE" },
    clones: {
      parsed: "tank/c1,tank/c2",
      rawvalue: "tank/c1,tank/c2",
      value: "tank/c1,tank/c2",
      source: "NONE",
    },
    volsize: { parsed: GIB, rawvalue: String(GIB), value: "1G", source: "NONE" },
  },
};
const SNAPSHOT = {
  name: "s1",
  createdMs: 1795320302000,
  createTxg: 1241,
  guid: "5758300810007837149",
  used: 0,
  volsize: GIB,
  clones: ["tank/c1", "tank/c2"],
  holds: [],
  userProperties: { "my:p": "v" },
};

Deno.test("snapshots are listed by the two cheap reads of 25.x, oldest first", async () => {
  for (const [line, space] of [["25.04", "zfs.snapshot"], ["25.10", "pool.snapshot"]] as const) {
    const { calls, nas } = table(line);
    const younger = { ...SNAPSHOT_ROW, name: "tank/z@s2", createtxg: "1300", properties: null };
    calls.expect(`${space}.query`, [[["dataset", "=", "tank/z"]], { select: ["name"] }], [
      { name: "tank/z@s2" },
      { name: "tank/z@s1" },
    ]);
    calls.expect(`${space}.query`, [[["id", "=", "tank/z@s1"]], { extra: { holds: true } }], [
      SNAPSHOT_ROW,
    ]);
    // As if it had been deleted in between.
    calls.expect(`${space}.query`, [[["id", "=", "tank/z@s2"]], { extra: { holds: true } }], []);
    assertEquals(await nas.snapshots.list("tank/z"), [SNAPSHOT]);
    calls.expect(`${space}.query`, [[["id", "=", "tank/z@s1"]], { extra: { holds: true } }], [
      { ...SNAPSHOT_ROW, holds: { truenas: 1 } },
    ]);
    assertEquals((await nas.snapshots.read("tank/z", "s1"))?.holds, ["truenas"]);
    assertEquals(younger.createtxg, "1300");
    calls.done();
  }
});

Deno.test("on 26 all snapshots with details come with one call", async () => {
  const { calls, nas } = table("26");
  calls.expect("zfs.resource.snapshot.query", [{
    paths: ["tank/z"],
    properties: ["creation", "createtxg", "guid", "used", "volsize"],
    get_user_properties: true,
    get_holds: true,
  }], [{
    name: "tank/z@s1",
    snapshot_name: "s1",
    dataset: "tank/z",
    pool: "tank",
    type: "SNAPSHOT",
    createtxg: 1241,
    guid: 5758300810007837000,
    holds: ["keep"],
    properties: {
      creation: raw(1795320302),
      createtxg: raw(1241),
      guid: raw("5758300810007837149"),
      used: raw(0),
      volsize: raw(GIB),
    },
    user_properties: { "my:p": "v" },
  }]);
  assertEquals(await nas.snapshots.list("tank/z"), [
    { ...SNAPSHOT, clones: undefined, holds: ["keep"] },
  ]);
});

Deno.test("snapshots are taken, cloned, rolled back and deleted, and never more than asked", async () => {
  for (const line of LINES) {
    const space = line === "25.04" ? "zfs.snapshot" : "pool.snapshot";
    const { calls, nas } = table(line);
    calls.expect(
      `${space}.create`,
      [{ dataset: "tank/z", name: "s", properties: { "a:b": "c" } }],
      new ArrayError("exists", "Cannot: it exists", { outcome: "answered" }),
    );
    await assertRejects(() => nas.snapshots.create("tank/z", "s", { "a:b": "c" }));
    calls.expect(`${space}.clone`, [{
      snapshot: "tank/z@s",
      dataset_dst: "tank/c",
      dataset_properties: { "a:b": "c" },
    }], true);
    await nas.snapshots.clone("tank/z@s", "tank/c", { "a:b": "c" });
    calls.expect(`${space}.rollback`, ["tank/z@s", {}], null);
    await nas.snapshots.rollback("tank/z", "s");
    calls.expect(`${space}.delete`, ["tank/z@s", { defer: false, recursive: false }], true);
    await nas.snapshots.remove("tank/z", "s");
    calls.done();
  }
});

Deno.test("several snapshots are deleted with one call; those that were not are named", async () => {
  for (const line of LINES) {
    const space = line === "25.04" ? "zfs.snapshot" : "pool.snapshot";
    const { calls, nas } = table(line);
    const each = { defer: false, recursive: false };
    calls.expect("core.bulk", [`${space}.delete`, [["tank/z@a", each], ["tank/z@b", each], [
      "tank/z@c",
      each,
    ]]], [
      { job_id: null, error: null, result: true },
      { job_id: null, error: "[EBUSY] it has clones", result: null },
      { job_id: null, error: "", result: null },
    ]);
    assertEquals(await nas.snapshots.removeSome("tank/z", ["a", "b", "c"]), [
      { name: "b", error: "[EBUSY] it has clones" },
      { name: "c", error: "" },
    ]);
    assertEquals(await nas.snapshots.removeSome("tank/z", []), []);
    calls.done();
  }
});

/** As recorded from 25.10.6. */
const EXTENT_ROW = {
  id: 1,
  name: "vm-1",
  type: "DISK",
  disk: "zvol/tank/vm+3",
  serial: "1570dee60d98f59",
  path: "zvol/tank/vm+3",
  filesize: "0",
  blocksize: 512,
  pblocksize: false,
  avail_threshold: null,
  comment: "",
  naa: "0x6589cfc0000001205ea8a69ed0ae04bb",
  insecure_tpc: true,
  xen: false,
  rpm: "SSD",
  ro: false,
  enabled: true,
  vendor: "TrueNAS",
  locked: null,
};
const EXTENT = {
  id: 1,
  name: "vm-1",
  zvol: "tank/vm 3",
  naa: "6589cfc0000001205ea8a69ed0ae04bb",
  serial: "1570dee60d98f59",
  blocksize: 512,
  enabled: true,
  readOnly: false,
  comment: "",
};
const EXTENT_OPTIONS = {
  force_sql_filters: true,
  extra: { retrieve_locked_info: false },
  select: ["id", "name", "path", "disk", "naa", "serial", "blocksize", "enabled", "ro", "comment"],
};

Deno.test("extents are found by name, zvol and ids in the database, without a look at locks", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const expect = (filters: unknown[]) =>
      calls.expect("iscsi.extent.query", [filters, EXTENT_OPTIONS], [EXTENT_ROW]);
    expect([["name", "=", "vm-1"]]);
    assertEquals(await nas.extents.byName("vm-1"), EXTENT);
    expect([["path", "=", "zvol/tank/vm+3"]]);
    assertEquals(await nas.extents.byZvol("tank/vm 3"), [EXTENT]);
    expect([["id", "in", [1, 2]]]);
    assertEquals(await nas.extents.byIds([1, 2]), [EXTENT]);
    expect([]);
    assertEquals(await nas.extents.all(), [EXTENT]);
    assertEquals(await nas.extents.byIds([]), []);
    calls.done();
  }
});

Deno.test("an extent is created on a zvol and deleted, never with its zvol", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const full = line === "25.04" ? EXTENT_ROW : { ...EXTENT_ROW, product_id: "iSCSI Disk" };
    const row = line === "26" ? { ...full, dataset: "tank/vm 3", relative_path: null } : full;
    calls.expect("iscsi.extent.create", [{
      name: "vm-1",
      type: "DISK",
      disk: "zvol/tank/vm+3",
      blocksize: 512,
      comment: "tnblock",
      rpm: "SSD",
      ro: false,
      enabled: true,
    }], row);
    const extent = { name: "vm-1", zvol: "tank/vm 3", blocksize: 512, comment: "tnblock" } as const;
    assertEquals(await nas.extents.create(extent), EXTENT);
    calls.expect("iscsi.extent.delete", [1, false, true], true);
    await nas.extents.remove(1, { force: true, deadlineMs: 200_000 });
    assertEquals(calls.options.at(-1)?.deadlineMs, 200_000);
    calls.done();
  }
});

Deno.test("mappings are read, made with the LUN that was chosen, and deleted", async () => {
  const row = { id: 3, target: 1, extent: 5, lunid: 7 };
  const mapping = { id: 3, target: 1, extent: 5, lun: 7 };
  const options = { force_sql_filters: true };
  for (const line of LINES) {
    const { calls, nas } = table(line);
    calls.expect("iscsi.targetextent.query", [[["target", "=", 1]], options], [row]);
    assertEquals(await nas.targetExtents.byTarget(1), [mapping]);
    calls.expect("iscsi.targetextent.query", [[["extent", "in", [5]]], options], [row]);
    assertEquals(await nas.targetExtents.byExtents([5]), [mapping]);
    calls.expect("iscsi.targetextent.query", [[], options], [row]);
    assertEquals(await nas.targetExtents.all(), [mapping]);
    calls.expect("iscsi.targetextent.create", [{ target: 1, extent: 5, lunid: 7 }], row);
    assertEquals(await nas.targetExtents.create({ target: 1, extent: 5, lun: 7 }), mapping);
    calls.expect("iscsi.targetextent.delete", [3, true], true);
    await nas.targetExtents.remove(3, { force: true });
    calls.done();
  }
});

Deno.test("a target is found by its IQN, whether its name is the end of it or all of it", async () => {
  const base = "iqn.2005-10.org.freenas.ctl";
  const row = {
    id: 1,
    name: "t1",
    alias: null,
    mode: "ISCSI",
    groups: [{ portal: 1, initiator: null, authmethod: "NONE", auth: null }],
    auth_networks: [],
    rel_tgt_id: 1,
    iscsi_parameters: { QueuedCommands: null },
  };
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const options = { force_sql_filters: true };
    calls.expect("iscsi.target.query", [[["name", "in", ["t1", `${base}:t1`]]], options], [row]);
    assertEquals((await nas.targets.byIqn(`${base}:t1`, base))?.groups, [
      { portal: 1, initiator: null, authMethod: "NONE", auth: null },
    ]);
    calls.expect("iscsi.target.query", [[["name", "in", ["iqn.2020-01.x:y"]]], options], []);
    assertEquals(await nas.targets.byIqn("iqn.2020-01.x:y", base), undefined);
    calls.done();
  }
  assertEquals([iqnOf("t1", base), iqnOf("iqn.a:b", base)], [`${base}:t1`, "iqn.a:b"]);
});

Deno.test("portals and the iSCSI settings tell addresses and the one port", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const listen = [{ ip: "192.0.2.10", port: 3260 }, { ip: "fd00::1", port: 3260 }];
    calls.expect("iscsi.portal.query", [[], {}], [{ id: 1, listen, tag: 1, comment: "p1" }]);
    assertEquals(await nas.portals.all(), [
      { id: 1, tag: 1, comment: "p1", addresses: ["192.0.2.10", "fd00::1"] },
    ]);
    const config = {
      id: 1,
      basename: "iqn.2005-10.org.freenas.ctl",
      isns_servers: [],
      listen_port: 3260,
      pool_avail_threshold: null,
      alua: false,
      iser: false,
    };
    const extra = line === "26" ? { direct_config: true, mode: 0 } : {};
    calls.expect("iscsi.global.config", [], { ...config, ...extra });
    assertEquals(await nas.iscsiGlobal.read(), {
      basename: "iqn.2005-10.org.freenas.ctl",
      port: 3260,
      alua: false,
    });
  }
});

Deno.test("a service's state is asked the cheap way", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    calls.expect("service.started", ["iscsitarget"], false);
    assertEquals(await nas.services.isRunning("iscsitarget"), false);
    calls.expect("service.query", [[["service", "=", "iscsitarget"]], {}], [
      { id: 4, service: "iscsitarget", enable: true, state: "STOPPED", pids: [] },
    ]);
    assertEquals(await nas.services.state("iscsitarget"), { running: false, enabled: true });
    calls.done();
  }
});

Deno.test("a pool's state is read without its topology", async () => {
  for (const line of LINES) {
    const { calls, nas } = table(line);
    calls.expect("pool.query", [
      [["name", "=", "tank"]],
      { select: ["name", "status", "healthy"] },
    ], [{ name: "tank", status: "ONLINE", healthy: true }]);
    assertEquals(await nas.pools.read("tank"), { name: "tank", status: "ONLINE", healthy: true });
  }
});

/** As recorded from 25.10.6. */
const SUBSYSTEM_ROW = {
  id: 1,
  name: "s1",
  subnqn: "nqn.2011-06.com.truenas:uuid:0:s1",
  serial: "c60941491d6de4055c82",
  allow_any_host: false,
  pi_enable: null,
  qid_max: null,
  ieee_oui: null,
  ana: null,
};
const NAMESPACE_ROW = {
  id: 2,
  nsid: 7,
  subsys: { ...SUBSYSTEM_ROW, hosts: [], namespaces: [], ports: [] },
  device_type: "ZVOL",
  device_path: "zvol/tank/c1x",
  filesize: null,
  device_uuid: "F1089ed3-2a26-4cdc-96c0-3eaa81959117",
  device_nguid: "6561af0c-c174-48d3-aeb4-ca3a3ab4bdcd",
  enabled: true,
  locked: null,
};
const NAMESPACE = {
  id: 2,
  subsystem: 1,
  nsid: 7,
  uuid: "f1089ed3-2a26-4cdc-96c0-3eaa81959117",
  nguid: "6561af0c-c174-48d3-aeb4-ca3a3ab4bdcd",
  zvol: "tank/c1x",
  enabled: true,
};
const NAMESPACE_FIELDS = ["id", "nsid", "device_path", "device_uuid", "device_nguid", "enabled"];
const NO_LOCKS = { extra: { retrieve_locked_info: false } };

Deno.test("a subsystem is found by its NQN, with its ports and hosts", async () => {
  for (const line of ["25.10", "26"] as const) {
    const { calls, nas } = table(line);
    const nqn = SUBSYSTEM_ROW.subnqn;
    calls.expect("nvmet.subsys.query", [[["subnqn", "=", nqn]], {}], [SUBSYSTEM_ROW]);
    const subsystem = {
      id: 1,
      name: "s1",
      nqn,
      serial: "c60941491d6de4055c82",
      allowAnyHost: false,
    };
    assertEquals(await nas.subsystems.byNqn(nqn), subsystem);
    calls.expect("nvmet.subsys.query", [[], {}], [SUBSYSTEM_ROW]);
    assertEquals(await nas.subsystems.all(), [subsystem]);
    const portRows = [{
      id: 1,
      port: {
        id: 1,
        index: 1,
        addr_trtype: "TCP",
        addr_trsvcid: 4420,
        addr_traddr: "192.0.2.10",
        addr_adrfam: "IPV4",
        inline_data_size: null,
        max_queue_size: null,
        pi_enable: null,
        enabled: true,
      },
      subsys: NAMESPACE_ROW.subsys,
    }];
    const port = { id: 1, transport: "TCP", address: "192.0.2.10", port: 4420, enabled: true };
    calls.expect("nvmet.port_subsys.query", [[["subsys.id", "=", 1]], {}], portRows);
    assertEquals(await nas.subsystems.ports(1), [port]);
    calls.expect("nvmet.port_subsys.query", [[["subsys.subnqn", "=", nqn]], {}], portRows);
    assertEquals(await nas.subsystems.portsByNqn(nqn), [port]);
    calls.expect("nvmet.host_subsys.query", [
      [["subsys.id", "=", 1]],
      { select: ["host"] },
    ], [{ host: { id: 1, hostnqn: "nqn.2014-08.org.nvmexpress:uuid:1", dhchap_key: "********" } }]);
    assertEquals(await nas.subsystems.hosts(1), ["nqn.2014-08.org.nvmexpress:uuid:1"]);
    calls.done();
  }
});

Deno.test("namespaces are found by subsystem and zvol, made with the nsid that was chosen, and deleted", async () => {
  for (const line of ["25.10", "26"] as const) {
    const { calls, nas } = table(line);
    const { subsys: _, ...bare } = NAMESPACE_ROW;
    const fields = { select: NAMESPACE_FIELDS, ...NO_LOCKS };
    calls.expect("nvmet.namespace.query", [[["subsys.id", "=", 1]], fields], [bare]);
    assertEquals(await nas.namespaces.bySubsystem(1), [NAMESPACE]);
    const select = [...NAMESPACE_FIELDS, "subsys"];
    calls.expect("nvmet.namespace.query", [[], { select, ...NO_LOCKS }], [NAMESPACE_ROW]);
    assertEquals(await nas.namespaces.all(), [NAMESPACE]);
    calls.expect("nvmet.namespace.query", [[["subsys.subnqn", "=", "nqn.x"]], {
      select,
      ...NO_LOCKS,
    }], [NAMESPACE_ROW]);
    assertEquals(await nas.namespaces.byNqn("nqn.x"), [NAMESPACE]);
    const sql = { select, force_sql_filters: true, ...NO_LOCKS };
    calls.expect("nvmet.namespace.query", [[["device_path", "=", "zvol/tank/c1x"]], sql], []);
    assertEquals(await nas.namespaces.byZvol("tank/c1x"), undefined);
    calls.expect("nvmet.namespace.query", [
      [["device_path", "in", ["zvol/tank/vm+3", "zvol/tank/vm 3"]]],
      sql,
    ], [{ ...NAMESPACE_ROW, device_path: "zvol/tank/vm 3" }]);
    assertEquals((await nas.namespaces.byZvol("tank/vm 3"))?.zvol, "tank/vm 3");
    calls.expect(
      "nvmet.namespace.create",
      [{
        subsys_id: 1,
        nsid: 7,
        device_type: "ZVOL",
        device_path: "zvol/tank/c1x",
        enabled: true,
      }],
      line === "26"
        ? { ...NAMESPACE_ROW, dataset: "tank/c1x", relative_path: null }
        : NAMESPACE_ROW,
    );
    const wanted = { subsystem: 1, zvol: "tank/c1x", nsid: 7 };
    assertEquals(await nas.namespaces.create(wanted), NAMESPACE);
    calls.expect("nvmet.namespace.delete", [2, { remove: false }], true);
    await nas.namespaces.remove(2);
    calls.done();
  }
});

Deno.test("an extent is pointed at another zvol, and renamed only when told so", async () => {
  for (const line of ["25.10", "26"] as const) {
    const { calls, nas } = table(line);
    const full = { ...EXTENT_ROW, product_id: "iSCSI Disk" };
    const row = line === "26" ? { ...full, dataset: "tank/vm 3", relative_path: null } : full;
    calls.expect("iscsi.extent.update", [1, { disk: "zvol/tank/vm+3" }], row);
    assertEquals(await nas.extents.update(1, { zvol: "tank/vm 3" }), EXTENT);
    calls.expect("iscsi.extent.update", [1, { disk: "zvol/tank/vm+3", name: "vm-1" }], row);
    assertEquals(await nas.extents.update(1, { zvol: "tank/vm 3", name: "vm-1" }), EXTENT);
    calls.done();
  }
});

Deno.test("a namespace is read by its id, switched, and pointed at another zvol", async () => {
  for (const line of ["25.10", "26"] as const) {
    const { calls, nas } = table(line);
    const select = [...NAMESPACE_FIELDS, "subsys"];
    const sql = { select, force_sql_filters: true, ...NO_LOCKS };
    calls.expect("nvmet.namespace.query", [[["id", "=", 2]], sql], [NAMESPACE_ROW]);
    assertEquals(await nas.namespaces.byId(2), NAMESPACE);
    calls.expect("nvmet.namespace.query", [[["id", "=", 3]], sql], []);
    assertEquals(await nas.namespaces.byId(3), undefined);
    const row = line === "26"
      ? { ...NAMESPACE_ROW, dataset: "tank/c1x", relative_path: null }
      : NAMESPACE_ROW;
    calls.expect("nvmet.namespace.update", [2, { enabled: false }], { ...row, enabled: false });
    assertEquals((await nas.namespaces.update(2, { enabled: false })).enabled, false);
    const change = { enabled: true, device_path: "zvol/tank/vm 3" };
    calls.expect("nvmet.namespace.update", [2, change], row);
    await nas.namespaces.update(2, { enabled: true, zvol: "tank/vm 3" });
    calls.done();
  }
});

Deno.test("a clone gets its marks with the call that makes it, on 26 with a second one", async () => {
  const marks = { userProperties: { "tnblock:op": "1" }, refreservation: 65536 };
  for (const line of LINES) {
    const { calls, nas } = table(line);
    const properties = { "tnblock:op": "1", refreservation: "65536" };
    calls.expect(line === "25.04" ? "zfs.snapshot.clone" : "pool.snapshot.clone", [{
      snapshot: "tank/b@s",
      dataset_dst: "tank/c",
      dataset_properties: line === "26" ? {} : properties,
    }], true);
    if (line === "26") {
      calls.expect("pool.dataset.update", ["tank/c", {
        user_properties_update: [{ key: "tnblock:op", value: "1" }],
        refreservation: 65536,
      }], UNUSED);
    }
    let cloned = 0;
    await nas.zvols.clone("tank/b@s", "tank/c", marks, () => void cloned++);
    assertEquals(cloned, 1);
    calls.done();
  }
});

Deno.test("an answer of another shape is the array's fault, and says where", async () => {
  const caller = {
    release: new CallTable("25.10").release,
    call: () => Promise.resolve([{ id: 1, target: "one", extent: 2, lunid: 3 }]),
    callJob: () => Promise.resolve(null),
  };
  const error = await assertRejects(() => bindResources(caller).targetExtents.all());
  assertInstanceOf(error, ArrayError);
  assertEquals(error.code, "array-fault");
  assertStringIncludes(error.message, "0.target");
});

Deno.test("reads and writes have their own deadlines, which a caller may change", async () => {
  const { calls, nas } = table("25.10");
  calls.expect("service.started", ["nvmet"], true).expect("service.started", ["nvmet"], true)
    .expect("nvmet.namespace.delete", [2, { remove: false }], true);
  await nas.services.isRunning("nvmet");
  await nas.services.isRunning("nvmet", { deadlineMs: 7 });
  await nas.namespaces.remove(2);
  assertEquals(calls.options.map((options) => [options?.lane, options?.deadlineMs]), [
    ["read", 15_000],
    ["read", 7],
    ["write", 150_000],
  ]);
});

Deno.test("words like not found without the number for it are no absence: what is there could be taken for gone", async () => {
  const words = new ArrayError("not-found", "Cannot read: pool not found", {
    outcome: "answered",
    errno: 14,
  });
  for (const line of LINES) {
    const nas = bindResources({
      release: table(line).calls.release,
      call: () => Promise.reject(words),
      callJob: () => Promise.reject(words),
    });
    await assertRejects(() => nas.zvols.read("tank/pve/vm-1-disk-0"), "pool not found");
  }
});
