/** Notes of what may still be destroyed: of which node, for how long, and under which file's name. */
import { assertEquals, assertRejects } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { doom, doomedNames, refuseDoomed, spare } from "../../src/volumes/doomed_names.ts";
import { openPlace } from "../support/mortal.ts";
import { Place } from "../support/place.ts";

const MINUTES = 60_000;
const CLUSTER = "/etc/pve/priv/tnblock/doomed/san";

/** A storage of the first node, and its place. */
async function opened() {
  const place = await Place.start("nvme-tcp");
  const storage = await openPlace(place);
  const { files } = linuxHost({ root: place.directory });
  return {
    storage,
    /** Writes another node's note, so many milliseconds old. */
    note: (name: string, ageMs: number) =>
      files.replaceText(
        `${CLUSTER}/${name}`,
        JSON.stringify({ sinceMs: Date.now() - ageMs, node: "pve2" }),
        0o600,
      ),
    notes: async () => [...await files.list(CLUSTER) ?? []],
    [Symbol.asyncDispose]: async () => {
      await storage.close();
      await place[Symbol.asyncDispose]();
    },
  };
}

Deno.test("a node takes no note of another one away before an hour has passed", async () => {
  await using of = await opened();
  await of.note("vm-1-disk-0", 14 * MINUTES);
  await of.note("vm-1-disk-1", 59 * MINUTES);
  await of.note("vm-1-disk-2", 61 * MINUTES);
  assertEquals([...await doomedNames(of.storage)], ["vm-1-disk-0"]);
  for (const number of [0, 1, 2]) await spare(of.storage, `vm-1-disk-${number}`);
  assertEquals(await of.notes(), ["vm-1-disk-0", "vm-1-disk-1"]);
});

Deno.test("whose answer was lost as well is told of another node's call", async () => {
  await using of = await opened();
  await of.note("vm-1-disk-0", 0);
  assertEquals(await doom(of.storage, "vm-1-disk-0"), true);
  assertEquals(await doom(of.storage, "vm-1-disk-0"), false);
  assertEquals(await doom(of.storage, "vm-1-disk-1"), false);
  await spare(of.storage, "vm-1-disk-1");
  assertEquals(await of.notes(), ["vm-1-disk-0"]);
});

Deno.test("a name that is too long for a file is kept too", async () => {
  await using of = await opened();
  const name = `vm-1-${"x".repeat(200)}@${"y".repeat(40)}`;
  await doom(of.storage, name);
  await assertRejects(
    () => refuseDoomed(of.storage, name, "take the snapshot"),
    "may still be about to",
  );
  await refuseDoomed(of.storage, `${name}y`, "take the snapshot");
  await spare(of.storage, name);
  await refuseDoomed(of.storage, name, "take the snapshot");
});
