import { assert, assertEquals, assertRejects } from "@std/assert";
import { Cancelled } from "../../src/common/asking.ts";
import { TnblockError } from "../../src/common/error.ts";
import type { TransportKind } from "../support/place.ts";
import { SetupPlace } from "./support.ts";

/** What is written on the array, in the order of the plans. */
const WRITES: Readonly<Record<TransportKind, readonly string[]>> = {
  "iscsi": [
    ...["pool.dataset.create", "iscsi.initiator.create", "iscsi.auth.create"],
    ...["iscsi.target.create", "iscsi.extent.create"],
  ],
  "nvme-tcp": [
    ...["pool.dataset.create", "nvmet.subsys.create", "nvmet.port_subsys.create"],
    ...["nvmet.host.create", "nvmet.host_subsys.create", "nvmet.namespace.create"],
  ],
};

/** Everything is made: dataset, target or subsystem, hosts, secrets. */
const answersFor = (there: SetupPlace) =>
  there.answers({ "dataset": "tank/new", "proof": "mutual" });

async function unchangedBy(
  there: SetupPlace,
  work: () => Promise<void>,
  errors: abstract new (...args: never[]) => Error = TnblockError,
): Promise<Error> {
  const objects = await there.objects();
  const files = await there.files();
  const error = await assertRejects(work) as Error;
  assert(error instanceof errors, error.stack);
  await there.place.faults([]);
  const left = await there.objects();
  assertEquals(left, objects, there.told.join("\n"));
  assertEquals(await there.files(), files);
  assertEquals(await there.connections(), []);
  return error;
}

for (const transport of ["iscsi", "nvme-tcp"] as const) {
  for (const way of ["error", "done-then-drop"] as const) {
    Deno.test(`a step on the array that fails (${way}) undoes all before it (${transport})`, async () => {
      await using there = await SetupPlace.start(transport);
      const methods = WRITES[transport].filter((method) =>
        // What a lost answer did is found; volumes have their own tests of that.
        way === "error" || !/extent|namespace/.test(method)
      );
      for (const method of methods) {
        there.told.length = 0;
        // The first extent is the weight, whose failure is a warning: the second is the test volume's.
        const nth = method === "iscsi.extent.create" ? 2 : 1;
        const faults: Record<string, unknown>[] = [{ method, nth, do: way, errno: 14 }];
        // A lost answer is looked for and found; only the next failure undoes it.
        if (way === "done-then-drop") await there.write("/stub/pvesm-fails", "");
        await there.place.faults(faults);
        await unchangedBy(there, () => there.run(answersFor(there)));
      }
    });
  }

  Deno.test(`pvesm add that fails leaves nothing (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    await there.write("/stub/pvesm-fails", "");
    const error = await unchangedBy(there, () => there.run(answersFor(there)));
    assert(error.message.includes("planted: pvesm add failed"), error.message);
    assert(error.message.endsWith("everything is as it was"), error.message);
  });

  Deno.test(`a test volume that cannot be written takes the storage away again (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    await there.write("/stub/dd-fails", "");
    const error = await unchangedBy(there, () => there.run(answersFor(there)));
    assert(error.message.includes("planted: dd failed"), error.message);
  });

  Deno.test(`into a dataset and target that are there, a failure leaves both as they were (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const { ready } = there.place.simulator;
    const target = transport === "iscsi" ? ready.targetIqn : ready.subsystemNqn;
    await there.write("/stub/dd-fails", "");
    await unchangedBy(there, () => there.run(there.answers({ target })));
  });

  Deno.test(`leaving while it is done undoes what was done (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const leaving = new AbortController();
    const world = there.world({
      signal: leaving.signal,
      tell: (line) => {
        there.told.push(line);
        if (line.startsWith("Write the secrets")) leaving.abort();
      },
    });
    await unchangedBy(there, () => there.run(answersFor(there), { world }), Cancelled);
    assertEquals(there.told.at(-1), "Everything is as it was.");
  });
}

Deno.test("what a guest has come to use meanwhile stays, and is named", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.write("/stub/dd-fails", "");
  const world = there.world({
    tell: (line) => {
      if (!line.startsWith("Try it")) return;
      const path = `${there.directory}/etc/pve/nodes/pve1/qemu-server/100.conf`;
      Deno.writeTextFileSync(path, "scsi0: san:vol-vm-100-disk-0-lun1\n");
    },
  });
  const error = await assertRejects(() => there.run(answersFor(there), { world })) as TnblockError;
  assert(error.message.includes("left: "), error.message);
  assert((await there.read("/etc/pve/storage.cfg"))?.includes("tnblock: san"));
  assertEquals(
    Object.keys(await there.files()).includes("/etc/pve/priv/storage/san.tnblock"),
    true,
  );
});
