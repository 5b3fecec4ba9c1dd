import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { lookAtLvm } from "../../src/install/lvm_facts.ts";
import {
  decideFilter,
  parseFilter,
  passes,
  REJECTED,
  withoutBlock,
} from "../../src/install/lvm_filter.ts";
import { parseSections } from "../../src/install/storage_sections.ts";
import { withInstallNode } from "./support.ts";

/** pve-manager, debian/postinst. */
const PVE = ["r|/dev/zd.*|", "r|/dev/rbd.*|", "r|/dev/nbd.*|"];
const BY_ID = "/dev/disk/by-id";

function written(
  base: readonly string[] | undefined,
  local?: string,
  own: readonly string[] = [],
): { filter: readonly string[]; text: string } {
  const decision = decideFilter(base, local, own);
  assert(decision.kind === "write", JSON.stringify(decision));
  return decision;
}

Deno.test("the filter of Proxmox VE stays, as a whole and in its order", () => {
  assertEquals(written(PVE).filter, [...REJECTED, ...PVE]);
  assertEquals(written(undefined).filter, REJECTED);
});

for (
  const [what, names, isScanned] of [
    ["an NVMe disk of TrueNAS", ["/dev/nvme1n1", `${BY_ID}/nvme-TrueNAS_0c3a_1`], false],
    ["one of certified hardware", ["/dev/nvme1n1", `${BY_ID}/nvme-TRUENAS-M50_0c3a_1`], false],
    ["its partition", ["/dev/nvme1n1p2", `${BY_ID}/nvme-TrueNAS_X_0c3a_1-part2`], false],
    ["an iSCSI path", ["/dev/sdq", `${BY_ID}/wwn-0x6589cfc000000aa`], false],
    ["a map", ["/dev/dm-3", "/dev/mapper/mpatha", `${BY_ID}/dm-uuid-mpath-36589cfc0aa`], false],
    ["its partition", ["/dev/dm-4", `${BY_ID}/dm-uuid-part1-mpath-36589cfc0aa`], false],
    ["a zvol of the node", ["/dev/zd16"], false],
    ["the node's NVMe disk", ["/dev/nvme0n1", `${BY_ID}/nvme-Samsung_SSD_980_1`], true],
    ["the node's SATA disk", ["/dev/sda3", `${BY_ID}/wwn-0x5002538d41a2-part3`], true],
    ["another array's map", ["/dev/dm-9", `${BY_ID}/dm-uuid-mpath-3600a0980`], true],
  ] as const
) {
  Deno.test(`LVM ${isScanned ? "still scans" : "keeps off"} ${what} (${names.at(-1)})`, () => {
    assertEquals(passes(written(PVE).filter, names), isScanned);
  });
}

Deno.test("a disk of TrueNAS that carries the node's own volume group is still scanned", () => {
  const { filter } = written(PVE, "", ["wwn-0x6589cfc00000011"]);
  assert(passes(filter, ["/dev/sdb", `${BY_ID}/wwn-0x6589cfc00000011`]));
  assert(!passes(filter, ["/dev/sdc", `${BY_ID}/wwn-0x6589cfc000000112`]));
});

