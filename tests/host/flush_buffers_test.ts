import { assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { flushBuffers } from "../../src/host/flush_buffers.ts";
import { type Host, HostError } from "../../src/host/host.ts";
import { withNode } from "../support/node_folder.ts";

async function failureOf(run: Host["run"]): Promise<TnblockError> {
  return await withNode(undefined, async (node) => {
    const error = await assertRejects(() => flushBuffers({ ...node.host, run }, "/dev/dm-0"));
    assertInstanceOf(error, TnblockError);
    return error;
  });
}

Deno.test("buffers are flushed by blockdev, which is told the node and nothing else", async () => {
  await withNode(undefined, async (node) => {
    const runs: string[][] = [];
    const run: Host["run"] = (program, args) => {
      runs.push([program, ...args]);
      return Promise.resolve({ status: 0, stdout: "", stderr: "" });
    };
    await flushBuffers({ ...node.host, run }, "/dev/dm-0");
    assertEquals(runs, [["/usr/sbin/blockdev", "--flushbufs", "/dev/dm-0"]]);
  });
});

Deno.test("what blockdev says is in the error", async () => {
  const stderr = "blockdev: cannot open /dev/dm-0: No such device or address\n";
  const error = await failureOf(() => Promise.resolve({ status: 1, stdout: "", stderr }));
  assertEquals(error.code, "host-fault");
  assertStringIncludes(error.message, "No such device or address");
});

Deno.test("a node without blockdev is told what to install, and a slow one times out", async () => {
  const missing = await failureOf(() => Promise.reject(new HostError("ENOENT", "none")));
  assertStringIncludes(missing.hint ?? "", "util-linux");
  const late = await failureOf(() => Promise.reject(new HostError("ETIMEDOUT", "no end")));
  assertEquals(late.code, "timeout");
});
