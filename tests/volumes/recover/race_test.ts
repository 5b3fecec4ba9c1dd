/** What comes between recovery's look and its destructive step: whatever came into somebody's hands stays. */
import { assert, assertEquals } from "@std/assert";
import { type Host, LockError } from "../../../src/host/host.ts";
import { linuxHost } from "../../../src/host/linux.ts";
import { JOURNAL_FOLDER } from "../../../src/volumes/journal.ts";
import { type RecoverOptions, recoverStorage } from "../../../src/volumes/recover/recover.ts";
import { arrayState } from "../../support/array_state.ts";
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

/** Which write of a rename is its last. */
const lastOfRename = (place: Place) => place.transport === "iscsi" ? 3 : 4;

for (const verb of ["rename_volume", "create_base"]) {
  both(
    `a new name that a guest got while its taking back waited stays: ${verb}`,
    async (place) => {
      const volname = await place.alloc();
      const isBase = verb === "create_base";
      const args = isBase ? { volname } : { volname, targetVmid: 200 };
      const nth = lastOfRename(place) + Number(isBase);
      await kill(place, verb, args, { nth, when: "after" });
      const zvol = isBase ? "base-100-disk-0" : "vm-200-disk-0";
      const now = await volnameOf(place, zvol);
      const was = await arrayState(place);
      const found = await recoverAfterOthers(place, () => name(place, 200, now), {}, zvol);
      assertEquals([found, await openEntries(place)], [["closed"], []]);
      assertEquals(await arrayState(place), was);
      await place.must("activate_volume", { volname: now });
    },
  );
}

both("a new name that nobody got while its taking back waited goes", async (place) => {
  const volname = await place.alloc();
  const args = { volname, targetVmid: 200 };
  await kill(place, "rename_volume", args, { nth: lastOfRename(place), when: "after" });
  const found = await recoverAfterOthers(place, () => Promise.resolve(), {}, "vm-200-disk-0");
  await stays(place, found.map((outcome) => outcome === "undone" ? "closed" : outcome));
  await place.must("activate_volume", { volname });
});

both("a guest that got the new name while this node let go of the disk keeps it", async (place) => {
  const volname = await place.alloc();
  const args = { volname, targetVmid: 200 };
  await kill(place, "rename_volume", args, { nth: lastOfRename(place), when: "after" });
  const now = await volnameOf(place, "vm-200-disk-0");
  const real = linuxHost({ root: place.directory });
  const work = once(() => name(place, 200, now));
  let locked = false;
  const host: Host = {
    ...real,
    lock: async (lock, bounds) => {
      locked ||= lock === "volume-san-vm-200-disk-0";
      return await real.lock(lock, bounds);
    },
    // What it is known by is looked for when it is let go of.
    files: {
      ...real.files,
      readText: async (path) => {
        if (locked && path.endsWith("/vm-200-disk-0.json")) await work();
        return await real.files.readText(path);
      },
    },
  };
  const was = await arrayState(place);
  assertEquals(await recoverOn(place, host), ["closed"]);
  assertEquals(await arrayState(place), was);
});

both("a snapshot that is being activated when its undoing is due stays readable", async (place) => {
  const volname = await place.alloc();
  const args = { volname, snapshot: "a" };
  await place.must("volume_snapshot", args);
  await kill(place, "activate_volume", args, { nth: lastWrite(place), when: "after" });
  const real = linuxHost({ root: place.directory });
  let activated: Promise<unknown> | undefined;
  const host: Host = {
    ...real,
    lock: async (lock, bounds) => {
      if (lock === `volume-san-${ZVOL}@a`) {
        activated ??= place.must("activate_volume", args);
        // It has the lock, and wants that of the entry.
        await until(async () => (await tryLock(real, lock)) === "held");
      }
      return await real.lock(lock, bounds);
    },
  };
  assertEquals(await recoverOn(place, host), ["waits"]);
  await activated;
  assertEquals([await openEntries(place), await recoverOn(place, real)], [[], []]);
  await contentOf(place, volname, 3, "a");
});

both(
  "a snapshot that was activated since its first reader was killed stays readable",
  async (place) => {
    const volname = await place.alloc();
    const args = { volname, snapshot: "a" };
    await place.must("volume_snapshot", args);
    await kill(place, "activate_volume", args, { nth: lastWrite(place), when: "after" });
    const [entry] = await openEntries(place);
    assert(entry !== undefined);
    // Notes the death, from when on it is another process that activates.
    const options = { settleMs: 1, seen: new Map() };
    await recoverAfterOthers(place, () => Promise.resolve(), options);
    const noted = await openEntries(place);
    await place.must("activate_volume", args);
    // As if it had been killed before it closed the entry.
    const file = `${place.directory}${JOURNAL_FOLDER}/${entry.id}.json`;
    await Deno.writeTextFile(file, JSON.stringify(noted[0]));
    const found = await recoverAfterOthers(place, () => Promise.resolve(), options);
    assertEquals([found, await openEntries(place)], [["closed"], []]);
    await contentOf(place, volname, 3, "a");
  },
);

async function tryLock(host: Host, lock: string): Promise<"free" | "held"> {
  try {
    (await host.lock(lock, { deadlineMs: 0 }))();
    return "free";
  } catch (error) {
    if (error instanceof LockError) return "held";
    throw error;
  }
}

/** Waits for a condition, ten seconds at most. */
async function until(isSo: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 10_000;
  while (!await isSo()) {
    assert(Date.now() < end);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

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
