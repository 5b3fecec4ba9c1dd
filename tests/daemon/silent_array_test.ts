import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { DeafProxy } from "../support/deaf_proxy.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { daemonOn, eventually } from "./memory_support.ts";

for (const transport of TRANSPORTS) {
  const test = (name: string, run: () => Promise<void>) => Deno.test(`${transport}: ${name}`, run);

  test("a minute after the array's last word nothing is answered from memory, open as its line may be", async () => {
    await using place = await Place.start(transport, { volumes: 2 });
    await using proxy = await DeafProxy.start(place.simulator.ready.port);
    await using daemon = await daemonOn(place);
    const config = { "tnb-api-port": proxy.port };
    const status = async () => (await daemon.must("status", {}, { config })).active;
    const list = (deadlineMs: number) => daemon.ask("list_images", {}, { config, deadlineMs });
    assertEquals((await list(20_000)).result.length, 2);
    assertEquals(await status(), 1);

    proxy.fallSilent();
    await place.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });
    daemon.leap(35_000);
    assertEquals(await status(), 1);
    daemon.leap(26_000);
    assertEquals(await status(), 0);
    assertNotEquals((await list(500)).error, undefined);
    assertEquals(await status(), 0);

    proxy.recover();
    await eventually(async () => assertEquals((await list(20_000)).result?.length, 3));
    assertEquals(await status(), 1);
  });
}

Deno.test("the minute counts from the array's last word, not from when its line was found dead", async () => {
  await using place = await Place.start("nvme-tcp", { volumes: 1 });
  await using proxy = await DeafProxy.start(place.simulator.ready.port);
  await using daemon = await daemonOn(place);
  const config = { "tnb-api-port": proxy.port };
  const status = async () => (await daemon.must("status", {}, { config })).active;
  await daemon.must("list_images", {}, { config });
  proxy.fallSilent();
  daemon.leap(35_000);
  proxy.cut();
  await eventually(() => {
    assert(daemon.log.some((line) => line.includes("session with TrueNAS ended")));
    return Promise.resolve();
  });
  assertEquals(await status(), 1);
  daemon.leap(26_000);
  assertEquals(await status(), 0);
});
