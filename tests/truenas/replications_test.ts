import { assert, assertEquals, assertRejects } from "@std/assert";
import { ArrayError } from "../../src/truenas/errors.ts";
import * as connected from "../../src/truenas/connected.ts";
import * as replications from "../../src/truenas/replications.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

const TASK = {
  ...{ id: 1, name: "nightly", direction: "PUSH", transport: "SSH", recursive: true },
  ...{ source_datasets: ["tank/pve"], target_dataset: "backup/pve", exclude: ["tank/pve/tmp"] },
  ...{ enabled: true, state: { state: "RUNNING" }, encryption_key: "secret" },
};

for (const release of ["25.04", "25.10", "26"] as const) {
  Deno.test(`replication tasks are read from ${release}, each end where it is`, async () => {
    await using place = await Place.start("iscsi", { release });
    place.simulator.world.replications.push(
      TASK,
      { ...TASK, id: 2, direction: "PULL", state: { state: "PENDING" } },
      { ...TASK, id: 3, transport: "LOCAL", state: null },
    );
    const rows = await place.array(({ session }) => replications.all(session));
    assertEquals(rows.map(({ sends, receives, isRunning }) => [sends, receives, isRunning]), [
      [["tank/pve"], undefined, true],
      [[], "backup/pve", false],
      [["tank/pve"], "backup/pve", false],
    ]);
  });
}

Deno.test("without its role the tasks are not told", async () => {
  await using place = await Place.start("iscsi", { roles: ["DATASET_WRITE"] });
  const error = await assertRejects(() => place.array(({ session }) => replications.all(session)));
  assert(error instanceof ArrayError && error.code === "denied", String(error));
});

Deno.test("a task concerns what it sends, and what it receives into", () => {
  const task = {
    ...{ id: 1, name: "t", sends: ["tank/pve"], receives: "tank/in", recursive: true },
    ...{ exclude: ["tank/pve/out"], isRunning: false },
  };
  for (
    const [dataset, recursive, expected] of [
      ["tank/pve", false, true],
      ["tank/pve/vm-1", false, false],
      ["tank/pve/vm-1", true, true],
      ["tank/pve2", true, false],
      ["tank/pve/out", true, false],
      ["tank/pve/out/x", true, false],
      ["tank/in/x", false, true],
      ["tank", true, false],
    ] as const
  ) assertEquals(replications.concerns({ ...task, recursive }, dataset), expected, dataset);
});

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: who is connected is told by name, each once`, async () => {
    await using place = await Place.start(transport);
    const { targetIqn } = place.simulator.ready;
    const read = () =>
      place.array(({ session }) =>
        transport === "iscsi"
          ? connected.initiatorsOf(session, targetIqn)
          : connected.hostsOf(session, 1)
      );
    assertEquals(await read(), []);
    await place.must("activate_volume", { volname: await place.alloc() });
    const file = transport === "iscsi" ? "iscsi/initiatorname.iscsi" : "nvme/hostnqn";
    const text = await Deno.readTextFile(`${place.directory}/etc/${file}`);
    const names = await read();
    assertEquals(names.length, 1);
    assert(text.includes(names[0] ?? "-"), text);
  });
}
