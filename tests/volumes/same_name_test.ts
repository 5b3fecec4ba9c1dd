/**
 * A volume that is freed, and made again under its name at once: a restore over a guest does so with its cloud-init
 * drive, a snapshot with memory that is taken anew with its state.
 */
import { assert, assertEquals } from "@std/assert";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { beginOn } from "./cluster_support.ts";
import { both, zvolNamesOf } from "./life_support.ts";

const NAMES = ["vm-100-cloudinit", "vm-100-state-a"] as const;

const DELETES = {
  "nvme-tcp": ["nvmet.namespace.delete", "pool.dataset.delete"],
  iscsi: ["iscsi.targetextent.delete", "iscsi.extent.delete", "pool.dataset.delete"],
} as const;

const askedFor = (name: string) => ({ vmid: 100, format: "raw", name, sizeKiB: 4096 });

/** Makes a volume, and lets PVE's free of it come as far as to its worker. */
async function promised(place: Place, name: string): Promise<string> {
  // Another one, so that the target's first is not this one.
  await place.alloc(300);
  const volname = await place.must("alloc_image", askedFor(name));
  await place.must("activate_volume", { volname });
  return (await place.must("free_image", { volname })).token;
}

/** What came of the second allocation is a volume that can be used. */
async function isWhole(place: Place, name: string, volname: string): Promise<void> {
  assert((await zvolNamesOf(place)).includes(name));
  await place.must("activate_volume", { volname });
}

/** Asks for the name again; `waits` when that waits for whoever works on it, or has ended without. */
function again(place: Place, name: string) {
  const waits = Promise.withResolvers<void>();
  const real = linuxHost({ root: place.directory });
  const { reply, settled } = beginOn(
    place,
    {
      ...real,
      lock: (lock, bounds) => {
        if (lock.includes(name)) waits.resolve();
        return real.lock(lock, bounds);
      },
      wait: (ms, signal) => {
        if (ms <= 250) waits.resolve();
        return real.wait(ms, signal);
      },
    },
    "alloc_image",
    askedFor(name),
  );
  return { reply, settled, waits: Promise.race([waits.promise, reply]) };
}

for (const transport of TRANSPORTS) {
  for (const name of NAMES) {
    for (const method of DELETES[transport]) {
      Deno.test(`${transport}: ${name} is made again while the array is at ${method} of the one before`, async () => {
        await using place = await Place.start(transport);
        const token = await promised(place, name);
        await place.faults([{ method, nth: 1, do: "hold" }]);
        const worker = place.begin("free_image_finish", { token });
        await place.held(method);
        const second = again(place, name);
        await second.waits;
        await place.faults([]);
        const { result, error } = await second.reply;
        await Promise.all([second.settled, worker.settled]);
        assertEquals([error, (await worker.reply).error], [undefined, undefined]);
        await isWhole(place, name, result);
      });
    }
  }
}

for (const name of NAMES) {
  both(`${name} is made again before PVE's worker, which frees it, has started`, async (place) => {
    const token = await promised(place, name);
    const second = again(place, name);
    await second.waits;
    const worker = place.begin("free_image_finish", { token });
    const { result, error } = await second.reply;
    await Promise.all([second.settled, worker.settled]);
    assertEquals([error, (await worker.reply).error], [undefined, undefined]);
    await isWhole(place, name, result);
  });
}

both(
  "a destruction that is merely slow is waited for, and no answer is said to be lost",
  async (place) => {
    const [name] = NAMES;
    const token = await promised(place, name);
    await place.faults([{ method: "pool.dataset.delete", nth: 1, do: "hold" }]);
    const worker = place.begin("free_image_finish", { token });
    await place.held("pool.dataset.delete");
    // Far longer than any pause of ours, by the clock of who waits.
    const real = linuxHost({ root: place.directory });
    let leapt = 0;
    const isWaiting = () => {
      leapt = 4_000;
      return place.faults([]);
    };
    const host: Host = {
      ...real,
      monotonicMs: () => real.monotonicMs() + leapt,
      lock: async (lock, bounds) => {
        if (lock.includes(name)) await isWaiting();
        return await real.lock(lock, bounds);
      },
      wait: async (ms, signal) => {
        if (ms <= 250) await isWaiting();
        await real.wait(ms, signal);
      },
    };
    const second = beginOn(place, host, "alloc_image", askedFor(name));
    const { result, error } = await second.reply;
    await Promise.all([second.settled, worker.settled]);
    assertEquals(error, undefined);
    await isWhole(place, name, result);
  },
);

both("a note of another volume's free that was left costs no time", async (place) => {
  const name = NAMES[1];
  const token = await promised(place, name);
  const file = `${place.directory}/etc/pve/priv/tnblock/freeing/san/${name}`;
  const note = JSON.parse(await Deno.readTextFile(file));
  await place.must("free_image_finish", { token });
  await place.must("alloc_image", askedFor(name));
  await Deno.writeTextFile(file, JSON.stringify({ ...note, guid: "1", createdMs: 1 }));
  const real = linuxHost({ root: place.directory });
  const pauses: number[] = [];
  const second = beginOn(
    place,
    {
      ...real,
      wait: (ms, signal) => {
        // Not a deadline, nor the connection's.
        if (ms <= 250) pauses.push(ms);
        return real.wait(ms, signal);
      },
    },
    "alloc_image",
    askedFor(name),
  );
  assertEquals([(await second.reply).error?.code, pauses], ["exists", []]);
  await second.settled;
});
