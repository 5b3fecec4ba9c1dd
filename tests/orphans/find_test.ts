/** Random worlds of planted orphans among look-alikes: only what must go is offered. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { findOrphans } from "../../src/orphans/find.ts";
import { suspectDisks, suspects } from "../../src/orphans/suspects.ts";
import { disksNamed, zvolsNamed } from "../../src/orphans/references.ts";
import type { ArrayView, World } from "../../src/orphans/world.ts";
import type { Zvol } from "../../src/truenas/zvols.ts";
import type { StorageSettings } from "../../src/common/storage_settings.ts";
import { weightName } from "../../src/volumes/weight.ts";

const CLUSTER = "11111111-2222-4333-8444-555555555555";
const DATASET = "tank/pve";
const NOW = Date.UTC(2026, 5, 1);
const HOUR = 3_600_000;
const PARENT = 7;
const NODES = ["pve1", "pve2", "pve3"];

type Kind = "iscsi" | "nvme-tcp";

/** A world that can be added to. */
class Builder {
  readonly zvols: Zvol[] = [];
  readonly extents: ArrayView["extents"][number][] = [];
  readonly mappings: ArrayView["mappings"][number][] = [];
  readonly namespaces: ArrayView["namespaces"][number][] = [];
  readonly clones: { name: string; origin: string }[] = [];
  readonly snapshots = new Map<
    string,
    ArrayView["snapshots"] extends ReadonlyMap<string, infer V> ? V : never
  >();
  readonly replications: Exclude<ArrayView["replications"], string>[number][] = [];
  readonly configs: { who: string; text: string }[] = [];
  readonly locked = new Map<number, string>();
  readonly facts = NODES.map((node) => ({
    schemaVersion: 1 as const,
    node,
    names: [`iqn.x:${node}`, `nqn.x:${node}`],
    attached: [] as { name: string; disk: string | null }[],
    users: {} as Record<string, string[]>,
    journal: [] as { storage: string; op: string; names: string[] }[],
    unreadJournal: [] as string[],
    tasks: [] as { type: string; id: string }[],
  }));
  #id = 100;

  constructor(readonly kind: Kind) {}

