import { assertEquals } from "@std/assert";
import { contractTable } from "../../scripts/contract_table.ts";

Deno.test("the contract's table is read out of the names of what ran", () => {
  const passed = (name: string) => ({ name, passed: true });
  const failed = (name: string) => ({ name, passed: false });
  assertEquals(
    contractTable([
      passed("something else"),
      passed("contract: alloc_image, iscsi 25.04"),
      passed("contract: alloc_image, iscsi 25.04 > first call"),
      passed("contract: create_base, iscsi 25.04: refused (it renames nothing)"),
      failed("contract: alloc_image, nvme-tcp 26"),
      passed("contract: alloc_image, nvme-tcp 26 > first call"),
      failed("contract: alloc_image, nvme-tcp 26 > lost reply"),
    ]),
    [
      "contract suite:",
      "               iscsi 25.04  nvme-tcp 26",
      "  alloc_image  ok           FAILED",
      "  create_base  refused      -",
      "  refused, because it renames nothing: create_base",
      "  FAILED: alloc_image, nvme-tcp 26: lost reply",
    ],
  );
});

Deno.test("a run without the contract suite prints no table", () => {
  assertEquals(contractTable([{ name: "something else", passed: true }]), []);
});
