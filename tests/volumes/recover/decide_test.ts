/** What becomes of a stopped operation, decided without an array. */
import { assertEquals } from "@std/assert";
import {
  decideDeleted,
  decideFree,
  decideMade,
  decideRename,
  decideResize,
  decideRollback,
  decideTaken,
  type MadeView,
  type RenameView,
  type SnapshotView,
} from "../../../src/volumes/recover/decide.ts";

const NOBODY = { now: false, ever: false, isSure: true };
const SOMEBODY = { now: true, ever: true, isSure: true };
const UNSURE = { now: false, ever: false, isSure: false };
const ALLOCATED = {
  details: { op: "alloc", operation: crypto.randomUUID(), repeatable: false },
} as const;
const THERE: NonNullable<MadeView["zvol"]> = {
  isOfOperation: true,
  isUnmarkedClone: false,
  guid: "1",
  createdMs: 1000,
  hasSnapshots: false,
};

Deno.test("what was made is undone only when it is this operation's and in nobody's hands", () => {
  const cases: readonly (readonly [string, Partial<MadeView>])[] = [
    ["act", {}],
    ["close", { zvol: undefined }],
    ["close", { zvol: { ...THERE, isOfOperation: false } }],
    ["close", { zvol: { ...THERE, hasSnapshots: true } }],
    ["close", { named: SOMEBODY }],
    ["wait", { named: UNSURE }],
    ["close", { isHere: true }],
  ];
  for (const [expected, change] of cases) {
    const view = {
      zvol: THERE,
      isExported: true,
      rows: "none",
      named: NOBODY,
      isHere: false,
      ...change,
    } as const;
    assertEquals([change, decideMade(ALLOCATED, view, undefined, 0, 10).do], [change, expected]);
  }
});

Deno.test("a volume whose caller may have heard of it is not undone", () => {
  const view = {
    zvol: THERE,
    isExported: true,
    rows: "none",
    named: NOBODY,
    isHere: false,
  } as const;
  assertEquals(decideMade({ ...ALLOCATED, told: true }, view, undefined, 0, 10).do, "close");
});

Deno.test("rows without a zvol go only when they can be nobody else's and are in nobody's hands", () => {
  const cases: readonly (readonly [string, Partial<MadeView>])[] = [
    ["act", {}],
    ["close", { rows: "none" }],
    ["close", { rows: "another's" }],
    ["close", { named: SOMEBODY }],
    ["wait", { named: UNSURE }],
    ["close", { isHere: true }],
  ];
  for (const [expected, change] of cases) {
    const view = {
      zvol: undefined,
      isExported: true,
      rows: "its",
      named: NOBODY,
      isHere: false,
      ...change,
    } as const;
    assertEquals([change, decideMade(ALLOCATED, view, undefined, 0, 10).do], [change, expected]);
  }
});

Deno.test("a clone without marks goes only when the same was there for as long as a write may take", () => {
  const clone = {
    details: { op: "clone", operation: crypto.randomUUID(), origin: "a@b" },
  } as const;
  const zvol = { ...THERE, isOfOperation: false, isUnmarkedClone: true };
  const view = { zvol, isExported: true, rows: "none", named: NOBODY, isHere: false } as const;
  const known = { guid: "1", createdMs: 1000, sinceMs: 500 };
  const cases = [
    ["act note-unmarked", undefined, 500],
    ["wait", known, 599],
    ["act destroy-unmarked", known, 600],
    ["act note-unmarked", { ...known, guid: "2" }, 600],
  ] as const;
  for (const [expected, unmarked, now] of cases) {
    const verdict = decideMade(clone, view, unmarked, now, 100);
    const text = verdict.do === "act" ? `act ${verdict.how}` : verdict.do;
    assertEquals([unmarked, now, text], [unmarked, now, expected]);
  }
});

const RENAMED: RenameView = {
  at: "to",
  isBegun: false,
  exportAt: "to",
  isSwitched: false,
  isOffSince: false,
  isFromTaken: false,
  isTold: false,
  hasClones: false,
  namedFrom: SOMEBODY,
  namedTo: NOBODY,
  isUsed: false,
};

Deno.test("a renamed volume goes where its guest's configuration says", () => {
  const cases: readonly (readonly [string, Partial<RenameView>])[] = [
    ["act back", {}],
    ["act half-back", { exportAt: "from" }],
    ["act back", { namedFrom: NOBODY }],
    ["close", { namedTo: SOMEBODY }],
    ["act forward", { namedTo: SOMEBODY, exportAt: "from" }],
    ["act back", { isTold: true }],
    ["close", { isTold: true, namedFrom: NOBODY }],
    ["close", { hasClones: true }],
    ["close", { isFromTaken: true }],
    ["act forward", { isFromTaken: true, exportAt: "from" }],
    ["wait", { namedTo: UNSURE }],
    ["wait", { isUsed: true }],
    ["close", { exportAt: "none" }],
    ["close", { at: "nowhere" }],
    ["act switch-on", { at: "nowhere", isOffSince: true }],
    ["act marks-back", { at: "from", exportAt: "from", isBegun: true, isFromTaken: true }],
    ["act marks-back", { at: "from", exportAt: "from", isBegun: true, isUsed: true }],
    ["wait", { at: "from", exportAt: "from", isBegun: true, isUsed: true, isSwitched: true }],
    ["close", { at: "from", exportAt: "from", isBegun: false }],
  ];
  for (const [expected, change] of cases) {
    const verdict = decideRename({ ...RENAMED, ...change }, false);
    const text = verdict.do === "act" ? `act ${verdict.how}` : verdict.do;
    assertEquals([change, text], [change, expected]);
  }
});

