import { assertEquals } from "@std/assert";
import * as tnblock from "../mod.ts";

Deno.test("the example of mod.ts lists the volumes of a simulated array", async () => {
  const { connectTrueNas, startSimulator, systemClock } = tnblock;
  const simulator = await startSimulator({ release: "25.10", volumes: 3 });
  const { host, port, user, apiKey, fingerprint, dataset } = simulator.ready;
  const nas = await connectTrueNas({
    addresses: [host],
    port,
    user,
    apiKey,
    clock: systemClock,
    trust: { kind: "fingerprint", sha256: fingerprint },
  });
  const { zvols } = await nas.zvols.list(dataset);
  nas.session.close();
  await simulator.stop();
  assertEquals(zvols.length > 0, true);
});

Deno.test("the example of scanBlockDevices runs on any machine", async () => {
  const { nvme, scsi } = await tnblock.scanBlockDevices("/");
  assertEquals([Array.isArray(nvme.disks), Array.isArray(scsi.sessions)], [true, true]);
});

Deno.test("both transports, the name codec and the schema are there", () => {
  for (
    const name of [
      "iscsiTransport",
      "nvmeTransport",
      "parseVolumeName",
      "formatVolumeName",
      "optionSchema",
      "parseSettings",
    ] as const
  ) {
    assertEquals([name, tnblock[name] !== undefined], [name, true]);
  }
});
