/** What exports a zvol that is not there any more goes with it; what may be another's stays. */
import { assert, assertEquals } from "@std/assert";
import type { Host } from "../../../src/host/host.ts";
import { linuxHost } from "../../../src/host/linux.ts";
import { recoverStorage } from "../../../src/volumes/recover/recover.ts";
import { arrayState } from "../../support/array_state.ts";
import { openEntries, openPlace, recover } from "../../support/mortal.ts";
import type { Place } from "../../support/place.ts";
import { exportCount } from "../snapshot_support.ts";
import {
  ALLOC,
  both,
  kill,
  lastWrite,
  name,
  outcomes,
  own,
  SETTLE_MS,
  volnameOf,
  Watching,
} from "./support.ts";

/** Earlier releases remove what exports a zvol that is destroyed. */
const ON_26 = { release: "26" } as const;

/** Destroys a zvol as an administrator does, which takes that nothing serves it; its rows stay. */
async function destroy(place: Place, zvol: string): Promise<void> {
  const service = place.transport === "iscsi" ? "iscsitarget" : "nvmet";
  await place.stopService(service);
  await place.array((nas) => nas.zvols.destroy(`${place.simulator.ready.dataset}/${zvol}`));
  await place.startService(service);
}

both("the export of a killed allocation goes when its zvol was destroyed", async (place) => {
  await place.alloc(999);
  const was = await arrayState(place);
  for (let nth = 2; nth <= lastWrite(place); nth++) {
    await kill(place, "alloc_image", ALLOC, { nth, when: "after" });
    await destroy(place, "vm-100-disk-0");
    assertEquals(outcomes(await recover(place)), ["undone"]);
    assertEquals([nth, await arrayState(place), await openEntries(place)], [nth, was, []]);
  }
}, ON_26);

both("so does that of a killed import", async (place) => {
  await place.alloc(999);
  const was = await arrayState(place);
  const args = { vmid: 100, size: 1 << 20 };
  await kill(place, "volume_import_prepare", args, { nth: lastWrite(place), when: "after" });
  await destroy(place, "vm-100-disk-0");
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await arrayState(place), await openEntries(place)], [was, []]);
}, ON_26);

both("so does that of a killed clone", async (place) => {
  const volname = await place.must("create_base", { volname: await place.alloc() });
  const was = await arrayState(place);
  // The marks are a write of their own.
  const nth = lastWrite(place) + 1;
  await kill(place, "clone_image", { volname, vmid: 101 }, { nth, when: "after" });
  await destroy(place, "vm-101-disk-0");
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await arrayState(place), await openEntries(place)], [was, []]);
}, ON_26);

both("so does that of a clone through which a snapshot was to be read", async (place) => {
  const args = { volname: await place.alloc(), snapshot: "a" };
  await place.must("volume_snapshot", args);
  const was = await arrayState(place);
  await kill(place, "activate_volume", args, { nth: lastWrite(place) + 1, when: "after" });
  const clone = (await own(place)).find((zvol) => zvol.startsWith("tnb-read-"));
  assert(clone !== undefined);
  await destroy(place, clone);
  assertEquals(outcomes(await recover(place)), ["undone"]);
  assertEquals([await arrayState(place), await openEntries(place)], [was, []]);
  await place.must("activate_volume", args);
}, ON_26);

both("a volume whose export comes after its undoing leaves no row behind", async (place) => {
  await place.alloc(999);
  const was = await arrayState(place);
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const recovery = new Watching(place);
  await recovery.pass();
  // A write of which nobody knew comes now.
  await place.array((nas) => addRows(place, nas, `${place.simulator.ready.dataset}/vm-100-disk-0`));
  await destroy(place, "vm-100-disk-0");
  assertEquals(await recovery.pass(SETTLE_MS), ["undone"]);
  assertEquals([await arrayState(place), await openEntries(place)], [was, []]);
}, ON_26);

type Nas = Parameters<Parameters<Place["array"]>[0]>[0];

/** Rows as ours at a path where no zvol is: made on one that goes then. */
async function addRows(place: Place, nas: Nas, path: string): Promise<void> {
  await nas.zvols.create({ name: path, volsize: 1 << 20, volblocksize: "16K", sparse: true });
  if (place.transport === "iscsi") {
    await nas.session.call("iscsi.extent.create", [{
      ...{ name: "late", type: "DISK", disk: `zvol/${path}`, comment: "tnblock san" },
    }], { lane: "write" });
  } else {
    const [row] = await nas.session.call("nvmet.namespace.query", []) as {
      readonly subsys: { readonly id: number };
    }[];
    await nas.session.call("nvmet.namespace.create", [{
      ...{ subsys_id: row?.subsys.id, device_type: "ZVOL", device_path: `zvol/${path}` },
    }], { lane: "write" });
  }
}

/** A killed allocation, whole, whose zvol was destroyed. */
async function leftover(place: Place): Promise<string> {
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const volname = await volnameOf(place, "vm-100-disk-0");
  await destroy(place, "vm-100-disk-0");
  return volname;
}

both("an export without its zvol that a guest's configuration names stays", async (place) => {
  await name(place, 100, await leftover(place));
  const was = await arrayState(place);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await arrayState(place), was);
}, ON_26);

both("an export without its zvol that is attached here stays", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const volname = await volnameOf(place, "vm-100-disk-0");
  await place.must("activate_volume", { volname });
  await destroy(place, "vm-100-disk-0");
  const was = await arrayState(place);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await arrayState(place), was);
}, ON_26);

both("the export of a zvol that somebody renamed by hand stays", async (place) => {
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const { dataset } = place.simulator.ready;
  await place.array((nas) => nas.zvols.rename(`${dataset}/vm-100-disk-0`, `${dataset}/mine`));
  const was = await arrayState(place);
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals(await arrayState(place), was);
}, ON_26);

both("an extent that is not marked as this storage's stays", async (place) => {
  // A namespace has no mark of its own.
  if (place.transport !== "iscsi") return;
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  const extent = (await place.objects()).extents?.[0];
  await place.array((nas) =>
    nas.session.call("iscsi.extent.update", [extent.id, { comment: "mine" }], { lane: "write" })
  );
  await destroy(place, "vm-100-disk-0");
  assertEquals(outcomes(await recover(place)), ["closed"]);
  assertEquals((await place.objects()).extents?.length, 1);
}, ON_26);

both(
  "a volume that is made under the name while rows of the first are to go is whole",
  async (place) => {
    await leftover(place);
    const real = linuxHost({ root: place.directory });
    let second: string | undefined;
    const host: Host = {
      ...real,
      lock: async (lock, bounds) => {
        if (lock === "volume-san-vm-100-disk-0") {
          second ??= await place.must("alloc_image", { ...ALLOC, name: "vm-100-disk-0" });
        }
        return await real.lock(lock, bounds);
      },
    };
    const storage = await openPlace(place, undefined, { host });
    try {
      assertEquals(outcomes(await recoverStorage(storage, { settleMs: 0 })), ["waits"]);
      assertEquals(outcomes(await recoverStorage(storage, { settleMs: 0 })), ["closed"]);
    } finally {
      await storage.close();
    }
    assertEquals([await own(place), await exportCount(place)], [["vm-100-disk-0"], 1]);
    await place.must("activate_volume", { volname: second });
  },
  ON_26,
);
