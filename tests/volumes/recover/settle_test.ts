/** When a stopped operation may be acted on, decided without an array and without a clock. */
import { assertEquals } from "@std/assert";
import type { MadeView, RenameView, SnapshotView } from "../../../src/volumes/recover/decide.ts";
import {
  comingOfMade,
  comingOfRename,
  comingOfResize,
  comingOfTaken,
  decideTime,
  mayAct,
} from "../../../src/volumes/recover/settle.ts";

const SETTLE = 300_000;

Deno.test("nothing is looked at before it has settled but what may be whole, and that until it was acted on", () => {
  const cases = [
    ["alloc", {}, 0, "look"],
    ["import", {}, 0, "look"],
    ["clone", {}, 0, "look"],
    ["alloc", { hasActed: true }, 299_999, "wait"],
    ["reading", {}, 299_999, "wait"],
    ["reading", {}, 300_000, "look"],
    ["free", {}, 299_999, "wait"],
    ["rollback", {}, 299_999, "wait"],
    ["delete_snapshot", {}, 299_999, "wait"],
    ["rename", {}, 0, "look"],
    ["create_base", {}, 0, "look"],
    ["snapshot", {}, 0, "look"],
    ["resize", {}, 0, "look"],
    ["rename", { hasActed: true }, 299_999, "wait"],
    ["rename", { hasActed: true }, 300_000, "look"],
  ] as const;
  for (const [op, seen, ageMs, expected] of cases) {
    const found = decideTime(op, { deadSinceMs: 50, ...seen }, 50 + ageMs, SETTLE);
    assertEquals([op, seen, ageMs, found.do], [op, seen, ageMs, expected]);
    assertEquals(found.pace, { ageMs, isSettled: ageMs >= SETTLE });
  }
  assertEquals(decideTime("free", { deadSinceMs: 50 }, 50, 0).do, "look");
});

Deno.test("while a write may come only time ends the wait; an answer is given time to be used", () => {
  const at = (ageMs: number) => ({ ageMs, isSettled: ageMs >= SETTLE });
  assertEquals([mayAct(at(0), "write"), mayAct(at(299_999), "write")], [false, false]);
  assertEquals(mayAct(at(SETTLE), "write"), true);
  assertEquals([mayAct(at(29_999), "answer"), mayAct(at(30_000), "answer")], [false, true]);
  assertEquals(mayAct(at(0), "nothing"), true);
});

const WHOLE: RenameView = {
  at: "to",
  isBegun: false,
  exportAt: "to",
  isSwitched: false,
  isOffSince: false,
  isFromTaken: false,
  isTold: false,
  hasClones: false,
  namedFrom: { now: true, ever: true, isSure: true },
  namedTo: { now: false, ever: false, isSure: true },
  isUsed: false,
};

Deno.test("of a volume nothing comes any more once its zvol has its marks and its export", () => {
  const zvol = {
    ...{ isOfOperation: true, isUnmarkedClone: false, guid: "1", createdMs: 1 },
    hasSnapshots: false,
  };
  const named = { now: false, ever: false, isSure: true };
  const view: MadeView = { zvol, named, isExported: true, rows: "none", isHere: false };
  assertEquals(comingOfMade(view), "nothing");
  assertEquals(comingOfMade({ ...view, isExported: false }), "write");
  assertEquals(comingOfMade({ ...view, zvol: { ...zvol, isOfOperation: false } }), "write");
  assertEquals(comingOfMade({ ...view, zvol: undefined }), "write");
});

Deno.test("of a rename nothing comes any more once zvol, export, switch and a base's snapshot are there", () => {
  assertEquals(comingOfRename(WHOLE, false), "nothing");
  assertEquals(comingOfRename({ ...WHOLE, isTold: true }, false), "answer");
  const others: readonly Partial<RenameView>[] = [
    { at: "nowhere" },
    { at: "from", exportAt: "from", isBegun: true },
    { exportAt: "from" },
    { exportAt: "none" },
    { isSwitched: true },
  ];
  for (const change of others) {
    assertEquals([change, comingOfRename({ ...WHOLE, ...change }, false)], [change, "write"]);
  }
  assertEquals(comingOfRename(WHOLE, true), "write");
});

Deno.test("of a snapshot nothing comes any more once it is there and PVE does not have it in its hands", () => {
  const view: SnapshotView = {
    snapshot: "same",
    ...{ isUsed: false, isListed: false, isSure: true },
    ...{ isNamed: true, isTold: false },
  };
  assertEquals(comingOfTaken(view), "nothing");
  assertEquals(comingOfTaken({ ...view, isTold: true }), "answer");
  assertEquals(comingOfTaken({ ...view, isListed: true }), "write");
  assertEquals(comingOfTaken({ ...view, snapshot: "gone" }), "write");
  assertEquals(comingOfTaken({ ...view, snapshot: "other" }), "write");
});

Deno.test("of a resize nothing comes any more once size and reservation are there", () => {
  const thin = { to: 20, thick: false };
  assertEquals(comingOfResize(thin, { volsize: undefined, reserved: 0 }), "write");
  assertEquals(comingOfResize(thin, { volsize: 10, reserved: 0 }), "write");
  assertEquals(comingOfResize(thin, { volsize: 20, reserved: 0 }), "nothing");
  const thick = { to: 20, thick: true };
  assertEquals(comingOfResize(thick, { volsize: 20, reserved: 10 }), "write");
  assertEquals(comingOfResize(thick, { volsize: 20, reserved: 20 }), "nothing");
});
