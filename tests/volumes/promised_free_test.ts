/** A free that is promised to PVE's worker, which never comes: finished later, unless the volume is in somebody's hands. */
import { assertEquals } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { decidePromised, type PromisedView } from "../../src/volumes/recover/decide.ts";
import { openEntries, recover } from "../support/mortal.ts";
import type { Place } from "../support/place.ts";
import { both, name, outcomes, own } from "./recover/support.ts";

const ZVOL = "vm-100-disk-0";

/** Frees as PVE does, under its lock; gives the token for the worker. */
async function promise(place: Place, volname: string): Promise<string> {
  const { token } = await place.must("free_image", { volname, isBase: 0 });
  assertEquals((await openEntries(place)).map(({ details }) => details), [
    { op: "free", token, promised: true },
  ]);
  return token;
}

/** What recovery does now, as if the worker's time were over; nothing is open afterwards. */
async function end(place: Place): Promise<[readonly string[], readonly string[]]> {
  const found = outcomes(await recover(place));
  assertEquals(await openEntries(place), [], place.log.join("\n"));
  return [found, await own(place)];
}

both("a worker that comes leaves nothing in the journal", async (place) => {
  const token = await promise(place, await place.alloc());
  await place.must("free_image_finish", { token });
  assertEquals([await own(place), await openEntries(place)], [[], []]);
  await place.must("free_image_finish", { token });
  assertEquals(await openEntries(place), []);
});

both("a free at once promises nothing", async (place) => {
  await place.must("free_image", { volname: await place.alloc(), finish: true });
  assertEquals([await own(place), await openEntries(place)], [[], []]);
});

both("a volume whose worker never comes is freed, and not before its time", async (place) => {
  const token = await promise(place, await place.alloc());
  const [entry] = await openEntries(place);
  const { monotonicMs } = linuxHost({ root: place.directory });
  const afterMinutes = (minutes: number) =>
    recover(place, {
      settleMs: 300_000,
      seen: new Map([[entry?.id ?? "", { deadSinceMs: monotonicMs() - minutes * 60_000 }]]),
    });
  place.calls.length = 0;
  assertEquals(outcomes([...await afterMinutes(0), ...await afterMinutes(9)]), ["waits", "waits"]);
  assertEquals([place.calls, await own(place)], [[], [ZVOL]]);
  assertEquals(outcomes(await afterMinutes(10)), ["finished"]);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
  // Late after all.
  await place.must("free_image_finish", { token });
});

both("a worker that fails for want of the array is done for later", async (place) => {
  const token = await promise(place, await place.alloc());
  const queries = ["pool.dataset.query", "zfs.resource.query"];
  await place.faults(queries.map((method) => ({ method, do: "error", errno: 5 })));
  assertEquals((await place.ask("free_image_finish", { token })).ok, false);
  await place.faults([]);
  assertEquals(await end(place), [["finished"], []]);
});

both("a worker that stops half-way is done for later", async (place) => {
  const token = await promise(place, await place.alloc());
  await place.faults([{ method: "pool.dataset.delete", do: "error", errno: 5 }]);
  assertEquals((await place.ask("free_image_finish", { token })).ok, false);
  await place.faults([]);
  await recover(place);
  assertEquals([await own(place), await openEntries(place)], [[], []]);
});

both("a volume that is promised twice is one entry, and freed once", async (place) => {
  const volname = await place.alloc();
  await promise(place, volname);
  await promise(place, volname);
  assertEquals(await end(place), [["finished"], []]);
});

both("a volume that a guest's configuration names stays", async (place) => {
  const volname = await place.alloc();
  await name(place, 100, volname);
  await promise(place, volname);
  assertEquals(await end(place), [["closed"], [ZVOL]]);
  await place.must("activate_volume", { volname });
});

