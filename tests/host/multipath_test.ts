import { assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { type Host, HostError } from "../../src/host/host.ts";
import {
  addMap,
  addPath,
  disableQueueing,
  enableQueueing,
  removeMap,
  removePath,
  resizeMap,
} from "../../src/host/multipath.ts";
import { withNode } from "../support/node_folder.ts";

const NAA = "6589cfc000000e41f2a3b4c5d6e7f003";
const map = { mapName: `3${NAA}` };

async function asking(
  answer: { status: number; stdout: string },
  work: (host: Host) => Promise<void>,
): Promise<{ runs: string[][]; error: unknown }> {
  return await withNode(undefined, async (node) => {
    const runs: string[][] = [];
    const host: Host = {
      ...node.host,
      run(program, args) {
        runs.push([program, ...args]);
        return Promise.resolve({ ...answer, stderr: "" });
      },
    };
    const error = await work(host).then(() => undefined, (reason) => reason);
    return { runs, error };
  });
}

Deno.test("multipathd is asked in its own words", async () => {
  const ok = { status: 0, stdout: "ok\n" };
  const asked = [
    [addMap, NAA, ["add", "map", `3${NAA}`]],
    [addPath, "sda", ["add", "path", "sda"]],
    [removePath, "sda", ["del", "path", "sda"]],
    [resizeMap, map, ["resize", "map", `3${NAA}`]],
    [disableQueueing, map, ["disablequeueing", "map", `3${NAA}`]],
    [removeMap, map, ["remove", "map", `3${NAA}`]],
  ] as const;
  for (const [ask, subject, words] of asked) {
    const { runs, error } = await asking(ok, (host) => ask(host, subject as never));
    assertEquals([runs, error], [[["/usr/sbin/multipathd", ...words]], undefined]);
  }
});

Deno.test("a busy map is in use, and nothing else is", async () => {
  const busy = await asking(
    { status: 1, stdout: "map or partition in use\n" },
    (host) => removeMap(host, map),
  );
  assertInstanceOf(busy.error, TnblockError);
  assertEquals(busy.error.code, "in-use");
  for (const answer of [{ status: 1, stdout: "fail\n" }, { status: 0, stdout: "fail\n" }]) {
    const { error } = await asking(answer, (host) => removeMap(host, map));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
    assertStringIncludes(error.message, "multipathd says fail");
  }
});

Deno.test("a node without multipathd is told what to install", async () => {
  await withNode(undefined, async ({ host }) => {
    const error = await assertRejects(() => addMap(host, NAA));
    assertInstanceOf(error, TnblockError);
    assertStringIncludes(error.hint ?? "", "apt install multipath-tools");
  });
});

Deno.test("queueing is enabled in the kernel, whatever multipath.conf says", async () => {
  const done = await asking({ status: 0, stdout: "" }, (host) => enableQueueing(host, map));
  const message = ["/usr/sbin/dmsetup", "message", map.mapName, "0", "queue_if_no_path"];
  assertEquals([done.runs, done.error], [[message], undefined]);
  const refused = await asking({ status: 1, stdout: "" }, (host) => enableQueueing(host, map));
  assertInstanceOf(refused.error, TnblockError);
  assertEquals(refused.error.code, "host-fault");
  assertStringIncludes(refused.error.message, "dmsetup says status 1");
});

Deno.test("a node without dmsetup is left as it is", async () => {
  await withNode(undefined, async ({ host }) => {
    await enableQueueing(host, map);
    const late = { ...host, run: () => Promise.reject(new HostError("ETIMEDOUT", "no end")) };
    const error = await assertRejects(() => enableQueueing(late, map));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "timeout");
  });
});
