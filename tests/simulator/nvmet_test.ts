/** NVMe-oF: namespaces under connected hosts, and what a zvol may be used for. */

import { assertEquals, assertRejects } from "@std/assert";
import { makeZvol, onStage, playedDataSide } from "./world.ts";

Deno.test("a namespace goes even while hosts are connected", async () => {
  let nqn = "";
  const dataSide = playedDataSide({
    sessions: () => ({
      iscsi: [],
      nvmet: [{ nqn, hostNqn: "nqn.host", address: "127.0.0.1", portAddress: "127.0.0.1" }],
    }),
  });
  await onStage({ dataSide }, async ({ simulator, client }) => {
    nqn = simulator.ready.subsystemNqn;
    const device_path = `zvol/${await makeZvol(client, "a")}`;
    const made = await client.call("nvmet.namespace.create", {
      subsys_id: 1,
      device_type: "ZVOL",
      device_path,
    });
    assertEquals(simulator.exports().nvmet.subsystems[0]?.namespaces[0]?.uuid, made.device_uuid);
    const [session] = await client.call("nvmet.global.sessions");
    assertEquals([session.hostnqn, session.subsys_id], ["nqn.host", 1]);
    assertEquals(await client.call("nvmet.namespace.delete", made.id), true);
    assertEquals(simulator.exports().nvmet.subsystems[0]?.namespaces, []);
  });
});

Deno.test("namespaces made at once without a number get different ones", async () => {
  await onStage({}, async ({ client, another }) => {
    const clients = [client, await another()];
    const paths = [await makeZvol(client, "a"), await makeZvol(client, "b")];
    const made = await Promise.all(
      clients.map((each, index) =>
        each.call("nvmet.namespace.create", {
          subsys_id: 1,
          device_type: "ZVOL",
          device_path: `zvol/${paths[index]}`,
        })
      ),
    );
    assertEquals(made.map(({ nsid }) => nsid).sort(), [1, 2]);
  });
});

Deno.test("a zvol is a LUN or a namespace, not both", async () => {
  await onStage({}, async ({ client }) => {
    const path = `zvol/${await makeZvol(client, "a")}`;
    await client.call("iscsi.extent.create", { name: "a", disk: path });
    await assertRejects(
      () =>
        client.call("nvmet.namespace.create", {
          subsys_id: 1,
          device_type: "ZVOL",
          device_path: path,
        }),
      "already used by iSCSI extent: a",
    );
  });
});
