/** What the simulator starts with: the ready line, the portals, volumes, and the command around it. */

import { assert, assertEquals, assertMatch } from "@std/assert";
import { Buffer } from "node:buffer";
import { connect } from "node:net";
import { runSimulate } from "../../src/cli/simulate.ts";
import type { ReadyLine } from "../../src/simulator/simulator.ts";
import { onStage } from "./world.ts";

/** Connects, sends, and resolves with the first bytes that come, or with none on connect alone. */
function probe(portal: string, send?: Uint8Array): Promise<string> {
  const [host = "", port = ""] = portal.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), host, () => {
      if (send === undefined) {
        socket.destroy();
        resolve("connected");
      } else socket.write(send);
    });
    socket.on("error", reject);
    socket.on("data", (data: Uint8Array) => {
      socket.destroy();
      resolve(`${data.length} ${Buffer.from(data.subarray(0, 8)).toString("hex")}`);
    });
  });
}

Deno.test("the portals listen, and NVMe/TCP ones answer a probe", async () => {
  await onStage({}, async ({ simulator }) => {
    const { iscsi, nvme } = simulator.ready.portals;
    assertEquals([iscsi.length, nvme.length], [2, 2]);
    assertEquals(new Set(iscsi.map((portal) => portal.split(":")[1])).size, 1);
    for (const portal of iscsi) assertEquals(await probe(portal), "connected");
    const request = new Uint8Array(128);
    request.set([0x00, 0x00, 0x80, 0x00, 0x80]);
    for (const portal of nvme) assertEquals(await probe(portal, request), "128 0100800080000000");
  });
});

Deno.test("volumes come exported and carry the marks of storage san", async () => {
  const clusterId = "11111111-2222-4333-8444-555555555555";
  await onStage({ volumes: 905, clusterId }, async ({ simulator, client }) => {
    const { iscsi, nvmet } = simulator.exports();
    assertEquals(iscsi.targets[0]?.luns.length, 905);
    assertEquals(nvmet.subsystems[0]?.namespaces.length, 900);
    const path = "tank/pve/vm-100-disk-0";
    const query = { paths: [path], get_user_properties: true };
    const [volume] = await client.call("zfs.resource.query", query);
    const { "tnblock:op": operation, ...marks } = volume.user_properties;
    assertMatch(operation, /^[0-9a-f-]{36}$/);
    assertEquals(marks, {
      "tnblock:schema": "1",
      "tnblock:cluster": clusterId,
      "tnblock:storage": "san",
      "tnblock:volume": path,
    });
  });
});

Deno.test("given portals are shown and not opened", async () => {
  const network = {
    iscsiPortals: ["192.0.2.1"],
    nvmePorts: [{ address: "192.0.2.1", port: 4420 }],
  };
  await onStage({ network }, ({ simulator }) => {
    const { iscsi, nvme } = simulator.ready.portals;
    assertEquals([iscsi, nvme], [["192.0.2.1:3260"], ["192.0.2.1:4420"]]);
    return Promise.resolve();
  });
});

Deno.test("an empty world has a pool and users and nothing else", async () => {
  await onStage({ empty: true }, ({ simulator }) => {
    const { datasets, zvols, targets, subsystems } = simulator.objects();
    assertEquals(datasets.map(({ name }) => name), ["tank"]);
    assertEquals([zvols, targets, subsystems], [[], [], []]);
    assertEquals(Object.keys(simulator.ready.users ?? {}), ["truenas_admin", "limited"]);
    return Promise.resolve();
  });
});

Deno.test("simulate prints one line, waits, and ends well", async () => {
  const lines: string[] = [];
  let stop = () => {};
  const untilStopped = new Promise<void>((resolve) => stop = resolve);
  const printed = new Promise<void>((resolve) => {
    const print = (line: string) => {
      lines.push(line);
      resolve();
    };
    runSimulate({}, { print, untilStopped }).then((status) => lines.push(String(status)));
  });
  await printed;
  const ready: ReadyLine = JSON.parse(lines[0] ?? "");
  assert(ready.port > 0 && ready.apiKey.length > 60);
  assertEquals((await fetch(`${ready.control}/stats`)).status, 200);
  stop();
  while (lines.length < 2) await new Promise((resolve) => setImmediate(resolve));
  assertEquals(lines[1], "0");
});
