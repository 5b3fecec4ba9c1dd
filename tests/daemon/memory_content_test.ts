import { assertEquals } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { MemoryContent } from "../../src/daemon/memory_content.ts";
import { Turns } from "../../src/daemon/memory_turns.ts";
import type { VolumeExport } from "../../src/transport/transport.ts";
import type { Zvol } from "../../src/truenas/zvols.ts";

const ZVOL = { name: "tank/pve/vm-1", volsize: 1, userProperties: {} } as unknown as Zvol;
const EXPORT: VolumeExport = {
  zvol: ZVOL.name,
  identity: { kind: "nvme-tcp", nsid: 1, uuid: "u1" },
  rows: [{ kind: "namespace", id: 1 }],
  enabled: true,
  sectorSize: 512,
};
const WHOLE = { zvols: [ZVOL], exports: [EXPORT] };
const HALF = { zvols: [ZVOL], exports: [] };
const TAG = { kind: "namespace", uuid: "u1" } as const;

Deno.test("a half is looked at once more, and said to have stayed at the next full read", () => {
  const content = new MemoryContent("tank/pve");
  assertEquals(content.takeAll(HALF, content.begin(), 10), []);
  assertEquals(content.agenda().toldSinceMs, 10);
  assertEquals(content.duePaths(), [ZVOL.name]);
  content.takeSome([ZVOL.name], [ZVOL.name], HALF, content.begin());
  assertEquals(content.agenda().toldSinceMs, undefined);
  assertEquals(content.takeAll(HALF, content.begin(), 20), [ZVOL.name]);
  assertEquals(content.agenda().toldSinceMs, undefined);
  assertEquals(content.takeAll(WHOLE, content.begin(), 30), []);
});

Deno.test("a volume is there by zvol, export and number; not while it is known to have changed", () => {
  const content = new MemoryContent("tank/pve");
  content.takeAll(WHOLE, content.begin(), 0);
  assertEquals(content.has(ZVOL.name, TAG), true);
  assertEquals(content.has(ZVOL.name, undefined), true);
  assertEquals(content.has(ZVOL.name, { kind: "namespace", uuid: "u2" }), false);
  assertEquals(content.has("tank/pve/vm-2", undefined), false);
  content.heard(
    { kind: "changed", collection: "pool.dataset.query", id: ZVOL.name, fields: {} },
    5,
  );
  assertEquals(content.has(ZVOL.name, TAG), false);
  content.takeAll(WHOLE, content.begin(), 6);
  assertEquals(content.has(ZVOL.name, TAG), true);
  content.wrote([ZVOL.name], 7);
  assertEquals(content.has(ZVOL.name, TAG), false);
});

Deno.test("what was written up to a moment is owed until it was read; what is written later is not", () => {
  const content = new MemoryContent("tank/pve");
  content.wrote([ZVOL.name], 1);
  const asked = content.moment;
  content.wrote(["tank/pve/vm-2"], 2);
  assertEquals(content.owes(asked), true);
  content.takeSome([ZVOL.name], [ZVOL.name], WHOLE, content.begin());
  assertEquals(content.owes(asked), false);
  assertEquals(content.agenda().ownSinceMs, 1);
});

Deno.test("a path that could not be read alone makes the next read one of everything", () => {
  const content = new MemoryContent("tank/pve");
  content.wrote([ZVOL.name], 1);
  content.takeSome([ZVOL.name], [], { zvols: [], exports: [] }, content.begin());
  assertEquals(content.agenda().wholeOnly, true);
  assertEquals(content.owes(content.moment), true);
  content.takeAll(WHOLE, content.begin(), 2);
  assertEquals(content.agenda().wholeOnly, false);
  assertEquals(content.owes(content.moment), false);
});

Deno.test("a wish for everything that came during a read of everything is not fulfilled by it", () => {
  const content = new MemoryContent("tank/pve");
  const began = content.begin();
  content.wantAll(5);
  content.takeAll(WHOLE, began, 6);
  assertEquals(content.agenda().allSinceMs, 5);
  content.takeAll(WHOLE, content.begin(), 7);
  assertEquals(content.agenda().allSinceMs, undefined);
});

Deno.test("the listing is the same object until something is read", () => {
  const content = new MemoryContent("tank/pve");
  content.takeAll(WHOLE, content.begin(), 0);
  const one = content.listing();
  content.wrote(["tank/pve/vm-2"], 1);
  assertEquals(content.listing() === one, true);
  content.takeAll(WHOLE, content.begin(), 2);
  assertEquals(content.listing() === one, false);
});

const NEVER = new Promise<TnblockError>(() => {});
const failure = new TnblockError("unreachable", "Cannot connect");

Deno.test("who waits for a read is told of the first that succeeds, though it began before", async () => {
  const turns = new Turns();
  const number = turns.begin();
  const next = turns.next(NEVER);
  turns.end(number, undefined);
  assertEquals(await next, undefined);
  assertEquals(turns.isAwaited, false);
});

Deno.test("a read that began before and fails is not what was waited for", async () => {
  const turns = new Turns();
  const old = turns.begin();
  const next = turns.next(NEVER);
  turns.end(old, failure);
  assertEquals(turns.isAwaited, true);
  turns.end(turns.begin(), failure);
  assertEquals(await next, failure);
});

Deno.test("the wait for a read has an end", async () => {
  const turns = new Turns();
  assertEquals(await turns.next(Promise.resolve(failure)), failure);
  assertEquals(turns.isAwaited, false);
});
