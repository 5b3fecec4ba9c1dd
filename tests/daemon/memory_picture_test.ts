import { assertEquals } from "@std/assert";
import {
  halves,
  listingOf,
  pathOfRow,
  type Picture,
  stillWritten,
  withAll,
  withSome,
} from "../../src/daemon/memory_picture.ts";
import type { VolumeExport } from "../../src/transport/transport.ts";
import type { Zvol } from "../../src/truenas/zvols.ts";

const EMPTY: Picture = new Map();

function zvol(name: string, volsize = 1): Zvol {
  return {
    name,
    volsize,
    volblocksize: 16384,
    used: 0,
    referenced: 0,
    sparse: true,
    reserved: 0,
    createdMs: 0,
    origin: undefined,
    guid: "1",
    createTxg: "1",
    userProperties: {},
  };
}

function exported(path: string, id = 1): VolumeExport {
  return {
    zvol: path,
    identity: { kind: "nvme-tcp", nsid: id, uuid: `u${id}` },
    rows: [{ kind: "namespace", id }],
    enabled: true,
    sectorSize: 512,
  };
}

/** What a read finds: volumes with their sizes, each exported. */
function found(sizes: Record<string, number>) {
  const names = Object.keys(sizes);
  return {
    zvols: names.map((name) => zvol(name, sizes[name])),
    exports: names.map((name, index) => exported(name, index)),
  };
}

function sizesIn(picture: Picture): Record<string, number> {
  const { zvols } = listingOf(picture);
  return Object.fromEntries(zvols.map(({ name, volsize }) => [name, volsize]));
}

/** One thing that a memory lives through; `began` is the moment at which a read began. */
type Step =
  | { readonly all: Record<string, number>; readonly began: number }
  | {
    readonly some: Record<string, number>;
    readonly paths: readonly string[];
    readonly began: number;
  }
  | { readonly wrote: string; readonly at: number };

interface Case {
  readonly name: string;
  readonly steps: readonly Step[];
  readonly shows: Record<string, number>;
  /** Paths that still have to be read. */
  readonly owes?: readonly string[];
}

const CASES: readonly Case[] = [
  { name: "what a read found is shown", steps: [{ all: { a: 1 }, began: 1 }], shows: { a: 1 } },
  {
    name: "what the next read does not find is gone",
    steps: [{ all: { a: 1, b: 1 }, began: 1 }, { all: { b: 1 }, began: 2 }],
    shows: { b: 1 },
  },
  {
    name: "a read of everything that began before a read of one path does not bring back its past",
    steps: [{ some: { a: 2 }, paths: ["a"], began: 2 }, { all: { a: 1 }, began: 1 }],
    shows: { a: 2 },
  },
  {
    name: "nor does it remove what that one found",
    steps: [{ some: { a: 2 }, paths: ["a"], began: 2 }, { all: {}, began: 1 }],
    shows: { a: 2 },
  },
  {
    name: "nor does it bring back what that one did not find",
    steps: [
      { all: { a: 1 }, began: 1 },
      { some: {}, paths: ["a"], began: 3 },
      { all: { a: 1 }, began: 2 },
    ],
    shows: {},
  },
  {
    name: "a later one of everything does",
    steps: [
      { some: {}, paths: ["a"], began: 1 },
      { all: { a: 1 }, began: 2 },
    ],
    shows: { a: 1 },
  },
  {
    name: "a read of one path that began before a read of everything changes nothing",
    steps: [{ all: { a: 2 }, began: 2 }, { some: { a: 1 }, paths: ["a"], began: 1 }],
    shows: { a: 2 },
  },
  {
    name: "nor does it remove anything",
    steps: [{ all: { a: 2 }, began: 2 }, { some: {}, paths: ["a"], began: 1 }],
    shows: { a: 2 },
  },
  {
    name: "a read of one path leaves the others",
    steps: [{ all: { a: 1, b: 1 }, began: 1 }, { some: { a: 2 }, paths: ["a"], began: 2 }],
    shows: { a: 2, b: 1 },
  },
  {
    name:
      "a read of everything that began before a write ended says nothing of what was written to",
    steps: [
      { all: { a: 1, b: 1 }, began: 1 },
      { wrote: "a", at: 3 },
      { all: { a: 7, b: 2 }, began: 2 },
    ],
    shows: { a: 1, b: 2 },
    owes: ["a"],
  },
  {
    name: "nor of what was made",
    steps: [{ wrote: "a", at: 2 }, { all: { a: 7 }, began: 1 }],
    shows: {},
    owes: ["a"],
  },
  {
    name: "nor does a read of the path",
    steps: [
      { all: { a: 1 }, began: 1 },
      { wrote: "a", at: 3 },
      { some: { a: 7 }, paths: ["a"], began: 2 },
    ],
    shows: { a: 1 },
    owes: ["a"],
  },
  {
    name: "a read that began after the write settles it",
    steps: [
      { all: { a: 1 }, began: 1 },
      { wrote: "a", at: 2 },
      { some: { a: 7 }, paths: ["a"], began: 3 },
    ],
    shows: { a: 7 },
  },
  {
    name: "a second write during that read does not count as settled",
    steps: [
      { all: { a: 1 }, began: 1 },
      { wrote: "a", at: 2 },
      { wrote: "a", at: 4 },
      { some: { a: 7 }, paths: ["a"], began: 3 },
    ],
    shows: { a: 1 },
    owes: ["a"],
  },
  {
    name: "a write to another path stays owed",
    steps: [
      { wrote: "a", at: 1 },
      { wrote: "b", at: 2 },
      { some: { a: 7 }, paths: ["a"], began: 3 },
    ],
    shows: { a: 7 },
    owes: ["b"],
  },
];

for (const { name, steps, shows, owes = [] } of CASES) {
  Deno.test(name, () => {
    let picture = EMPTY;
    let written: ReadonlyMap<string, number> = new Map();
    for (const step of steps) {
      if ("wrote" in step) {
        written = new Map([...written, [step.wrote, step.at]]);
      } else if ("all" in step) {
        picture = withAll(picture, found(step.all), step.began, written);
        written = stillWritten(written, step.began, "all");
      } else {
        picture = withSome(picture, step.paths, found(step.some), step.began, written);
        written = stillWritten(written, step.began, new Set(step.paths));
      }
    }
    assertEquals(sizesIn(picture), shows);
    assertEquals([...written.keys()], owes);
  });
}

Deno.test("a note that nothing is there does not outlive the next read of everything", () => {
  const gone = withSome(EMPTY, ["a"], { zvols: [], exports: [] }, 1, new Map());
  assertEquals(gone.size, 1);
  assertEquals(withAll(gone, { zvols: [], exports: [] }, 2, new Map()).size, 0);
});

Deno.test("a zvol without export and an export without zvol are halves", () => {
  const picture = withAll(
    EMPTY,
    { zvols: [zvol("a"), zvol("b")], exports: [exported("b", 1), exported("c", 2)] },
    1,
    new Map(),
  );
  assertEquals([...halves(picture)].sort(), ["a", "c"]);
});

Deno.test("a row is found by its kind and number", () => {
  const picture = withAll(EMPTY, { zvols: [zvol("a")], exports: [exported("a", 5)] }, 1, new Map());
  assertEquals(pathOfRow(picture, "namespace", 5), "a");
  assertEquals(pathOfRow(picture, "extent", 5), undefined);
});
