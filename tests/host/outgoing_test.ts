import { assertEquals } from "@std/assert";
import { chooseInterface, outgoing, parseRoutes, parseRoutes6 } from "../../src/host/outgoing.ts";
import { withNode } from "../support/node_folder.ts";

const FOUR = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
vmbr0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
ens19\t0014000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
ens20\t0000000A\t00000000\t0001\t0\t0\t50\t000000FF\t0\t0\t0
ens21\t0000000A\t00000000\t0001\t0\t0\t10\t000000FF\t0\t0\t0
*\t0016000A\t00000000\t0201\t0\t0\t0\t00FFFFFF\t0\t0\t0
down0\t0015000A\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
`;
const NONE = "0".repeat(32);
const SIX =
  `fd000000000000000000000000000000 40 ${NONE} 00 ${NONE} 00000100 00000001 00000000 00000001    ens19
${NONE} 00 ${NONE} 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003    vmbr0
`;

for (
  const [address, name] of [
    ["10.0.20.11", "ens19"],
    ["10.9.9.9", "ens21"],
    ["10.0.21.11", "ens21"],
    ["10.0.22.11", "ens21"],
    ["192.0.2.7", "vmbr0"],
    ["127.0.0.1", "lo"],
    ["fd00::11", "ens19"],
    ["2001:db8::1", "vmbr0"],
  ] as const
) {
  Deno.test(`${address} is reached through ${name}`, () => {
    const routes = [...parseRoutes(FOUR), ...parseRoutes6(SIX)];
    assertEquals(chooseInterface(routes, address), name);
  });
}

Deno.test("an address without a route has no interface", () => {
  assertEquals(chooseInterface(parseRoutes(FOUR), "fd00::1"), undefined);
});

Deno.test("the speed of an interface is told in bytes a second, where it has one", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/proc/net/route", FOUR);
    await write("/sys/class/net/ens19/speed", "25000\n");
    await write("/sys/class/net/vmbr0/speed", "-1\n");

    assertEquals(await outgoing(host.files, ["10.0.20.11", "192.0.2.7", "10.9.9.9", "fd00::1"]), [
      { name: "ens19", bytesPerSecond: 3_125_000_000 },
      { name: "vmbr0", bytesPerSecond: undefined },
      { name: "ens21", bytesPerSecond: undefined },
      undefined,
    ]);
  });
});
