import { assertEquals } from "@std/assert";
import type { Extent } from "../../src/truenas/extents.ts";
import type { Namespace } from "../../src/truenas/namespaces.ts";
import type { Zvol } from "../../src/truenas/zvols.ts";
import { ORPHAN_AGE_MS, orphanSigns, type OrphanWorld } from "../../src/volumes/orphan_signs.ts";
import type { Storage } from "../../src/volumes/storage.ts";

const CLUSTER = "6a1d1f7e-0000-4000-8000-000000000001";
const NOW = 1_800_000_000_000;

const owner = { settings: { id: "san", dataset: "tank/pve" }, clusterId: CLUSTER } as Pick<
  Storage,
  "settings" | "clusterId"
>;

function zvol(name: string, change: Partial<Zvol> = {}): Zvol {
  const path = `tank/pve/${name}`;
  return {
    name: path,
    volsize: 1,
    volblocksize: 16384,
    used: 0,
    referenced: 0,
    sparse: true,
    reserved: 0,
    createdMs: NOW - 2 * ORPHAN_AGE_MS,
    origin: undefined,
    guid: "1",
    createTxg: "1",
    userProperties: {
      "tnblock:schema": "1",
      "tnblock:cluster": CLUSTER,
      "tnblock:storage": "san",
      "tnblock:volume": path,
      "tnblock:op": "x",
    },
    ...change,
  };
}

function namespace(id: number, name: string): Namespace {
  const zvol = `tank/pve/${name}`;
  return { id, subsystem: 1, nsid: id, uuid: `u${id}`, nguid: `n${id}`, zvol, enabled: true };
}

function extent(id: number, name: string, comment = "tnblock san"): Extent {
  const zvol = `tank/pve/${name}`;
  const rest = { naa: `${id}`, serial: `${id}`, blocksize: 512, enabled: true, readOnly: false };
  return { id, name, zvol, comment, ...rest };
}

function signs(world: Partial<OrphanWorld>) {
  return orphanSigns(owner, {
    zvols: [],
    extents: [],
    mappings: [],
    namespaces: [],
    volnames: new Set(),
    nowMs: NOW,
    ...world,
  });
}

const NONE = { mappings: [], exports: [], unexported: [], unnamed: [] };

const cases: readonly (readonly [
  what: string,
  world: Partial<OrphanWorld>,
  expected: Partial<ReturnType<typeof signs>>,
])[] = [
  ["a volume that a guest names", {
    zvols: [zvol("vm-1-disk-0")],
    namespaces: [namespace(1, "vm-1-disk-0")],
    volnames: new Set(["vol-vm-1-disk-0-ns3f2b0000-0000-4000-8000-000000000000"]),
  }, {}],
  ["a volume that no guest names", {
    zvols: [zvol("vm-1-disk-0")],
    namespaces: [namespace(1, "vm-1-disk-0")],
  }, { unnamed: ["tank/pve/vm-1-disk-0"] }],
  ["a volume while configurations cannot be read", {
    zvols: [zvol("vm-1-disk-0")],
    namespaces: [namespace(1, "vm-1-disk-0")],
    volnames: undefined,
  }, {}],
  ["a volume that is young", {
    zvols: [zvol("vm-1-disk-0", { createdMs: NOW - 60_000 })],
  }, {}],
  ["a volume without an export", { zvols: [zvol("vm-1-disk-0")] }, {
    unexported: ["tank/pve/vm-1-disk-0"],
  }],
  ["a zvol without a mark", { zvols: [zvol("vm-1-disk-0", { userProperties: {} })] }, {}],
  ["a zvol of another storage", {
    zvols: [zvol("vm-1-disk-0", {
      userProperties: { ...zvol("vm-1-disk-0").userProperties, "tnblock:storage": "other" },
    })],
  }, {}],
  ["a weight", { zvols: [zvol("tnb-weight-0123abcd")] }, {}],
  ["a base that a clone hangs on", {
    zvols: [
      zvol("base-1-disk-0"),
      zvol("vm-2-disk-0", { origin: "tank/pve/base-1-disk-0@__base__" }),
    ],
    extents: [extent(1, "base-1-disk-0"), extent(2, "vm-2-disk-0")],
    volnames: new Set(["vol-vm-2-disk-0-lun7"]),
  }, {}],
  ["a linked clone by both parts of its name", {
    zvols: [zvol("base-1-disk-0"), zvol("vm-2-disk-0")],
    extents: [extent(1, "base-1-disk-0"), extent(2, "vm-2-disk-0")],
    volnames: new Set(["vol-base-1-disk-0-lun1/vol-vm-2-disk-0-lun7"]),
  }, {}],
  ["a cloud-init volume", {
    zvols: [zvol("vm-1-cloudinit")],
    extents: [extent(1, "vm-1-cloudinit")],
    volnames: new Set(["vm-1-cloudinit"]),
  }, {}],
  ["a namespace without a zvol", { namespaces: [namespace(1, "vm-9-disk-0")] }, {
    exports: ["tank/pve/vm-9-disk-0"],
  }],
  ["an extent without a zvol", { extents: [extent(1, "vm-9-disk-0")] }, {
    exports: ["tank/pve/vm-9-disk-0"],
  }],
  ["somebody else's extent without a zvol", { extents: [extent(1, "vm-9-disk-0", "mine")] }, {}],
  ["a mapping without an extent", {
    mappings: [{ id: 7, target: 1, extent: 3, lun: 5 }],
  }, { mappings: [7] }],
];

for (const [what, world, expected] of cases) {
  const isOne = Object.keys(expected).length > 0;
  Deno.test(`${what} ${isOne ? "looks orphaned" : "does not look orphaned"}`, () => {
    assertEquals(signs(world), { ...NONE, ...expected });
  });
}
