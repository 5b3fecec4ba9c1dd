import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  formatPortal,
  isIpv4,
  isIpv6,
  parsePortal,
  parsePortals,
  samePortal,
} from "../../src/common/portal.ts";

Deno.test("portals are read with and without a port, IPv6 in brackets", () => {
  assertEquals(parsePortal("10.0.0.5", 3260, "o"), { address: "10.0.0.5", port: 3260 });
  assertEquals(parsePortal("[fd00::5]:4421", 4420, "o"), { address: "fd00::5", port: 4421 });
});

Deno.test("two spellings of one IPv6 portal are the same portal", () => {
  assert(samePortal({ address: "fd00::5", port: 1 }, { address: "fd00:0:0:0:0:0:0:5", port: 1 }));
  assertEquals(parsePortals(["[fd00::5]", "[fd00:0::0:5]"], 4420, "o").length, 1);
});

Deno.test("a portal is written as it is read", () => {
  for (const text of ["10.0.0.5:3260", "[fd00::5]:4420"]) {
    assertEquals(formatPortal(parsePortal(text, 1, "o")), text);
  }
});

for (
  const bad of [
    "",
    "10.0.0",
    "10.0.0.256",
    "fd00::5",
    "[10.0.0.5]",
    "10.0.0.5:0",
    "10.0.0.5:65536",
    "10.0.0.5:",
    "[fd00:::5]",
    "a.example",
  ]
) {
  Deno.test(`${JSON.stringify(bad)} is no portal`, () => {
    assertThrows(() => parsePortal(bad, 3260, "tnb-portals"), "tnb-portals");
  });
}

Deno.test("numeric addresses are told from names", () => {
  assert(
    isIpv4("192.0.2.1") && !isIpv4("192.0.2.01") && isIpv6("::1") && !isIpv6("::1::") &&
      !isIpv6("1:2:3"),
  );
});
