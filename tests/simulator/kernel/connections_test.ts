import { assertEquals } from "@std/assert";
import { establishedConnections } from "../../../src/simulator/kernel/connections.ts";

Deno.test("establishedConnections() reads both ends of what is connected, and nothing that listens", () => {
  // In the shape of proc_net_tcp(5): a listener on 10.99.0.1:4420, and one host's connection to it.
  const text =
    `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100630A:1144 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4661 1
   1: 0100630A:1144 0200630A:B2C4 01 00000000:00000000 02:000004E2 00000000     0        0 0 3
`;
  assertEquals(establishedConnections(text), [
    { local: "10.99.0.1", localPort: 4420, peer: "10.99.0.2" },
  ]);
});
