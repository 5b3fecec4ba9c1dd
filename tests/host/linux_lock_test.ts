import { spawn } from "node:child_process";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
} from "@std/assert";
import { HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { withNode } from "../support/node_folder.ts";

const LONG = { deadlineMs: 30_000 };

Deno.test("a second lock of a name waits for the first, in the same process too", async () => {
  await withNode(undefined, async ({ host }) => {
    const order: string[] = [];
    const release = await host.lock("a", LONG);
    const second = host.lock("a", LONG).then((releaseSecond) => {
      order.push("second");
      releaseSecond();
    });
    // Another name is free at once.
    (await host.lock("b", LONG))();
    order.push("first gives back");
    release();
    await second;
    assertEquals(order, ["first gives back", "second"]);
  });
});

Deno.test("many waiters all get it, one at a time", async () => {
  await withNode(undefined, async ({ host }) => {
    let inside = 0;
    let most = 0;
    await Promise.all(Array.from({ length: 12 }, async () => {
      const release = await host.lock("crowd", LONG);
      inside += 1;
      most = Math.max(most, inside);
      await host.wait(1);
      inside -= 1;
      release();
    }));
    assertEquals(most, 1);
  });
});

Deno.test("a lock that is not given back in time is ETIMEDOUT", async () => {
  await withNode(undefined, async ({ host }) => {
    const release = await host.lock("a", LONG);
    const error = await assertRejects(() => host.lock("a", { deadlineMs: 50 }));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ETIMEDOUT");
    release();
  });
});

Deno.test("waiting for a lock can be given up", async () => {
  await withNode(undefined, async ({ host }) => {
    const release = await host.lock("a", LONG);
    const controller = new AbortController();
    const waiting = host.lock("a", { ...LONG, signal: controller.signal });
    controller.abort(new Error("given up"));
    await assertRejects(() => waiting, "given up");
    release();
  });
});

Deno.test("the lock of a process that is killed is free again", async () => {
  await withNode(undefined, async ({ host, directory }) => {
    const module = new URL("../../src/host/linux.ts", import.meta.url).href;
    const script = `
      const { linuxHost } = await import(${JSON.stringify(module)});
      await linuxHost({ root: ${JSON.stringify(directory)} }).lock("a", { deadlineMs: 5000 });
      console.log("held");
      setInterval(() => {}, 1000);`;
    const child = spawn(process.execPath, ["eval", "--no-lock", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await assertRejects(() => host.lock("a", { deadlineMs: 50 }), "held");
    const waiting = host.lock("a", LONG);
    child.kill("SIGKILL");
    (await waiting)();
    await new Promise((resolve) => child.once("close", resolve));
  });
});

Deno.test("a held lock does not keep a process alive", async () => {
  await withNode(undefined, async ({ directory }) => {
    const module = new URL("../../src/host/linux.ts", import.meta.url).href;
    const script = `
      const { linuxHost } = await import(${JSON.stringify(module)});
      await linuxHost({ root: ${JSON.stringify(directory)} }).lock("a", { deadlineMs: 5000 });`;
    const child = spawn(process.execPath, ["eval", "--no-lock", script], { stdio: "ignore" });
    const end = await new Promise((resolve) => child.once("close", resolve));
    assertEquals(end, 0);
  });
});

Deno.test("locks of two nodes do not meet, and names cannot be guessed", async () => {
  await withNode(undefined, async (one) => {
    await withNode(undefined, async (two) => {
      const releaseOne = await one.host.lock("a", LONG);
      const releaseTwo = await two.host.lock("a", { deadlineMs: 1_000 });
      const tokens = await Promise.all(
        [one, two].map(({ host }) => host.files.readText("/run/tnblock/lock-token")),
      );
      assertEquals(tokens.map((token) => token?.length), [64, 64]);
      assertNotEquals(tokens[0], tokens[1]);
      const { mode } = await stat(join(one.directory, "run/tnblock/lock-token"));
      assertEquals(mode & 0o777, 0o600);
      releaseOne();
      releaseTwo();
    });
  });
});

Deno.test("processes that make the token at once agree on it", async () => {
  await withNode(undefined, async ({ directory }) => {
    const hosts = Array.from({ length: 8 }, () => linuxHost({ root: directory }));
    let inside = 0;
    await Promise.all(hosts.map(async (host) => {
      const release = await host.lock("a", LONG);
      inside += 1;
      assert(inside === 1);
      await host.wait(1);
      inside -= 1;
      release();
    }));
    assertEquals(await hosts[0]?.files.list("/run/tnblock"), ["lock-token"]);
  });
});
