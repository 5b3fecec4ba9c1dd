import { assert, assertEquals, assertRejects } from "@std/assert";
import type { TnblockError } from "../../src/common/error.ts";
import type { TransportKind } from "../support/place.ts";
import { TRANSPORTS } from "../support/place.ts";
import { SetupPlace } from "./support.ts";

const OTHER = {
  "iscsi": "iqn.1993-08.org.debian:01:other",
  "nvme-tcp": "nqn.2014-08.org.nvmexpress:uuid:99999999-2222-3333-4444-555555555555",
} as const;

/** Closes the target or subsystem that is there: another host is on its list, and this node is not. */
async function close(there: SetupPlace): Promise<string> {
  const { ready } = there.place.simulator;
  await there.place.array(async ({ session }) => {
    if (there.transport === "nvme-tcp") {
      const fields = { hostnqn: OTHER["nvme-tcp"] };
      const host = await session.call("nvmet.host.create", [fields]) as { id: number };
      await session.call("nvmet.host_subsys.create", [{ host_id: host.id, subsys_id: 1 }]);
      await session.call("nvmet.subsys.update", [1, { allow_any_host: false }]);
      return;
    }
    const group = await session.call("iscsi.initiator.create", [{ initiators: [OTHER.iscsi] }]);
    const { id: initiator } = group as { id: number };
    const groups = [1, 2].map((portal) => ({ portal, initiator, authmethod: "NONE", auth: null }));
    await session.call("iscsi.target.update", [1, { groups }]);
  });
  return there.transport === "iscsi" ? ready.targetIqn : ready.subsystemNqn;
}

async function names(there: SetupPlace): Promise<string[]> {
  const objects = await there.objects();
  return there.transport === "iscsi"
    ? objects.initiator[0].initiators
    : objects.host.map((one: { hostnqn: string }) => one.hostnqn);
}

async function ownName(there: SetupPlace): Promise<string> {
  const path = there.transport === "iscsi" ? "/etc/iscsi/initiatorname.iscsi" : "/etc/nvme/hostnqn";
  return ((await there.read(path)) ?? "").trim().replace("InitiatorName=", "");
}

for (const transport of TRANSPORTS) {
  Deno.test(`a node is put on the list of what is there, after a yes (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const target = await close(there);
    await there.run(there.answers({ target, "allow-hosts": "yes" }));
    assertEquals(await names(there), [OTHER[transport], await ownName(there)]);
  });

  Deno.test(`it is taken off again when what follows fails (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const target = await close(there);
    const [objects, files] = [await there.objects(), await there.files()];
    await there.write("/stub/dd-fails", "");
    await assertRejects(() => there.run(there.answers({ target, "allow-hosts": "yes" })));
    assertEquals(await there.objects(), objects, there.told.join("\n"));
    assertEquals(await there.files(), files);
    assertEquals(await there.connections(), []);
  });

  Deno.test(`without that yes nothing is changed there (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const target = await close(there);
    const objects = await there.objects();
    // It is the administrator's to let the node in: until then the test volume cannot be attached.
    await assertRejects(() => there.run(there.answers({ target, "allow-hosts": "no" })));
    assertEquals(await there.objects(), objects);
  });
}

Deno.test("a target that asks for CHAP is used with its own secret", async () => {
  await using there = await SetupPlace.start("iscsi");
  await there.place.array(async ({ session }) => {
    await session.call("iscsi.auth.create", [{ tag: 5, user: "lab", secret: "secretsecret12" }]);
    const groups = [1, 2].map((portal) => ({
      ...{ portal, initiator: null, authmethod: "CHAP", auth: 5 },
    }));
    await session.call("iscsi.target.update", [1, { groups }]);
  });
  const target = there.place.simulator.ready.targetIqn;
  const missing = await assertRejects(() => there.run(there.answers({ target }))) as TnblockError;
  assert(missing.message.includes("asked: --secrets-file"), missing.message);
  const secrets = { "tnb-chap-user": "lab", "tnb-chap-password": "secretsecret12" };
  await there.write("/root/chap", JSON.stringify(secrets), 0o600);
  await there.run(there.answers({ target, "secrets-file": "/root/chap" }));
  const section = await there.read("/etc/pve/storage.cfg") ?? "";
  assert(section.includes("tnb-chap-user lab"), section);
  assert(!section.includes("secretsecret12"), section);
});

Deno.test("new secrets are not made for hosts that other subsystems know already", async () => {
  const transport: TransportKind = "nvme-tcp";
  await using there = await SetupPlace.start(transport);
  const nqn = await ownName(there);
  await there.place.array(({ session }) =>
    session.call("nvmet.host.create", [{ hostnqn: nqn }]).then(() => {})
  );
  const error = await assertRejects(() =>
    there.run(there.answers({ "proof": "one-way" }))
  ) as TnblockError;
  assertEquals([error.code, error.field], ["invalid", "--proof"]);
});
