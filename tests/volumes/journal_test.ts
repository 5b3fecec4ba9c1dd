/** The journal: what is kept of an operation while it runs, and what is not after. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { JOURNAL_FOLDER, parseEntry } from "../../src/volumes/journal.ts";
import { arrayState } from "../support/array_state.ts";
import { openEntries, recover } from "../support/mortal.ts";
import { ALLOC, both, kill, outcomes, own } from "./recover/support.ts";

both("what is kept of an operation is for root alone, and holds no secret", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: 1, when: "before" });
  const [entry] = await openEntries(place);
  assert(entry !== undefined);
  const file = `${place.directory}${JOURNAL_FOLDER}/${entry.id}.json`;
  assertEquals((await Deno.stat(file)).mode! & 0o777, 0o600);
  const text = await Deno.readTextFile(file);
  assert(!text.includes(place.simulator.ready.apiKey));
  assertEquals([entry.zvol, entry.node, entry.details.op], ["vm-100-disk-0", "pve1", "alloc"]);
});

both("what was answered is in no journal, whatever the verb", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "a" });
  await place.must("activate_volume", { volname, snapshot: "a" });
  await place.must("deactivate_volume", { volname, snapshot: "a" });
  await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
  await place.must("volume_snapshot_rollback", { volname, snapshot: "a" });
  await place.must("volume_snapshot_delete", { volname, snapshot: "a" });
  const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
  const base = await place.must("create_base", { volname: renamed });
  const clone = await place.must("clone_image", { volname: base, vmid: 101 });
  await place.must("free_image", { volname: clone, finish: true });
  // Refused and failed ones too.
  await place.ask("alloc_image", { ...ALLOC, name: "vm-200-disk-0" });
  await place.ask("volume_snapshot_rollback", { volname: base, snapshot: "none" });
  assertEquals(await openEntries(place), []);
});

both(
  "a failure that leaves nothing closes its entry, one that leaves something does not",
  async (place) => {
    const create = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    await place.faults([{ method: create, do: "error", errno: 5 }]);
    assertEquals((await place.ask("alloc_image", ALLOC)).ok, false);
    assertEquals(await openEntries(place), []);
    await place.faults([
      { method: create, do: "error", errno: 5 },
      { method: "pool.dataset.delete", do: "error", errno: 5 },
    ]);
    assertEquals((await place.ask("alloc_image", ALLOC)).ok, false);
    assertEquals((await openEntries(place)).length, 1);
    await place.faults([]);
    assertEquals(outcomes(await recover(place)), ["undone"]);
    assertEquals([await own(place), await openEntries(place)], [[], []]);
  },
);

both(
  "an operation that is to be undone does not begin without its entry; a free goes on",
  async (place) => {
    const volname = await place.alloc();
    const was = await arrayState(place);
    const folder = `${place.directory}${JOURNAL_FOLDER}`;
    await Deno.remove(folder, { recursive: true });
    await Deno.writeTextFile(folder, "no folder");
    const reply = await place.ask("alloc_image", ALLOC);
    assertEquals(reply.ok, false);
    assertStringIncludes(reply.error?.message ?? "", "journal");
    assertEquals(await arrayState(place), was);
    await place.must("free_image", { volname, finish: true });
    assertEquals(await own(place), []);
  },
);

both(
  "what is to be finished stays open when the way to the array is lost, whatever is said of it",
  async (place) => {
    const volname = await place.alloc();
    await place.must("volume_snapshot", { volname, snapshot: "a" });
    const config = { "tnb-api-retry-max": 0 };
    for (
      const [method, args, call] of [
        ["volume_resize", { volname, size: 128 << 20 }, "pool.dataset.update"],
        ["volume_snapshot_delete", { volname, snapshot: "a" }, "pool.snapshot.delete"],
      ] as const
    ) {
      const logins = Array.from({ length: 400 }, (_, at) => ({
        method: "auth.login_ex",
        nth: at + 2,
        do: "result",
        result: { response_type: "AUTH_ERR" },
      }));
      await place.faults([{ method: call, nth: 1, do: "done-then-drop" }, ...logins]);
      const { error } = await place.ask(method, args, { config });
      assertEquals([method, error?.code], [method, "auth"]);
      await place.faults([]);
      assertEquals((await openEntries(place)).length, 1);
      await recover(place);
      assertEquals(await openEntries(place), []);
    }
    const { snapshots = [], zvols = [] } = await place.objects();
    assertEquals([snapshots, zvols.map((one) => one.volsize)], [[], [128 << 20]]);
  },
);

Deno.test("an entry that is damaged or newer is not guessed at", () => {
  for (const text of ["", "{", "[]", `{"v":2}`, `{"v":1,"id":"x"}`]) {
    assertEquals(parseEntry(text), undefined);
  }
});
