/** What comes between recovery's look and its destructive step: whatever came into somebody's hands stays. */
import { assertEquals } from "@std/assert";
import type { Host } from "../../../src/host/host.ts";
import { linuxHost } from "../../../src/host/linux.ts";
import { type RecoverOptions, recoverStorage } from "../../../src/volumes/recover/recover.ts";
import { openEntries, openPlace } from "../../support/mortal.ts";
import { Place, TRANSPORTS } from "../../support/place.ts";
import { contentOf, snapshotNames } from "../snapshot_support.ts";
import { ALLOC, both, kill, lastWrite, name, outcomes, own, volnameOf } from "./support.ts";

const ZVOL = "vm-100-disk-0";

/** Recovers on a host on which something happens at one moment, once. */
async function recoverOn(
  place: Place,
  host: Host,
  options: RecoverOptions = {},
): Promise<string[]> {
  const storage = await openPlace(place, undefined, { host });
  try {
    return outcomes(await recoverStorage(storage, { settleMs: 0, ...options }));
  } finally {
    await storage.close();
  }
}

function once(work: () => Promise<unknown>): () => Promise<void> {
  let isDone = false;
  return async () => {
    if (isDone) return;
    isDone = true;
    await work();
  };
}

/** Recovers; its look is over and it wants the volume's lock when others have that and do their work. */
async function recoverAfterOthers(
  place: Place,
  others: () => Promise<unknown>,
  options?: RecoverOptions,
  volume: string = ZVOL,
): Promise<string[]> {
  const real = linuxHost({ root: place.directory });
  const work = once(others);
  const host: Host = {
    ...real,
    lock: async (lock, bounds) => {
      if (lock === `volume-san-${volume}`) await work();
      return await real.lock(lock, bounds);
    },
  };
  return await recoverOn(place, host, options);
}

/** A volume that was allocated for nobody. */
async function unheard(place: Place): Promise<string> {
  await kill(place, "alloc_image", ALLOC, { nth: lastWrite(place), when: "after" });
  return await volnameOf(place, ZVOL);
}

async function stays(place: Place, found: readonly string[]): Promise<void> {
  assertEquals([found, await own(place), await openEntries(place)], [["closed"], [ZVOL], []]);
}

both(
  "a volume that a guest got while its undoing waited for another operation stays",
  async (place) => {
    const volname = await unheard(place);
    await stays(place, await recoverAfterOthers(place, () => name(place, 100, volname)));
    await place.must("activate_volume", { volname });
  },
);

both(
  "a volume that was activated while its undoing waited stays, and stays active",
  async (place) => {
    const volname = await unheard(place);
    await stays(
      place,
      await recoverAfterOthers(place, () => place.must("activate_volume", { volname })),
    );
    await Deno.stat(place.linkOf(volname));
  },
);

both("a volume of which a snapshot was taken while its undoing waited stays", async (place) => {
  const volname = await unheard(place);
  await stays(
    place,
    await recoverAfterOthers(
      place,
      () => place.must("volume_snapshot", { volname, snapshot: "a" }),
    ),
  );
  assertEquals(await snapshotNames(place), ["a"]);
});

both("a volume that a guest got while this node let go of it stays", async (place) => {
  const volname = await unheard(place);
  const real = linuxHost({ root: place.directory });
  const work = once(() => name(place, 100, volname));
  const host: Host = {
    ...real,
    files: {
      ...real.files,
      remove: async (path, options) => {
        if (path.endsWith(`/${ZVOL}.json`)) await work();
        return await real.files.remove(path, options);
      },
    },
  };
  await stays(place, await recoverOn(place, host));
  await place.must("activate_volume", { volname });
});

both("a volume that nobody got while its undoing waited goes", async (place) => {
  await unheard(place);
  const found = await recoverAfterOthers(place, () => Promise.resolve());
  assertEquals([found, await own(place), await openEntries(place)], [["undone"], [], []]);
});

for (
  const [how, others] of [
    ["a guest got", (place: Place, volname: string) => name(place, 100, volname)],
    [
      "was activated",
      (place: Place, volname: string) => place.must("activate_volume", { volname }),
    ],
  ] as const
) {
  both(`a whole volume that ${how} while the end of its free waited stays`, async (place) => {
    const volname = await place.alloc();
    await kill(place, "free_image", { volname, finish: true }, { nth: 1, when: "before" });
    await stays(place, await recoverAfterOthers(place, () => others(place, volname)));
    await place.must("activate_volume", { volname });
  });
}

both("a snapshot that was activated while its undoing waited stays readable", async (place) => {
  const volname = await place.alloc();
  const args = { volname, snapshot: "a" };
  await place.must("volume_snapshot", args);
  await kill(place, "activate_volume", args, { nth: lastWrite(place), when: "after" });
  // Notes the death, from when on it is another process that activates.
  await recoverAfterOthers(place, () => Promise.resolve(), { settleMs: 1 });
  const found = await recoverAfterOthers(
    place,
    () => place.must("activate_volume", args),
    { settleMs: 1 },
    `${ZVOL}@a`,
  );
  assertEquals([found, await openEntries(place)], [["closed"], []]);
  await contentOf(place, volname, 3, "a");
});

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a clone without marks of which a snapshot was taken while its undoing waited stays`, async () => {
    await using place = await Place.start(transport, { release: "26" });
    const volname = await place.must("create_base", { volname: await place.alloc() });
    await kill(place, "clone_image", { volname, vmid: 101 }, { nth: 1, when: "after" });
    const path = `${place.simulator.ready.dataset}/vm-101-disk-0`;
    const found = await recoverAfterOthers(
      place,
      () => place.array((nas) => nas.snapshots.create(path, "mine")),
      {},
      "vm-101-disk-0",
    );
    assertEquals(found, ["closed"]);
    assertEquals(await own(place), ["base-100-disk-0", "vm-101-disk-0"]);
  });
}