both("a volume that only a snapshot's configuration names stays", async (place) => {
  const volname = await place.alloc();
  await promise(place, volname);
  const folder = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/100.conf`, `memory: 1\n\n[a]\nscsi0: san:${volname}\n`);
  assertEquals(await end(place), [["closed"], [ZVOL]]);
});

both("a volume that is attached on this node again stays", async (place) => {
  const volname = await place.alloc();
  await promise(place, volname);
  await place.must("activate_volume", { volname });
  assertEquals(await end(place), [["closed"], [ZVOL]]);
  await Deno.stat(place.linkOf(volname));
});

both(
  "a volume that another node made anew under the name stays",
  async (place) => {
    const args = { vmid: 100, format: "raw", name: ZVOL, sizeKiB: 65536 };
    const volname = await place.must("alloc_image", args);
    const token = await promise(place, volname);
    const elsewhere = { node: "pve2" };
    await place.must("free_image", { volname, finish: true }, elsewhere);
    const again = await place.must("alloc_image", args, elsewhere);
    assertEquals(await end(place), [["closed"], [ZVOL]]);
    await place.must("free_image_finish", { token });
    await place.must("activate_volume", { volname: again });
  },
  { nodes: ["pve1", "pve2"] },
);

both("a cloud-init volume that was handed out again stays", async (place) => {
  const args = { vmid: 100, format: "raw", name: "vm-100-cloudinit", sizeKiB: 4096 };
  const volname = await place.must("alloc_image", args);
  await promise(place, volname);
  await place.must("alloc_image", args);
  assertEquals(await end(place), [["closed"], ["vm-100-cloudinit"]]);
});

both("a volume that nobody can tell to be unnamed stays until that is known", async (place) => {
  await promise(place, await place.alloc());
  const folder = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
  await Deno.mkdir(`${folder}/100.conf`, { recursive: true });
  assertEquals(outcomes(await recover(place)), ["waits"]);
  assertEquals(await own(place), [ZVOL]);
  await Deno.remove(`${folder}/100.conf`);
  assertEquals(await end(place), [["finished"], []]);
});

both("a worker that is refused for what hangs on the volume leaves it for good", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "a" });
  const token = await promise(place, volname);
  const clone = await place.must("clone_image", { volname, vmid: 101, snapshot: "a" });
  assertEquals((await place.ask("free_image_finish", { token })).error?.code, "has-dependents");
  assertEquals(await openEntries(place), []);
  await place.must("free_image", { volname: clone, finish: true });
  assertEquals([await recover(place), await own(place)], [[], [ZVOL]]);
});

both("a volume that was protected since stays", async (place) => {
  const volname = await place.alloc();
  await promise(place, volname);
  await place.must("update_volume_attribute", { volname, attribute: "protected", value: 1 });
  await recover(place);
  assertEquals([await own(place), await openEntries(place)], [[ZVOL], []]);
});

both(
  "a volume that was renamed since stays",
  async (place) => {
    const volname = await place.alloc();
    await promise(place, volname);
    const renamed = await place.must("rename_volume", { volname, targetVmid: 200 });
    assertEquals(await end(place), [["closed"], ["vm-200-disk-0"]]);
    await place.must("activate_volume", { volname: renamed });
  },
);

Deno.test("what was promised is freed only when nothing speaks against it", () => {
  const clear: PromisedView = {
    zvol: "same",
    export: "same",
    note: "stands",
    named: { now: false, ever: false, isSure: true },
    isHere: false,
  };
  const table: readonly [Partial<PromisedView>, string][] = [
    [{}, "act"],
    [{ zvol: "gone" }, "close"],
    [{ zvol: "other" }, "close"],
    [{ export: "other" }, "close"],
    [{ note: "withdrawn" }, "close"],
    [{ note: "unknown" }, "wait"],
    [{ named: { now: true, ever: true, isSure: true } }, "close"],
    [{ named: { now: false, ever: true, isSure: false } }, "close"],
    [{ named: { now: false, ever: false, isSure: false } }, "wait"],
    [{ isHere: true }, "close"],
  ];
  for (const [change, expected] of table) {
    assertEquals([change, decidePromised({ ...clear, ...change }).do], [change, expected]);
  }
});
