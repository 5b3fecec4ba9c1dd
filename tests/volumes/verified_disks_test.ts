/** What is kept of volumes for when the API is away. */
import { assert, assertEquals } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { silentLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { openStorage } from "../../src/pve/open_storage.ts";
import type { Storage } from "../../src/volumes/storage.ts";
import {
  keepVerified,
  MOST,
  readVerified,
  renewVerified,
  type Told,
} from "../../src/volumes/verified_disks.ts";
import type { Place } from "../support/place.ts";
import { both } from "./life_support.ts";
import { keptNames } from "./reboot_support.ts";

const NAAS = ["6589cfc000000", "0"] as const;

/** A storage whose clock says so many milliseconds more. */
async function opened(
  place: Place,
  aheadMs = 0,
  change: Record<string, unknown> = {},
): Promise<Storage> {
  const real = linuxHost({ root: place.directory });
  const host = { ...real, now: () => real.now() + aheadMs };
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
  const request = { storage: "san", config: place.config(change), node: "pve1" };
  return await openStorage(request, world, new Deadline(host, 30_000));
}

/** What the array might say of a volume. */
function told({ transport }: Place, number: number, volsize = 1 << 26): Told {
  return {
    zvol: { volsize, guid: String(number), createdMs: number },
    export: {
      identity: transport === "iscsi"
        ? { kind: "iscsi", lun: number, naa: NAAS[0] + String(number).padStart(19, "0") }
        : {
          kind: "nvme-tcp",
          nsid: 1,
          uuid: `00000000-0000-4000-8000-${String(number).padStart(12, "0")}`,
        },
    },
  };
}

both("what was kept is read back, by the storage that it is of alone", async (place) => {
  const storage = await opened(place);
  await keepVerified(storage, "vm-1-disk-0", told(place, 7));
  assertEquals(
    (await readVerified(storage, "vm-1-disk-0"))?.identity,
    told(place, 7).export.identity,
  );
  assertEquals(await readVerified(storage, "vm-2-disk-0"), undefined);
  for (
    const change of [
      { "tnb-dataset": "tank/other" },
      { "tnb-api-host": "127.0.0.9" },
      { "tnb-api-port": 1 },
      place.transport === "iscsi"
        ? { "tnb-target-iqn": "iqn.2005-10.org.freenas.ctl:other" }
        : { "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:uuid:other" },
    ]
  ) {
    assertEquals(await readVerified(await opened(place, 0, change), "vm-1-disk-0"), undefined);
  }
  const second = { "tnb-api-host": `127.0.0.9,${place.simulator.ready.host}` };
  assert(await readVerified(await opened(place, 0, second), "vm-1-disk-0") !== undefined);
});

both("what is damaged is nothing", async (place) => {
  const storage = await opened(place);
  const file = `${place.directory}/var/lib/tnblock/.verified/san/vm-1-disk-0.json`;
  await keepVerified(storage, "vm-1-disk-0", told(place, 7));
  const text = await Deno.readTextFile(file);
  for (const bad of ["", text.slice(0, 40), text.replace('"version":1', '"version":2'), "[]"]) {
    await Deno.writeTextFile(file, bad);
    assertEquals(await readVerified(storage, "vm-1-disk-0"), undefined);
  }
});

both("another size, identity or zvol is written at once", async (place) => {
  const storage = await opened(place);
  const read = () => readVerified(storage, "vm-1-disk-0");
  await keepVerified(storage, "vm-1-disk-0", told(place, 7));
  await keepVerified(storage, "vm-1-disk-0", told(place, 7, 1 << 27));
  assertEquals((await read())?.size, 1 << 27);
  await keepVerified(storage, "vm-1-disk-0", told(place, 8, 1 << 27));
  assertEquals([(await read())?.guid, (await read())?.createdMs], ["8", 8]);
});

both("memory renews what it knows to be as it was, and nothing else", async (place) => {
  const storage = await opened(place);
  for (const number of [1, 2, 3, 4]) {
    await keepVerified(storage, `vm-${number}-disk-0`, told(place, number));
  }
  const { dataset } = place.simulator.ready;
  // The first as it was, the second another disk, the third another zvol, of the fourth it is not sure.
  const now = [told(place, 1), told(place, 9), told(place, 3), told(place, 4)];
  const later = await opened(place, 2 * 3_600_000);
  await renewVerified(later, {
    has: ({ zvol }) => zvol === "vm-4-disk-0" ? undefined : true,
    listing: () =>
      Promise.resolve({
        // deno-lint-ignore no-explicit-any
        zvols: now.map(({ zvol }, index): any => ({
          ...zvol,
          name: `${dataset}/vm-${index + 1}-disk-0`,
          createdMs: index === 2 ? 99 : index + 1,
          guid: String(index + 1),
        })),
        // deno-lint-ignore no-explicit-any
        exports: now.map((one, index): any => ({
          ...one.export,
          zvol: `${dataset}/vm-${index + 1}-disk-0`,
        })),
      }),
  }, ["vm-1-disk-0", "vm-2-disk-0", "vm-3-disk-0", "vm-4-disk-0", "vm-5-disk-0"]);
  const ages = await Promise.all([1, 2, 3, 4].map(async (number) => {
    const kept = await readVerified(storage, `vm-${number}-disk-0`);
    return kept !== undefined && kept.toldMs > Date.now() + 3_600_000;
  }));
  assertEquals(ages, [true, false, false, false]);
  assertEquals((await keptNames(place)).length, 4);
});

both("memory also tells of what was attached when nothing was kept yet", async (place) => {
  const storage = await opened(place);
  await place.must("activate_volume", { volname: await place.alloc() });
  const file = `${place.directory}/var/lib/tnblock/.verified/san/vm-100-disk-0.json`;
  const before = JSON.parse(await Deno.readTextFile(file));
  await Deno.remove(file);
  const zvol = `${place.simulator.ready.dataset}/vm-100-disk-0`;
  const renew = (identity: unknown) =>
    renewVerified(storage, {
      has: () => true,
      listing: () =>
        Promise.resolve({
          // deno-lint-ignore no-explicit-any
          zvols: [{ ...told(place, 1).zvol, name: zvol } as any],
          // deno-lint-ignore no-explicit-any
          exports: [{ identity, zvol } as any],
        }),
    }, ["vm-100-disk-0"]);
  await renew(told(place, 9).export.identity);
  assertEquals(await keptNames(place), []);
  await renew(before.identity);
  assertEquals((await readVerified(storage, "vm-100-disk-0"))?.identity, before.identity);
});

Deno.test("there is an end to what is kept: the oldest goes", async () => {
  const { Place } = await import("../support/place.ts");
  await using place = await Place.start("nvme-tcp");
  const storage = await opened(place);
  const folder = `${place.directory}/var/lib/tnblock/.verified/san`;
  await Deno.mkdir(folder, { recursive: true });
  for (let number = 0; number < MOST; number++) {
    const file = `${folder}/vm-${number + 1}-disk-0.json`;
    Deno.writeTextFileSync(file, "{}");
    Deno.utimeSync(file, number, number);
  }
  await keepVerified(storage, "vm-99999-disk-0", told(place, 7));
  const names = await keptNames(place);
  assert(names.length < MOST);
  assert(names.includes("vm-99999-disk-0") && names.includes(`vm-${MOST}-disk-0`));
  assert(!names.includes("vm-1-disk-0"));
});
