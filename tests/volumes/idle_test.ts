/** Letting go of what seems to be idle, at the moment when somebody else wants it. */
import { assert, assertEquals } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { silentLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { openStorage } from "../../src/pve/open_storage.ts";
import { letGoIdle } from "../../src/volumes/idle.ts";
import type { Storage } from "../../src/volumes/storage.ts";
import type { Place } from "../support/place.ts";
import { both } from "./life_support.ts";

const ZVOL = "vm-100-disk-0";

async function opened(place: Place, change: Record<string, unknown> = {}): Promise<Storage> {
  const host = linuxHost({ root: place.directory });
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
  const request = { storage: "san", config: place.config(change), node: "pve1" };
  return await openStorage(request, world, new Deadline(host, 30_000));
}

const isLinked = (place: Place, name: string) =>
  Deno.lstat(`${place.directory}/dev/tnblock/san/${name}`).then(() => true, () => false);

both("whoever wants a disk before it is let go of keeps it", async (place) => {
  await place.must("activate_volume", { volname: await place.alloc() });
  const storage = await opened(place);
  assertEquals(await letGoIdle(storage, ZVOL, () => Promise.resolve(true)), false);
  assertEquals(await isLinked(place, ZVOL), true);
  assertEquals(await letGoIdle(storage, ZVOL, () => Promise.resolve(false)), true);
  assertEquals(await isLinked(place, ZVOL), false);
  assertEquals(await letGoIdle(storage, ZVOL, () => Promise.resolve(false)), false);
});

both(
  "while an operation on the volume is under way nobody is asked, and nothing waits",
  async (place) => {
    await place.must("activate_volume", { volname: await place.alloc() });
    const storage = await opened(place);
    const release = await storage.host.lock(`volume-san-${ZVOL}`, { deadlineMs: 1_000 });
    const asked: string[] = [];
    const start = performance.now();
    const isGone = await letGoIdle(storage, ZVOL, () => {
      asked.push(ZVOL);
      return Promise.resolve(false);
    });
    release();
    assertEquals([isGone, asked, await isLinked(place, ZVOL)], [false, [], true]);
    assert(performance.now() - start < 5_000);
  },
);

both("with the API away a snapshot that is read stays, with its clone", async (place) => {
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  await place.must("activate_volume", { volname, snapshot: "before" });
  const storage = await opened(place, { "tnb-api-host": "127.0.0.1", "tnb-api-port": 1 });
  const name = `${ZVOL}@before`;
  const failed = await letGoIdle(storage, name, () => Promise.resolve(false)).then(
    () => "",
    String,
  );
  assert(failed.includes("127.0.0.1:1"), failed);
  assertEquals(await isLinked(place, name), true);
});