Deno.test("a volume that was getting its old name back gets it", () => {
  const cases: readonly (readonly [string, Partial<RenameView>])[] = [
    ["close", {}],
    ["act forward", { exportAt: "from" }],
    ["close", { exportAt: "none" }],
    ["close", { at: "nowhere" }],
    ["act again", { at: "from", exportAt: "from", isBegun: true, namedFrom: NOBODY }],
    ["act marks-back", { at: "from", exportAt: "from", isBegun: true, namedFrom: SOMEBODY }],
    ["wait", { at: "from", exportAt: "from", isBegun: true, namedFrom: UNSURE }],
    ["wait", { at: "from", exportAt: "from", isBegun: true, namedFrom: NOBODY, isUsed: true }],
  ];
  for (const [expected, change] of cases) {
    const verdict = decideRename({ ...RENAMED, ...change }, true);
    const text = verdict.do === "act" ? `act ${verdict.how}` : verdict.do;
    assertEquals([change, text], [change, expected]);
  }
});

Deno.test("a free is finished but for data that are whole and named, and what was made since", () => {
  const cases = [
    ["act", { zvol: "same", export: "partly", named: SOMEBODY }],
    ["act", { zvol: "same", export: "whole", named: NOBODY }],
    ["close", { zvol: "same", export: "whole", named: SOMEBODY }],
    ["wait", { zvol: "same", export: "whole", named: UNSURE }],
    ["close", { zvol: "same", export: "other", named: NOBODY }],
    ["close", { zvol: "other", export: "whole", named: NOBODY }],
    ["act", { zvol: "gone", export: "partly", named: NOBODY }],
  ] as const;
  for (const [expected, view] of cases) {
    assertEquals([view, decideFree({ ...view, isHere: false }).do], [view, expected]);
  }
  // Attached since: only what is whole still can be of use.
  const here = { zvol: "same", named: NOBODY, isHere: true } as const;
  assertEquals(decideFree({ ...here, export: "whole" }).do, "close");
  assertEquals(decideFree({ ...here, export: "partly" }).do, "act");
});

Deno.test("a resize ends by the size that is there", () => {
  const cases = [[undefined, "close"], [10, "grow"], [20, "follow"], [30, "follow"], [15, "close"]];
  for (const [volsize, expected] of cases) {
    const verdict = decideResize({ from: 10, to: 20 }, { volsize: volsize as number | undefined });
    assertEquals([volsize, verdict.do === "act" ? verdict.how : verdict.do], [volsize, expected]);
  }
});

Deno.test("after a rollback only the size follows, and not under a guest", () => {
  const view = { isSame: true, isResyncBegun: true, isEnabled: true, isUsed: false };
  assertEquals(decideRollback(view).do, "act");
  assertEquals(decideRollback({ ...view, isUsed: true }).do, "wait");
  assertEquals(decideRollback({ ...view, isUsed: true, isEnabled: false }).do, "act");
  assertEquals(decideRollback({ ...view, isResyncBegun: false }).do, "close");
  assertEquals(decideRollback({ ...view, isSame: false }).do, "close");
});

Deno.test("a snapshot that something hangs on, or that a guest's configuration has, stays", () => {
  const view: SnapshotView = {
    snapshot: "same",
    ...{ isUsed: false, isListed: false, isSure: true },
    ...{ isNamed: false, isTold: false },
  };
  assertEquals(decideTaken(view).do, "act");
  assertEquals(decideTaken({ ...view, isUsed: true }).do, "close");
  assertEquals(decideTaken({ ...view, isListed: true }).do, "close");
  assertEquals(decideTaken({ ...view, isSure: false }).do, "wait");
  assertEquals(decideTaken({ ...view, isTold: true }).do, "close");
  assertEquals(decideTaken({ ...view, isTold: true, isNamed: true }).do, "act");
  assertEquals(decideTaken({ ...view, snapshot: "other" }).do, "close");
});

Deno.test("a snapshot that was being deleted goes, one that was taken since stays", () => {
  assertEquals(decideDeleted({ snapshot: "same" }).do, "act");
  assertEquals(decideDeleted({ snapshot: "other" }).do, "close");
  assertEquals(decideDeleted({ snapshot: "gone" }).do, "close");
});
