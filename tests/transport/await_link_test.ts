import { assertEquals } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import type { Host } from "../../src/host/host.ts";
import { awaitLink } from "../../src/transport/await_link.ts";

Deno.test("a link that comes to lead to a map while it is waited for is the disk's all the same", async () => {
  let now = 0;
  let looks = 0;
  const host = {
    monotonicMs: () => now,
    wait: (ms: number) => Promise.resolve(void (now += ms)),
    // udev has made no link yet when multipathd takes the path: the link is the map's from the first.
    files: { resolve: () => Promise.resolve(looks > 2 ? "/dev/dm-0" : undefined) },
  } as unknown as Host;
  const nodes = () => Promise.resolve(++looks > 2 ? "/dev/dm-0" : ["/dev/sda"]);
  const link = "/dev/disk/by-id/wwn-0x6589cfc000000aaa";
  assertEquals(await awaitLink(host, link, nodes, new Deadline(host, 20_000)), "/dev/dm-0");
});
