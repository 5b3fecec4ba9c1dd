import { assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import fc from "fast-check";
import { TnblockError } from "../../src/common/error.ts";
import { formatVolumeName, ownerOf, parseVolumeName } from "../../src/pve/volume_name.ts";

const UUID = "3f2b7c1e-0d4a-4b5c-8e6f-9a0b1c2d3e4f";

Deno.test("a LUN name gives zvol, guest and number", () => {
  const name = parseVolumeName("vol-vm-100-disk-0-lun7");
  assertEquals(name, {
    zvol: "vm-100-disk-0",
    vmid: 100,
    tag: { kind: "lun", lun: 7 },
    isBase: false,
    base: undefined,
  });
});

Deno.test("a namespace name gives its uuid", () => {
  assertEquals(parseVolumeName(`vol-vm-100-disk-0-ns${UUID}`).tag, {
    kind: "namespace",
    uuid: UUID,
  });
});

Deno.test("a name that looks like a LUN inside the zvol keeps it", () => {
  assertEquals(parseVolumeName("vol-vm-9-state-lun3-lun4").zvol, "vm-9-state-lun3");
});

Deno.test("a linked clone gives its base", () => {
  const name = parseVolumeName("vol-base-9-disk-0-lun1/vol-vm-100-disk-0-lun2");
  assertEquals(name.base?.zvol, "base-9-disk-0");
  assertEquals(name.zvol, "vm-100-disk-0");
});

Deno.test("cloud-init volumes carry no number", () => {
  assertEquals(parseVolumeName("vm-100-cloudinit").tag, undefined);
});

for (
  const bad of [
    "",
    "vm-100-disk-0",
    "vol-vm-100-disk-0",
    "vol-vm-100-disk-0-lun",
    "vol-vm-100-disk-0-lun07",
    "vol-vm-100-disk-0-lun16383",
    "vol-vm-0-disk-0-lun1",
    "vol-other-lun1",
    "vol-vm-100-../x-lun1",
    "vol-vm-100-a b-lun1",
    `vol-vm-100-disk-0-ns${UUID.toUpperCase()}`,
    "a/b/c",
    "vol-vm-1-disk-0-lun1/vol-vm-2-disk-0-lun2",
    "vol-vm-100-disk-0-lun1\n",
    `vol-vm-100-${"a".repeat(62)}-lun1`,
    // A target's weight, of whatever age, is no guest's.
    "tnb-weight-3ff7c74c",
    "vol-tnb-weight-3ff7c74c-lun0",
    "pve-plugin-weight",
    "vol-pve-weight-pve-3ff7c74c-lun0",
  ]
) {
  Deno.test(`${JSON.stringify(bad)} is no volume name`, () => {
    const error = assertThrows(() => parseVolumeName(bad));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "invalid");
  });
}

Deno.test("the longest names that Proxmox VE makes are read", () => {
  const zvol = `vm-999999999-state-${"s".repeat(40)}`;
  assertEquals(parseVolumeName(`vol-${zvol}-lun16382`).zvol, zvol);
  const most = `vm-999999999-${"a".repeat(61)}`;
  assertEquals(parseVolumeName(`vol-${most}-ns${UUID}`).zvol, most);
});

Deno.test("what is written is read back the same", () => {
  const volume = fc.record({
    vmid: fc.integer({ min: 1, max: 999_999_999 }),
    rest: fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9:_.-]{0,30}$/),
    tag: fc.oneof(
      fc.record({ kind: fc.constant("lun" as const), lun: fc.integer({ min: 0, max: 16382 }) }),
      fc.record({ kind: fc.constant("namespace" as const), uuid: fc.uuid() }),
    ),
  });
  fc.assert(fc.property(volume, ({ vmid, rest, tag }) => {
    const zvol = `vm-${vmid}-${rest}`;
    const read = parseVolumeName(formatVolumeName({ zvol, tag }));
    assertEquals({ zvol: read.zvol, tag: read.tag, vmid: read.vmid }, {
      zvol,
      tag: { ...tag },
      vmid,
    });
  }));
});

Deno.test("a zvol of another naming has no owner", () => {
  assertEquals(ownerOf("photos"), undefined);
  assertEquals(ownerOf("vm-12-disk-3"), 12);
});
