/** What the hook writes down for the shim: which features the array has for this storage's key. */
import { assertEquals, assertMatch } from "@std/assert";
import type { ReleaseName } from "../../src/simulator/simulator.ts";
import { NEEDED_ROLES } from "../../src/truenas/needed_roles.ts";
import { Place, type PlaceOptions, type TransportKind } from "../support/place.ts";

interface Note {
  readonly release: string;
  readonly checkedMs: number;
  readonly without: readonly string[];
}

const fileOf = (place: Place) => `${place.directory}/run/tnblock/san.features`;

async function noteOf(place: Place): Promise<Note> {
  return JSON.parse(await Deno.readTextFile(fileOf(place)));
}

async function change(place: Place, note: Partial<Note>): Promise<void> {
  await Deno.writeTextFile(fileOf(place), JSON.stringify({ ...await noteOf(place), ...note }));
}

/** How often the array was asked who we are. */
async function asked(place: Place): Promise<number> {
  const stats = await place.stats() as unknown as { calls: Record<string, number> };
  return stats.calls["auth.me"] ?? 0;
}

const BASIC = [
  "POOL_READ",
  "DATASET_READ",
  "DATASET_WRITE",
  "DATASET_DELETE",
  "SERVICE_READ",
  "SYSTEM_GENERAL_READ",
  "SHARING_ISCSI_EXTENT_READ",
  "SHARING_ISCSI_GLOBAL_READ",
  "SHARING_ISCSI_PORTAL_READ",
  "SHARING_ISCSI_TARGET_READ",
  "SHARING_ISCSI_TARGETEXTENT_READ",
  "SHARING_NVME_TARGET_READ",
  "ZFS_RESOURCE_READ",
];
const SNAPSHOTS = ["SNAPSHOT_READ", "SNAPSHOT_WRITE", "SNAPSHOT_DELETE"];
const NO_CLONES = ["clone-base", "clone-snap", "copy-snap"];
const NO_SNAPSHOTS = ["snapshot-current", "snapshot-snap"];

const CASES: readonly (readonly [
  string,
  TransportKind,
  ReleaseName,
  PlaceOptions["roles"],
  readonly string[],
])[] = [
  ["a full administrator of 26", "nvme-tcp", "26", undefined, []],
  ["a full administrator of 25.10", "iscsi", "25.10", undefined, []],
  ["the documented roles on 25.10.0", "nvme-tcp", "25.10.0", [...BASIC, ...SNAPSHOTS], []],
  ["the documented roles on 26", "iscsi", "26", [...BASIC, ...SNAPSHOTS], []],
  [
    "a key on 25.10 that may read snapshots only",
    "nvme-tcp",
    "25.10",
    [...BASIC, "SNAPSHOT_READ"],
    // DATASET_WRITE is enough for a clone, and the snapshot may be there.
    [...NO_SNAPSHOTS, "template-current"],
  ],
  [
    "a full administrator of 25.04",
    "iscsi",
    "25.04",
    undefined,
    ["rename-current", "template-current"],
  ],
  [
    "the documented roles on 25.04",
    "iscsi",
    "25.04",
    [...BASIC, ...SNAPSHOTS],
    [...NO_CLONES, "rename-current", ...NO_SNAPSHOTS, "template-current"],
  ],
];

for (const [name, transport, release, roles, without] of CASES) {
  Deno.test(`features of ${name}`, async () => {
    await using place = await Place.start(transport, {
      release,
      ...(roles === undefined ? {} : { roles }),
    });
    await place.must("list_images");
    assertEquals((await noteOf(place)).without, without);
    const { mode } = await Deno.stat(fileOf(place));
    assertEquals((mode ?? 0) & 0o777, 0o644);
  });
}

Deno.test("what a key may do is asked once, not with every request", async () => {
  await using place = await Place.start("nvme-tcp");
  for (let times = 0; times < 3; times++) await place.must("list_images");
  assertEquals(await asked(place), 1);
});

Deno.test("it is asked again after a day, for another release, and for another key", async () => {
  await using place = await Place.start("nvme-tcp");
  await place.must("list_images");
  await change(place, { checkedMs: Date.now() - 25 * 3600 * 1000 });
  await place.must("list_images");
  assertEquals(await asked(place), 2, "a day later");
  await change(place, { release: "25.10.0" });
  await place.must("list_images");
  assertEquals(await asked(place), 3, "another release");
  await change(place, { key: "other" } as Partial<Note>);
  await place.must("list_images");
  assertEquals(await asked(place), 4, "another key");
  await Deno.writeTextFile(fileOf(place), "{");
  await place.must("list_images");
  assertEquals(await asked(place), 5, "a file that is none");
});

Deno.test("it is asked again after a call was denied, whose error names the role", async () => {
  await using place = await Place.start("nvme-tcp", { roles: [...BASIC, ...SNAPSHOTS] });
  await place.must("list_images");
  const reply = await place.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  assertEquals(reply.error?.code, "denied");
  assertMatch(reply.error?.hint ?? "", /the role SHARING_NVME_TARGET_WRITE/);
  assertEquals((await noteOf(place)).checkedMs, 0);
  await place.must("list_images");
  assertEquals(await asked(place), 2);
});

Deno.test("a request succeeds although the array does not say who we are", async () => {
  await using place = await Place.start("nvme-tcp");
  await place.faults([{ method: "auth.me", nth: 1, do: "error", errno: 14 }]);
  await place.must("list_images");
  assertEquals(await Deno.stat(fileOf(place)).catch(() => "none"), "none");
});

Deno.test("a feature that goes is told in the log, once", async () => {
  await using place = await Place.start("iscsi", { release: "25.04" });
  await place.must("list_images");
  await change(place, { checkedMs: 0 });
  await place.must("list_images");
  const told = place.log.filter((line) => line.includes("is not offered it"));
  assertEquals(told.length, 1, place.log.join("\n"));
});

for (const folder of ["v25_04_2", "v25_10_0", "v26_0_0"]) {
  Deno.test(`the roles that we think a method needs are those of ${folder}`, async () => {
    const file = new URL(`../fixtures/truenas/schema/${folder}/index.json`, import.meta.url);
    const { methods } = JSON.parse(await Deno.readTextFile(file)) as {
      methods: Record<string, { roles: string[] }>;
    };
    for (const [method, roles] of Object.entries(NEEDED_ROLES)) {
      const declared = methods[method]?.roles;
      if (declared === undefined) continue;
      assertEquals([method, [...roles].sort()], [method, [...declared].sort()]);
    }
  });
}
