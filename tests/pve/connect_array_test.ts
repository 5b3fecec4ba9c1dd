import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { lineLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { connectArray } from "../../src/pve/connect_array.ts";
import { drawLogin, LoginsUsedUp } from "../../src/pve/login_budget.ts";
import { all as allExtents } from "../../src/truenas/extents.ts";
import { Place } from "../support/place.ts";

for (const transport of ["ws", "rest"] as const) {
  Deno.test(`${transport}: those who come together share one session, also after it was lost`, async () => {
    await using place = await Place.start("iscsi", { volumes: 3 });
    const { ready } = place.simulator;
    const host = linuxHost({ root: place.directory });
    const connection = connectArray("san", {
      transport,
      hosts: [ready.host],
      port: ready.port,
      user: ready.user,
      key: ready.apiKey,
      tls: { kind: "fingerprint", sha256: ready.fingerprint },
      retryMax: 3,
      retryDelayMs: 100,
    }, {
      host,
      log: lineLog(() => {}, () => 0),
      limitLogins: false,
    }, new Deadline(host, 30_000));
    const sessions = () => place.simulator.stats().calls["system.version"];
    const [caller] = await Promise.all([1, 2, 3].map(() => connection.open()));
    assert(caller !== undefined);
    assertEquals(sessions(), 1);
    place.simulator.cutConnections();
    const all = await Promise.all([1, 2, 3].map(() => allExtents(caller)));
    assertEquals(all.map((extents) => extents.length), [3, 3, 3]);
    // REST needs no other session for another connection.
    assertEquals(sessions(), transport === "ws" ? 2 : 1);
    await connection.close();
  });
}

Deno.test("without a login left nobody connects: the array sees nothing of the one that is refused", async () => {
  await using place = await Place.start("iscsi");
  const { ready } = place.simulator;
  const host = linuxHost({ root: place.directory });
  const api = {
    transport: "ws",
    hosts: [ready.host],
    port: ready.port,
    user: ready.user,
    key: ready.apiKey,
    tls: { kind: "fingerprint", sha256: ready.fingerprint },
    retryMax: 3,
    retryDelayMs: 100,
  } as const;
  const open = async () => {
    const world = { host, log: lineLog(() => {}, () => 0), limitLogins: true };
    const connection = connectArray("san", api, world, new Deadline(host, 30_000));
    await connection.open().finally(() => connection.close());
  };
  const { connections } = place.simulator.stats();
  await open();
  for (let login = 1; login < 15; login++) {
    await drawLogin(host, `${ready.host}:${ready.port}`, { deadlineMs: 10_000 });
  }
  assertInstanceOf(await assertRejects(open), LoginsUsedUp);
  assertEquals(place.simulator.stats().connections, connections + 1);
});
