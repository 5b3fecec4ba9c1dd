import { assert, assertEquals } from "@std/assert";
import { systemClock } from "../../src/truenas/clock.ts";
import { readArrayTime } from "../../src/truenas/array_time.ts";
import * as initiators from "../../src/truenas/initiators.ts";
import { Place } from "../support/place.ts";

for (const release of ["25.04", "25.10", "26"] as const) {
  Deno.test(`groups of initiators are read from ${release}`, async () => {
    await using place = await Place.start("iscsi", { release });
    await place.array(async ({ session }) => {
      assertEquals(await initiators.all(session), []);
      const group = { initiators: ["iqn.1993-08.org.debian:01:ab"], comment: "pve" };
      await session.call("iscsi.initiator.create", [group], { lane: "write" });
      await session.call("iscsi.initiator.create", [{ initiators: [] }], { lane: "write" });
      assertEquals(await initiators.all(session), [
        { id: 1, comment: "pve", names: ["iqn.1993-08.org.debian:01:ab"] },
        { id: 2, comment: "", names: [] },
      ]);
    });
  });

  Deno.test(`the array's clock is read from ${release} without a login`, async () => {
    await using place = await Place.start("iscsi", { release });
    const { host, port, fingerprint } = place.simulator.ready;
    const time = await readArrayTime({
      address: `${host}:${port}`,
      trust: { kind: "fingerprint", sha256: fingerprint },
      clock: systemClock,
      deadlineMs: 5_000,
    });
    assert(time !== undefined && Math.abs(time - Date.now()) < 5_000, String(time));
    assertEquals((await place.stats()).logins, 0);
  });
}

Deno.test("the clock of an array that is not trusted or not there is not known", async () => {
  await using place = await Place.start("iscsi");
  const { host, port } = place.simulator.ready;
  const trust = { kind: "fingerprint", sha256: "ab".repeat(32) } as const;
  for (const address of [`${host}:${port}`, `${host}:1`]) {
    const options = { address, trust, clock: systemClock, deadlineMs: 5_000 };
    assertEquals(await readArrayTime(options), undefined);
  }
});