Deno.test("the part in lvmlocal.conf is written anew, and what stands around it stays", () => {
  const before = 'local {\n    system_id = "x"\n}\n';
  const once = written(PVE, before).text;
  assert(once.startsWith(before), once);
  const twice = written([...PVE, "r|/dev/md.*|"], `${once}# mine\n`).text;
  assertStringIncludes(twice, "# mine\n");
  assertStringIncludes(twice, `"r|/dev/md.*|"`);
  assertEquals(twice.match(/# BEGIN tnblock/g)?.length, 1);
  assertEquals(withoutBlock(once), before);
});

Deno.test("a disk that is the node's own stays so while it is away", () => {
  const text = written(PVE, "", ["wwn-0x6589cfc00000011"]).text;
  assertStringIncludes(written(PVE, text).text, "a|^/dev/disk/by-id/wwn-0x6589cfc00000011$|");
});

Deno.test("a filter that keeps off everything else needs nothing of ours", () => {
  assertEquals(decideFilter(["a|^/dev/sda3$|", "r|.*|"], "", []).kind, "already");
});

Deno.test("a filter that accepts every disk by name is not to be outdone, and is named", () => {
  const decision = decideFilter(["r|/dev/zd.*|", "a|.*|"], "", []);
  assert(decision.kind === "impossible", decision.kind);
  assertStringIncludes(decision.why, "a|.*|");
});

Deno.test("a pattern that cannot be read is left alone", () => {
  for (const odd of ["x|a|", "r|a", "r", "r|(|"]) {
    assertEquals(decideFilter([odd], "", []).kind, "impossible", odd);
  }
});

Deno.test("what lvmconfig prints is read", () => {
  assertEquals(parseFilter('global_filter=["r|/dev/zd.*|","a/x\\"\\\\y/"]\n'), [
    ...["r|/dev/zd.*|", 'a/x"\\y/'],
  ]);
  assertEquals(parseFilter('global_filter="r|/dev/zd.*|"\n'), ["r|/dev/zd.*|"]);
  assertEquals(parseFilter(""), undefined);
});

const SECTIONS = parseSections("lvm: shared\n\tvgname vmdata\n\tshared 1\n");
const report = (kind: "pv" | "lv", rows: readonly Record<string, string>[]) =>
  JSON.stringify({ report: [{ [kind]: rows }] });

Deno.test("volume groups that storage.cfg names, or that are open here, are the node's own", async () => {
  await withInstallNode(async (node) => {
    for (const [disk, name] of [["sdb", "11"], ["sdc", "22"], ["sdd", "33"]]) {
      await node.write(`/dev/${disk}`, "");
      await node.host().files.makeDirectory(BY_ID, 0o755);
      await node.host().files.replaceLink(`${BY_ID}/wwn-0x6589cfc0000000${name}`, `/dev/${disk}`);
    }
    await node.write(
      "/stub/pvs",
      report("pv", [
        { pv_name: "/dev/sdb", vg_name: "vmdata" },
        { pv_name: "/dev/sdc", vg_name: "mounted" },
        { pv_name: "/dev/sdd", vg_name: "of-a-guest" },
      ]),
    );
    await node.write(
      "/stub/lvs",
      report("lv", [
        { vg_name: "mounted", lv_device_open: "open" },
        { vg_name: "of-a-guest", lv_device_open: "" },
      ]),
    );
    const decision = await lookAtLvm(node.host(), SECTIONS);
    assert(decision?.kind === "write", JSON.stringify(decision));
    assertEquals(decision.filter.slice(0, 3), [
      "a|^/dev/disk/by-id/wwn-0x6589cfc000000011$|",
      "a|^/dev/disk/by-id/wwn-0x6589cfc000000022$|",
      REJECTED[0],
    ]);
  });
});

Deno.test("where LVM cannot say what is the node's own, its filter is left alone", async () => {
  await withInstallNode(async (node) => {
    await node.plant("pvs*");
    const decision = await lookAtLvm(node.host(), SECTIONS);
    assert(decision?.kind === "impossible", JSON.stringify(decision));
    assertStringIncludes(decision.why, "which volume groups are the node's own");
  });
});

Deno.test("with its devices file LVM needs no filter; without LVM there is none", async () => {
  await withInstallNode(async (node) => {
    await node.write("/etc/lvm/devices/system.devices", "");
    assertEquals((await lookAtLvm(node.host(), []))?.kind, "already");
    await node.remove("/usr/sbin/lvmconfig");
    assertEquals(await lookAtLvm(node.host(), []), undefined);
  });
});

Deno.test("what LVM does not read as it is meant is not written", async () => {
  await withInstallNode(async (node) => {
    // It reads lvm.conf only.
    await node.write(
      "/usr/sbin/lvmconfig",
      `#!/bin/sh\necho 'global_filter=["r|/dev/zd.*|"]'\n`,
      0o755,
    );
    const decision = await lookAtLvm(node.host(), []);
    assert(decision?.kind === "impossible", JSON.stringify(decision));
  });
});
