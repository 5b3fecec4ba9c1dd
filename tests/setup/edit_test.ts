import { assert, assertEquals, assertRejects } from "@std/assert";
import type { TnblockError } from "../../src/common/error.ts";
import type { Answers } from "../../src/setup/answers.ts";
import { prepareEdit } from "../../src/setup/edit.ts";
import { prepareRemoval } from "../../src/setup/remove.ts";
import { nobody, Scripted, SetupPlace } from "./support.ts";

async function edit(there: SetupPlace, given: Answers): Promise<void> {
  const asking = { asker: nobody, isTerminal: false, given };
  await prepareEdit(there.world(), "san", asking, ({ carryOut }) => carryOut());
}

const section = async (there: SetupPlace) =>
  (await there.read("/etc/pve/storage.cfg") ?? "").split("\n").map((line) => line.trim());

Deno.test("what may be changed of a storage is changed by the same answers", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  const [first = ""] = there.place.simulator.ready.portals.nvme;
  await edit(there, { "thin": "no", "zvol-blocksize": "64K", "portals": first });
  const lines = await section(there);
  for (const line of ["tnb-sparse 0", "tnb-zvol-blocksize 64K", `tnb-portals ${first}`]) {
    assert(lines.includes(line), lines.join("\n"));
  }
});

Deno.test("another key goes into the file of secrets, and nowhere else", async () => {
  await using there = await SetupPlace.start("iscsi");
  await there.run(there.answers({ "proof": "one-way" }));
  const before = JSON.parse(await there.read("/etc/pve/priv/storage/san.tnblock") ?? "");
  await there.write(
    "/etc/pve/priv/storage/san.tnblock",
    JSON.stringify({ ...before, "tnb-api-key": `7-${"x".repeat(64)}` }),
    0o600,
  );
  await edit(there, { "api-key-file": "/root/key" });
  assertEquals(JSON.parse(await there.read("/etc/pve/priv/storage/san.tnblock") ?? ""), before);
});

Deno.test("what is fixed is refused, and what is so already changes nothing", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  const files = await there.files();
  const error = await assertRejects(() => edit(there, { "dataset": "tank/other" })) as TnblockError;
  assertEquals([error.code, error.field], ["invalid", "--dataset"]);
  await edit(there, { "thin": "yes" });
  assertEquals(await there.files(), files);
});

Deno.test("a change that the plugin refuses leaves the storage as it was", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  const files = await there.files();
  await there.place.faults([{ method: "nvmet.subsys.query", nth: 1, do: "error", errno: 14 }]);
  await assertRejects(() => edit(there, { "thin": "no" }), "everything is as it was");
  assertEquals(await there.files(), files);
});

Deno.test("in a terminal it is asked what to change, and nothing else", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  const asker = new Scripted({ "--edit": [["thin"]], "--thin": [false] });
  const asking = { asker, isTerminal: true, given: {} };
  await prepareEdit(there.world(), "san", asking, ({ carryOut }) => carryOut());
  assertEquals(asker.asked, ["--edit", "--thin"]);
  assert((await section(there)).includes("tnb-sparse 0"));
});

Deno.test("a storage goes, and the array keeps all that is on it", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  const objects = await there.objects();
  const { carryOut } = await prepareRemoval(there.world(), "san");
  await carryOut();
  assert(!(await section(there)).includes("tnblock: san"));
  assertEquals(await there.read("/etc/pve/priv/storage/san.tnblock"), undefined);
  assertEquals(await there.objects(), objects);
  // What it had is still its own: the same name brings it back.
  const [made] = objects.subsystems.filter((one: { name: string }) => one.name === "lab");
  await there.run(there.answers({ "target": made.subnqn }));
});

Deno.test("a storage that a guest names stays", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.run(there.answers());
  await there.write(
    "/etc/pve/nodes/pve2/qemu-server/100.conf",
    "memory: 512\n[snap]\nscsi0: san:vol-vm-100-disk-0-ns00000000-0000-0000-0000-000000000000\n",
  );
  const error = await assertRejects(() => prepareRemoval(there.world(), "san")) as TnblockError;
  assertEquals(error.code, "in-use");
  assert((await section(there)).includes("tnblock: san"));
});
