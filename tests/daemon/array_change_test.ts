import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { startDaemon } from "../../src/daemon/daemon.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { Place, type Reply } from "../support/place.ts";

/** Runs a daemon over a place; `ask` goes through its socket. */
async function withDaemon(
  place: Place,
  run: (ask: (method: string, args?: Record<string, unknown>) => Promise<Reply>) => Promise<void>,
): Promise<void> {
  const host = linuxHost({ root: place.directory });
  const daemon = await startDaemon({
    host,
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: true,
  });
  try {
    await run(async (method, args = {}) => {
      const request = place.request(method, args, { deadlineMs: 30_000 });
      const text = await host.askLocal(DAEMON_SOCKET, `${JSON.stringify(request)}\n`, {
        deadlineMs: 60_000,
        maxLine: 1 << 20,
      });
      return JSON.parse(text);
    });
  } finally {
    await daemon.stop();
  }
}

Deno.test("one daemon goes on while the array reboots, is updated to 26, and loses its memory of us", async () => {
  await using place = await Place.start("iscsi", { release: "25.10" });
  const { simulator } = place;
  await withDaemon(place, async (ask) => {
    const alloc = async (vmid: number) => {
      const args = { vmid, format: "raw", name: null, sizeKiB: 65536 };
      const { ok, result, error } = await ask("alloc_image", args);
      assert(ok, error?.message);
      return result as string;
    };
    const made = [await alloc(100)];
    assertEquals((await ask("activate_volume", { volname: made[0] })).ok, true);
    await (await simulator.goDown())();
    made.push(await alloc(101));
    simulator.expireSessions();
    made.push(await alloc(102));
    const up = await simulator.goDown();
    // The disk is known, and the API is not needed for it.
    assertEquals((await ask("activate_volume", { volname: made[0] })).ok, true);
    await up("26");
    made.push(await alloc(103));
    assertEquals((await ask("deactivate_volume", { volname: made[0] })).ok, true);
    for (const volname of made) {
      const { ok, error } = await ask("free_image", { volname, isBase: false, finish: true });
      assert(ok, error?.message);
    }
    assertEquals((await place.objects())["zvols"]?.length, 0);
    assertStringIncludes(place.log.join("\n"), "connected to TrueNAS 26");
  });
  assertEquals(place.log.join("\n").includes(simulator.ready.apiKey), false);
});