  zvol(
    name: string,
    change: Partial<Zvol> & { readonly marks?: Record<string, string | undefined> } = {},
  ): Zvol {
    const path = name.includes("/") ? name : `${DATASET}/${name}`;
    const { marks, ...rest } = change;
    const all: Record<string, string | undefined> = {
      "tnblock:schema": "1",
      "tnblock:cluster": CLUSTER,
      "tnblock:storage": "san",
      "tnblock:volume": path,
      "tnblock:op": `op-of-${path}`,
      ...marks,
    };
    const made: Zvol = {
      ...{ name: path, volsize: 1 << 30, volblocksize: 16384, used: 1 << 20, referenced: 1 << 20 },
      ...{ sparse: true, reserved: 0, createdMs: NOW - 100 * HOUR, origin: undefined },
      ...{ guid: String(this.#id++), createTxg: "5" },
      userProperties: Object.fromEntries(
        Object.entries(all).filter((entry): entry is [string, string] => entry[1] !== undefined),
      ),
      ...rest,
    };
    this.zvols.push(made);
    this.snapshots.set(path, []);
    return made;
  }

  snapshot(zvol: Zvol, name: string, op: string | undefined, holds: string[] = []): void {
    const one = {
      ...{ name, createdMs: NOW - 90 * HOUR, createTxg: 6, guid: "1", used: 0, volsize: 1 << 30 },
      ...{ clones: [], holds, userProperties: op === undefined ? {} : { "tnblock:op": op } },
    };
    this.snapshots.set(zvol.name, [...this.snapshots.get(zvol.name) ?? [], one]);
  }

  /** Exports a path as this storage does; gives naa or uuid. */
  export(
    path: string,
    change: { kind?: Kind; parent?: number; enabled?: boolean; comment?: string } = {},
  ): string {
    const { kind = this.kind, parent = PARENT, enabled = true, comment = "tnblock san" } = change;
    const id = this.#id++;
    if (kind === "iscsi") {
      const naa = id.toString(16).padStart(32, "0");
      const names = { name: `e${id}`, serial: `s${id}`, blocksize: 512, readOnly: false };
      this.extents.push({ id, zvol: path, naa, enabled, comment, ...names });
      this.mappings.push({ id: id + 10_000, target: parent, extent: id, lun: id });
      return naa;
    }
    const uuid = `00000000-0000-4000-8000-${id.toString(16).padStart(12, "0")}`;
    this.namespaces.push({
      id,
      subsystem: parent,
      nsid: id,
      uuid,
      nguid: uuid,
      zvol: path,
      enabled,
    });
    return uuid;
  }

  /** A configuration; volids come as `san:vol-<name>-<any tag>`. */
  names(who: string, text: string): void {
    this.configs.push({ who, text });
  }

  volid(name: string, storage = "san"): string {
    const tag = this.kind === "iscsi" ? "lun5" : "ns00000000-0000-4000-8000-000000000001";
    return `${storage}:vol-${name}-${tag}`;
  }

  world(
    change: { readonly array?: Partial<ArrayView>; readonly world?: Partial<World> } = {},
  ): World {
    const byZvol = new Map<string, string[]>();
    const byDisk = new Map<string, string[]>();
    for (const { who, text } of this.configs) {
      for (const zvol of zvolsNamed(text, ["san"])) {
        byZvol.set(zvol, [...byZvol.get(zvol) ?? [], who]);
      }
      for (const disk of disksNamed(text)) byDisk.set(disk, [who]);
    }
    const transport = this.kind === "iscsi"
      ? { kind: "iscsi", targetIqn: "iqn.x:pve" }
      : { kind: "nvme-tcp", subsystemNqn: "nqn.x:pve" };
    return {
      storage: {
        settings: { id: "san", dataset: DATASET, transport } as unknown as StorageSettings,
        clusterId: CLUSTER,
      },
      array: {
        connected: [`${this.kind === "iscsi" ? "iqn" : "nqn"}.x:PVE2`],
        ...{ nowMs: NOW, refusal: undefined, filesystems: [], parent: PARENT },
        targets: this.kind === "iscsi" ? ["iqn.x:pve", "iqn.x:other"] : undefined,
        // As the array answers: what is directly below the dataset, and all rows.
        zvols: this.zvols.filter(({ name }) =>
          name.startsWith(`${DATASET}/`) && name.split("/").length === 3
        ),
        ...{ extents: this.extents, mappings: this.mappings, namespaces: this.namespaces },
        ...{ clones: this.clones, snapshots: this.snapshots, replications: this.replications },
        ...change.array,
      },
      nodeNowMs: NOW + 60_000,
      isQuorate: true,
      nodes: this.facts.map((told) => ({ name: told.node, told })),
      references: { byZvol, byDisk, locked: this.locked, unread: [] },
      ...change.world,
    };
  }
}

/** Plants something called after a number; gives what must be offered of it. */
type Plant = (world: Builder, name: string, vmid: number) => string | undefined;

const other = (kind: Kind): Kind => kind === "iscsi" ? "nvme-tcp" : "iscsi";

/** What must go. */
const ORPHANS: Record<string, Plant> = {
  "a volume": (world, name) => {
    const { name: path } = world.zvol(name);
    world.export(path);
    return `volume ${path}`;
  },
  "a volume without export": (world, name) => `volume ${world.zvol(name).name}`,
  "a volume with snapshots of ours": (world, name) => {
    const zvol = world.zvol(name);
    world.export(zvol.name);
    world.snapshot(zvol, "before", "op-of-the-snapshot");
    return `volume ${zvol.name}`;
  },
  "a volume whose name another storage's guest has": (world, name, vmid) => {
    const { name: path } = world.zvol(name);
    world.export(path);
    world.names(
      `VM ${vmid} on pve1`,
      `scsi0: other:vol-${name}-lun5,size=1G\nscsi1: xsan:vol-${name}-lun5`,
    );
    return `volume ${path}`;
  },
  "a volume whose name is the beginning of one that is named": (world, name, vmid) => {
    const { name: path } = world.zvol(name);
    world.export(path);
    world.names(`VM ${vmid} on pve1`, `scsi0: ${world.volid(`${name}1`)}`);
    return `volume ${path}`;
  },
  "a volume of which another storage's journal speaks": (world, name) => {
    const { name: path } = world.zvol(name);
    world.facts[1]?.journal.push({ storage: "other", op: "free", names: [name] });
    return `volume ${path}`;
  },
  "a volume beside which a replication runs": (world, name) => {
    const path = world.zvol(name).name;
    world.replications.push({
      ...{ id: 1, name: "beside", sends: [`${path}0`], receives: "tank/else" },
      ...{ recursive: true, exclude: [], isRunning: false },
    });
    return `volume ${path}`;
  },
  "a half import": (world, name) => {
    const path = `${DATASET}/${name}`;
    world.zvol(name, { marks: { "tnblock:importing": path } });
    world.export(path);
    return `import ${path}`;
  },
  "a clone for reading": (world, name, vmid) => {
    const clone = `tnb-read-${String(vmid).padStart(16, "0")}`;
    const of = `${DATASET}/${name}@before`;
    const { name: path } = world.zvol(clone, {
      origin: of,
      marks: { "tnblock:reads": of, "tnblock:node": "pve2" },
    });
    world.export(path);
    return `reading ${path}`;
  },
  "an export without zvol": (world, name) => {
    world.export(`${DATASET}/${name}`);
    return `${world.kind === "iscsi" ? "extent" : "namespace"} ${DATASET}/${name}`;
  },
  "a mapping without extent": (world, _, vmid) => {
    if (world.kind !== "iscsi") return undefined;
    world.mappings.push({ id: vmid, target: PARENT, extent: 90_000 + vmid, lun: vmid });
    return `mapping mapping ${vmid} (LUN ${vmid})`;
  },
  "the weight of a target that is gone": (world, _, vmid) => {
    const iqn = `iqn.x:gone${vmid}`;
    const { name: path } = world.zvol(weightName(iqn), { marks: { "tnblock:weight": iqn } });
    return world.kind === "iscsi" ? `weight ${path}` : undefined;
  },
};

/** A volume that is an orphan but for one thing. */
function but(change: (world: Builder, zvol: Zvol, disk: string, vmid: number) => unknown): Plant {
  return (world, name, vmid) => {
    const zvol = world.zvol(name);
    change(world, zvol, world.export(zvol.name), vmid);
    return undefined;
  };
}

function marked(marks: Record<string, string | undefined>): Plant {
  return (world, name) => {
    world.export(world.zvol(name, { marks }).name);
    return undefined;
  };
}

function named(text: (world: Builder, name: string) => string): Plant {
  return (world, name, vmid) => {
    world.export(world.zvol(name).name);
    world.names(`VM ${vmid} on pve3`, text(world, name));
    return undefined;
  };
}

/** What must stay. */
const LOOK_ALIKES: Record<string, Plant> = {
  "a disk": named((world, name) => `scsi0: ${world.volid(name)},size=1G`),
  "an unused disk": named((world, name) => `cores: 2\nunused0: ${world.volid(name)}`),
  "a pending disk": named((world, name) => `[PENDING]\nscsi1: ${world.volid(name)}`),
  "a disk of a snapshot's section alone": named((world, name) =>
    `[s1]\nvirtio0: ${world.volid(name)}`
  ),
  "a state of a snapshot": named((world, name) => `[s1]\nvmstate: ${world.volid(name)}`),
  "a disk that is named by its link": named((_, name) =>
    `args: -drive file=/dev/tnblock/san/${name}`
  ),
  "a disk that is named by its identity": but((world, _zvol, disk, vmid) =>
    world.names(`VM ${vmid} on pve1`, `scsi3: /dev/disk/by-id/x${disk}`)
  ),
  "a mount point": named((world, name) => `rootfs: ${world.volid(name)},size=8G`),
  "a fleecing image": named((world, name) =>
    `[special:fleecing]\nfleecing-images: ${world.volid(name)}`
  ),
  "a disk that is a linked clone": named((world, name) =>
    `scsi0: ${world.volid("base-1-disk-0")}/${world.volid(name).slice(4)}`
  ),
  "the base of a named clone": named((world, name) =>
    `scsi0: ${world.volid(name)}/${world.volid("vm-1-disk-7").slice(4)}`
  ),
  "a disk that another number names": named((_, name) => `scsi0: san:vol-${name}-lun999`),
  "a volume without marks": marked({
    ...{ "tnblock:schema": undefined, "tnblock:cluster": undefined, "tnblock:storage": undefined },
    ...{ "tnblock:volume": undefined, "tnblock:op": undefined },
  }),
  "another cluster's": marked({ "tnblock:cluster": "99999999-2222-4333-8444-555555555555" }),
  "another storage's": marked({ "tnblock:storage": "other" }),
  "a later schema's": marked({ "tnblock:schema": "2" }),
  "a copy with another's marks": marked({ "tnblock:volume": `${DATASET}/vm-1-disk-1` }),
  "one that is being renamed": marked({ "tnblock:rename-to": `${DATASET}/vm-1-disk-2` }),
  "one below a dataset of ours": (world, name) => {
    world.export(world.zvol(`${DATASET}/sub/${name}`).name);
    return undefined;
  },
  "one of another pool": (world, name) => {
    world.export(world.zvol(`other/pve/${name}`).name);
    return undefined;
  },
  "a young one": (world, name) => {
    world.export(world.zvol(name, { createdMs: NOW - 24 * HOUR }).name);
    return undefined;
  },
  "one of the future": (world, name) => {
    world.export(world.zvol(name, { createdMs: NOW + HOUR }).name);
    return undefined;
  },
  "one of no known age": (world, name) => {
    world.export(world.zvol(name, { createdMs: 0 }).name);
    return undefined;
  },
  "a protected one": (world, name) => {
    const createdMs = NOW - 50 * HOUR;
    world.zvol(name, { createdMs, marks: { "tnblock:protected": `${createdMs / 1000}:1` } });
    return undefined;
  },
  "a base with a linked clone": but((world, zvol) => {
    world.snapshot(zvol, "__base__", "op");
    world.clones.push({ name: "other/anything", origin: `${zvol.name}@__base__` });
  }),
  "one with a periodic snapshot": but((world, zvol) =>
    world.snapshot(zvol, "auto-2026", undefined)
  ),
  "one with an inherited token on a snapshot": but((world, zvol) =>
    world.snapshot(zvol, "auto-2026", zvol.userProperties["tnblock:op"])
  ),
  "one with a held snapshot": but((world, zvol) => world.snapshot(zvol, "s1", "op2", ["keep"])),
  "one attached elsewhere": but((world, zvol) => {
    world.facts[2]?.attached.push({ name: zvol.name.slice(DATASET.length + 1), disk: null });
  }),
  "one attached elsewhere by another name": but((world, _, disk) => {
    world.facts[1]?.attached.push({ name: "vm-9-disk-9", disk });
  }),
  "one whose snapshot is read": but((world, zvol) => {
    world.facts[1]?.attached.push({ name: `${zvol.name.slice(DATASET.length + 1)}@s`, disk: null });
  }),
  "one open elsewhere": but((world, _, disk) => {
    Object.assign(world.facts[2]?.users ?? {}, { [disk]: ["kvm (process 7)"] });
  }),
  "one in a journal": but((world, zvol) => {
    world.facts[0]?.journal.push({
      storage: "san",
      op: "resize",
      names: [zvol.name.slice(DATASET.length + 1)],
    });
  }),
  "one that is renamed by a journal": but((world, zvol) => {
    world.facts[0]?.journal.push({
      storage: "san",
      op: "rename",
      names: ["x", zvol.name.slice(DATASET.length + 1)],
    });
  }),
  "one of a locked guest": but((world, _zvol, _disk, vmid) => world.locked.set(vmid, "migrate")),
  "one also exported by the other protocol": but((world, zvol) =>
    world.export(zvol.name, { kind: other(world.kind) })
  ),
  "one also exported elsewhere": but((world, zvol) =>
    world.export(zvol.name, { parent: world.kind === "iscsi" ? 8 : 9 })
  ),
  "one exported only elsewhere": (world, name) => {
    world.export(world.zvol(name).name, { parent: 8 });
    return undefined;
  },
  "one that is switched off": (world, name) => {
    world.export(world.zvol(name).name, { enabled: false });
    return undefined;
  },
  "one that is replicated": but((world, zvol) =>
    world.replications.push({
      ...{ id: 2, name: "nightly", sends: [zvol.name], receives: undefined },
      ...{ recursive: false, exclude: [], isRunning: false },
    })
  ),
  "one that is restored into": but((world, zvol) =>
    world.replications.push({
      ...{ id: 3, name: "restore", sends: [], receives: zvol.name },
      ...{ recursive: false, exclude: [], isRunning: false },
    })
  ),
  "an export of another target without zvol": (world, name) => {
    world.export(`${DATASET}/${name}`, { parent: 8 });
    return undefined;
  },
  "an export without zvol that a guest names": (world, name, vmid) => {
    world.export(`${DATASET}/${name}`);
    world.names(`VM ${vmid} on pve2`, `scsi0: ${world.volid(name)}`);
    return undefined;
  },
  "an export whose zvol was renamed": (world, name) => {
    world.export(`${DATASET}/${name}`);
    world.zvol(`${name}9`, {
      marks: { "tnblock:volume": `${DATASET}/${name}`, "tnblock:rename-to": `${DATASET}/${name}9` },
    });
    return undefined;
  },
  "an export without zvol that is open": (world, name) => {
    const disk = world.export(`${DATASET}/${name}`);
    Object.assign(world.facts[1]?.users ?? {}, { [disk]: ["kvm (process 8)"] });
    return undefined;
  },
  "an export without zvol that is switched off": (world, name) => {
    world.export(`${DATASET}/${name}`, { enabled: false });
    return undefined;
  },
  "an export without zvol outside of the dataset": (world, name) => {
    world.export(`${DATASET}2/${name}`);
    return undefined;
  },
  "an export without zvol of the other protocol": (world, name) => {
    world.export(`${DATASET}/${name}`, { kind: other(world.kind), comment: "" });
    return undefined;
  },
  "an extent without our comment": (world, name) => {
    if (world.kind === "iscsi") world.export(`${DATASET}/${name}`, { comment: "" });
    return undefined;
  },
  "a mapping of another target": (world, _, vmid) => {
    world.mappings.push({ id: vmid, target: 8, extent: 90_000 + vmid, lun: 1 });
    return undefined;
  },
  "the weight of another target that is there": (world) => {
    const iqn = "iqn.x:other";
    if (world.zvols.some(({ name }) => name.endsWith(weightName(iqn)))) return undefined;
    world.zvol(weightName(iqn), { marks: { "tnblock:weight": iqn } });
    return undefined;
  },
  "the storage's own weight": (world) => {
    const iqn = "iqn.x:pve";
    if (world.zvols.some(({ name }) => name.endsWith(weightName(iqn)))) return undefined;
    world.zvol(weightName(iqn));
    return undefined;
  },
  "a clone that is read": (world, name, vmid) => {
    const of = `${DATASET}/${name}@before`;
    world.zvol(`tnb-read-${String(vmid).padStart(16, "0")}`, {
      marks: { "tnblock:reads": of, "tnblock:node": "pve2" },
    });
    world.facts[1]?.attached.push({ name: `${name}@before`, disk: null });
    return undefined;
  },
  "a clone of a node that is gone": (world, name, vmid) => {
    world.zvol(`tnb-read-${String(vmid).padStart(16, "0")}`, {
      marks: { "tnblock:reads": `${DATASET}/${name}@before`, "tnblock:node": "pve9" },
    });
    return undefined;
  },
};

const PLANTS = { ...ORPHANS, ...LOOK_ALIKES };

function plant(kind: Kind, what: readonly string[]): { builder: Builder; expected: string[] } {
  const builder = new Builder(kind);
  const expected = what.map((one, index) => {
    const vmid = 1000 + index;
    return PLANTS[one]?.(builder, `vm-${vmid}-disk-0`, vmid);
  });
  return { builder, expected: expected.filter((one) => one !== undefined).sort() };
}

const offeredIn = (world: World) =>
  findOrphans(world).offered.map(({ kind, name }) => `${kind} ${name}`).sort();

const kinds = fc.constantFrom<Kind>("iscsi", "nvme-tcp");
const plants = fc.array(fc.constantFrom(...Object.keys(PLANTS)), { maxLength: 12 });

for (const kind of ["iscsi", "nvme-tcp"] as const) {
  for (const what of Object.keys(PLANTS)) {
    const must = what in ORPHANS ? "goes" : "stays";
    Deno.test(`${kind}: ${what} ${must}`, () => {
      const { builder, expected } = plant(kind, [what]);
      assertEquals(offeredIn(builder.world()), expected);
    });
  }
}

Deno.test("of any mixture only what must go is offered, and what is not named and stays has its reason", () => {
  fc.assert(
    fc.property(kinds, plants, (kind, what) => {
      const { builder, expected } = plant(kind, what);
      const world = builder.world();
      assertEquals(offeredIn(world), expected);
      const { kept, blocked } = findOrphans(world);
      assertEquals(blocked, []);
      for (const { name, reasons } of kept) assert(reasons.length > 0, name);
    }),
    { numRuns: 300 },
  );
});

/** Each makes it impossible to tell of anything that it is an orphan. */
const UNKNOWN: Record<string, (world: World) => World> = {
  "a node that does not answer": (world) => ({
    ...world,
    nodes: [...world.nodes.slice(1), { name: "pve1", told: "no route to host" }],
  }),
  "an unknown list of nodes": (world) => ({ ...world, nodes: [] }),
  "no quorum": (world) => ({ ...world, isQuorate: false }),
  "configurations that cannot be read": (world) => ({
    ...world,
    references: { ...world.references, unread: ["/etc/pve/nodes/pve2/lxc/5.conf (EIO)"] },
  }),
  "an array without a clock": (world) => ({
    ...world,
    array: { ...world.array, nowMs: undefined },
  }),
  "an array whose clock was set": (world) => ({ ...world, nodeNowMs: NOW - 2 * HOUR }),
  "a dataset of another storage": (world) => ({
    ...world,
    array: { ...world.array, refusal: "it belongs to another" },
  }),
  "a target or subsystem that is not there": (world) => ({
    ...world,
    array: { ...world.array, parent: undefined },
  }),
  "a host that is no node": (world) => ({
    ...world,
    array: { ...world.array, connected: ["iqn.x:pve1", "iqn.x:pve9"] },
  }),
  "hosts that are not known": (world) => ({
    ...world,
    array: { ...world.array, connected: "it does not tell" },
  }),
  "a task that runs": (world) => ({
    ...world,
    nodes: world.nodes.map((node) =>
      typeof node.told === "string"
        ? node
        : { ...node, told: { ...node.told, tasks: [{ type: "vzdump", id: "100" }] } }
    ),
  }),
  "a journal that cannot be read": (world) => ({
    ...world,
    nodes: world.nodes.map((node) =>
      typeof node.told === "string"
        ? node
        : { ...node, told: { ...node.told, unreadJournal: ["/x"] } }
    ),
  }),
};

for (const [what, make] of Object.entries(UNKNOWN)) {
  Deno.test(`with ${what} nothing is offered, and all of it is listed with the reason`, () => {
    fc.assert(
      fc.property(kinds, plants, (kind, all) => {
        const { builder } = plant(kind, all);
        const world = make(builder.world());
        // What has no zvol is known as ours by its target or subsystem alone.
        const before = findOrphans(builder.world()).offered.filter((one) =>
          world.array.parent !== undefined || one.zvol !== undefined
        );
        const { offered, kept, blocked } = findOrphans(world);
        assertEquals(offered, []);
        assert(blocked.length > 0);
        assert(kept.length >= before.length);
      }),
      { numRuns: 50 },
    );
  });
}

Deno.test("without the right to see replication tasks no volume is offered", () => {
  const { builder } = plant("iscsi", ["a volume", "a half import"]);
  const { offered, kept, blocked } = findOrphans(
    builder.world({ array: { replications: "no right" } }),
  );
  assertEquals([offered, blocked, kept.length], [[], [], 2]);
});

Deno.test("whatever may be offered is asked about on every node", () => {
  fc.assert(
    fc.property(kinds, plants, (kind, what) => {
      const world = plant(kind, what).builder.world();
      const asked = new Set(
        suspectDisks(world).map((one) => one.kind === "iscsi" ? one.naa : one.uuid),
      );
      const read = new Set(suspects(world));
      for (const { zvol, rows, name } of findOrphans(world).offered) {
        if (zvol !== undefined) assert(read.has(name), name);
        for (const { kind, id } of rows) {
          const disk = kind === "extent"
            ? world.array.extents.find((row) => row.id === id)?.naa
            : kind === "namespace"
            ? world.array.namespaces.find((row) => row.id === id)?.uuid
            : undefined;
          if (disk !== undefined) assert(asked.has(disk), `${name} ${disk}`);
        }
      }
    }),
    { numRuns: 100 },
  );
});
