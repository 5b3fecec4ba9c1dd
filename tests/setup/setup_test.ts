import { assert, assertEquals, assertRejects } from "@std/assert";
import { TRANSPORTS } from "../support/place.ts";
import { SetupPlace } from "./support.ts";

for (const transport of TRANSPORTS) {
  Deno.test(`answers alone set up a storage, and a disk lives on it (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    await there.run(there.answers());
    const section = await there.read("/etc/pve/storage.cfg") ?? "";
    assert(section.includes("tnblock: san"), section);
    assert(there.told.includes("  freed"), there.told.join("\n"));
    const secrets = JSON.parse(await there.read("/etc/pve/priv/storage/san.tnblock") ?? "");
    assertEquals(secrets, { "tnb-api-key": there.place.simulator.ready.apiKey });
    const { zvols } = await there.place.objects();
    assertEquals(zvols, []);
  });
}

Deno.test("a session that was lost while the plan was read is opened again", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers(), {
    decide: async ({ draft, carryOut }) => {
      there.place.simulator.cutConnections();
      await draft.session.closed;
      await carryOut();
    },
  });
  assert((await there.read("/etc/pve/storage.cfg"))?.includes("tnblock: san"));
});

Deno.test("what a former storage of that name left as secrets is put back when it fails", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const path = "/etc/pve/priv/storage/san.tnblock";
  await there.write(path, '{"tnb-api-key":"1-old"}', 0o600);
  await there.write("/stub/pvesm-fails", "");
  await assertRejects(() => there.run(there.answers()), "everything is as it was");
  assertEquals(await there.read(path), '{"tnb-api-key":"1-old"}');
});
