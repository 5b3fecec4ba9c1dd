/** What the PVE side keeps on the node: logins, the cluster's id, secrets. */
import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { clusterId } from "../../src/pve/cluster_id.ts";
import {
  drawLogin,
  lockedForMs,
  LoginsUsedUp,
  noteLockOut,
  refill,
} from "../../src/pve/login_budget.ts";
import { readSecrets } from "../../src/pve/secrets.ts";

const BOUNDS = { deadlineMs: 10_000 };

/** A node in an empty folder, with a clock that stands still. */
async function onNode(
  run: (host: Host & { clock: number }, folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-node-files-" });
  try {
    const node = { ...linuxHost({ root: folder }), clock: 1_800_000_000_000 };
    await run(Object.assign(node, { now: () => node.clock }), folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("fifteen logins may come at once, the sixteenth is told when the next is free", async () => {
  await onNode(async (host) => {
    for (let login = 0; login < 15; login++) await drawLogin(host, "array:443", BOUNDS);
    const error = await assertRejects(() => drawLogin(host, "array:443", BOUNDS));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "rate-limited");
    assertMatch(error.message, /free in 12 s/);
  });
});

Deno.test("one login is free again after twelve seconds", async () => {
  await onNode(async (host) => {
    for (let login = 0; login < 15; login++) await drawLogin(host, "array:443", BOUNDS);
    host.clock += 12_000;
    await drawLogin(host, "array:443", BOUNDS);
    await assertRejects(() => drawLogin(host, "array:443", BOUNDS), "used up");
  });
});

Deno.test("in no minute more logins are made than TrueNAS allows, however often somebody tries", async () => {
  await onNode(async (host) => {
    const made: number[] = [];
    for (let tried = 0; tried < 400; tried++, host.clock += 300) {
      await drawLogin(host, "array:443", BOUNDS).then(() => made.push(host.clock), () => {});
    }
    const most = Math.max(
      ...made.map((start) => made.filter((at) => at >= start && at < start + 60_000).length),
    );
    // `max_calls` and `max_period` of middlewared/utils/rate_limit/cache.py.
    assert(most <= 20, `${most} logins within a minute`);
  });
});

Deno.test("another array has a budget of its own", async () => {
  await onNode(async (host) => {
    for (let login = 0; login < 15; login++) await drawLogin(host, "array:443", BOUNDS);
    await drawLogin(host, "other:443", BOUNDS);
  });
});

Deno.test("a lock-out by the array is waited out by all processes of the node, at that array", async () => {
  await onNode(async (host) => {
    await noteLockOut(host, "array:443", BOUNDS);
    host.clock += 20_000;
    const error = await assertRejects(() => drawLogin(host, "array:443", BOUNDS));
    assertInstanceOf(error, LoginsUsedUp);
    assertEquals([error.code, error.allowedInMs], ["rate-limited", 40_000]);
    await drawLogin(host, "other:443", BOUNDS);
    host.clock += 40_000;
    await drawLogin(host, "array:443", BOUNDS);
  });
});

Deno.test("a clock that was set back does not freeze the budget, nor a lock-out", () => {
  assertEquals(refill({ left: 3, at: 1000 }, 0), { left: 3, at: 0 });
  assertEquals(lockedForMs(3_600_000, 0), 0);
  assertEquals([lockedForMs(undefined, 0), lockedForMs(0, 59_000)], [0, 1_000]);
});

Deno.test("the cluster's id is made once and kept", async () => {
  await onNode(async (host, folder) => {
    const made = await clusterId(host, BOUNDS);
    assertEquals(await clusterId(host, BOUNDS), made);
    const { mode } = await Deno.stat(`${folder}/etc/pve/priv/tnblock/cluster-id`);
    assertEquals((mode ?? 0) & 0o777, 0o600);
  });
});

Deno.test("several processes that need the cluster's id at once get the same", async () => {
  await onNode(async (host) => {
    const ids = await Promise.all(Array.from({ length: 5 }, () => clusterId(host, BOUNDS)));
    assertEquals(new Set(ids).size, 1);
  });
});

Deno.test("a damaged cluster id is an error, never a new one", async () => {
  await onNode(async (host, folder) => {
    await Deno.mkdir(`${folder}/etc/pve/priv/tnblock`, { recursive: true });
    await Deno.writeTextFile(`${folder}/etc/pve/priv/tnblock/cluster-id`, "nonsense\n");
    const error = await assertRejects(() => clusterId(host, BOUNDS));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
  });
});

Deno.test("a damaged secrets file is told without a piece of it", async () => {
  await onNode(async (host, folder) => {
    await Deno.mkdir(`${folder}/etc/pve/priv/storage`, { recursive: true });
    await Deno.writeTextFile(
      `${folder}/etc/pve/priv/storage/san.tnblock`,
      '{"tnb-api-key":"1-SECRET',
    );
    const error = await assertRejects(() => readSecrets(host.files, "san"));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "config");
    assert(!JSON.stringify([error.message, error.hint, String(error.cause)]).includes("SECRET"));
  });
});

Deno.test("no secrets file is no secrets", async () => {
  await onNode(async (host) => {
    assertEquals(await readSecrets(host.files, "san"), {});
  });
});
