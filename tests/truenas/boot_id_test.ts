import { assertEquals } from "@std/assert";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { readBootId } from "../../src/truenas/boot_id.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import type { Trust } from "../../src/truenas/socket.ts";
import { startScriptedArray } from "../support/scripted_array.ts";

async function read(address: string, trust: Trust): Promise<string | undefined> {
  return await readBootId({ address, trust, clock: systemClock, deadlineMs: 5_000 });
}

Deno.test("the boot id is read without a login from 25.10 on, and is another one after a boot", async () => {
  for (const release of ["25.04", "25.10", "26"] as const) {
    const array = await startSimulator({ release, empty: true });
    try {
      const { host, port, fingerprint } = array.ready;
      const trust = { kind: "fingerprint", sha256: fingerprint } as const;
      const first = await read(`${host}:${port}`, trust);
      assertEquals(first, release === "25.04" ? undefined : array.world.bootId);
      await (await array.goDown())();
      const second = await read(`${host}:${port}`, trust);
      assertEquals(second === first, release === "25.04");
      assertEquals(array.stats().logins, 0);
    } finally {
      await array.stop();
    }
  }
});

Deno.test("what cannot be had is unknown: no array, another array, no answer of that kind", async () => {
  const array = await startScriptedArray();
  const trust = { kind: "fingerprint", sha256: array.fingerprint } as const;
  const other = { kind: "fingerprint", sha256: "0".repeat(64) } as const;
  assertEquals(await read(array.address, other), undefined);
  await array.idle();
  await array.stop();
  assertEquals(await read(array.address, trust), undefined);
});
