import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { runScan } from "../../src/cli/scan.ts";
import { formatBytes, renderTable } from "../../src/cli/table.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { withNode } from "../support/node_folder.ts";

async function printed(fixture: string | undefined, json: boolean): Promise<string> {
  return await withNode(fixture, async ({ host }) => {
    let text = "";
    assertEquals(await runScan(host, { json }, (part) => text += part), 0);
    return text;
  });
}

Deno.test("a machine without disks is told so", async () => {
  const text = await printed(undefined, false);
  assertEquals(
    text,
    "Nothing here: this machine has no NVMe/TCP connection and no iSCSI session\n",
  );
});

Deno.test("a map is one line with its paths", async () => {
  const lines = (await printed("iscsi-2portal-multipathd", false)).split("\n");
  const line = lines.find((each) => each.startsWith("/dev/dm-2 "));
  assertEquals(line?.split(/ {2,}/), [
    "/dev/dm-2",
    "3.0 GiB",
    "6589cfc000000e41f2a3b4c5d6e7f003",
    "lun 5",
    "iqn.2005-10.org.freenas.ctl:pve-storage",
    "sde running, sdf running",
  ]);
  assertEquals(lines.filter((each) => each.startsWith("/dev/")).length, 3);
});

Deno.test("hidden paths are not shown as disks, a lost path is", async () => {
  const text = await printed("nvme-multipath-one-path-down", false);
  assertEquals(text.split("\n").filter((line) => line.startsWith("/dev/nvme")).length, 3);
  assertStringIncludes(text, "nvme0 live, nvme1 connecting");
});

Deno.test("native multipath that is off is said", async () => {
  assertStringIncludes(await printed("nvme-multipath-off-2portal", false), "multipath is off");
  assert(!(await printed("nvme-multipath-2portal", false)).includes("multipath is off"));
});

Deno.test("the JSON has a version, every field, and sizes in bytes", async () => {
  const nvme = JSON.parse(await printed("nvme-multipath-2portal", true));
  assertEquals([nvme.schemaVersion, nvme.node, nvme.nvme.multipath], [1, "pve1", true]);
  const path = nvme.nvme.disks.find((disk: { kind: string }) => disk.kind === "path");
  assertEquals([path.node, path.device], [null, null]);
  const iscsi = JSON.parse(await printed("iscsi-2portal-multipathd", true));
  assertEquals(iscsi.iscsi.maps.map((map: { sizeBytes: number }) => map.sizeBytes), [
    1 * 2 ** 30,
    2 * 2 ** 30,
    3 * 2 ** 30,
  ]);
  assertEquals(JSON.parse(await printed(undefined, true)).iscsi.sessions, []);
});

Deno.test("no secret is printed", async () => {
  const text = await printed("nvme-two-subsystems", true) + await printed("iscsi-2portal", true);
  assert(!/dhchap|password|secret/i.test(text));
});

Deno.test("local NVMe disks are not shown", async () => {
  await withNode(undefined, async ({ host, write, link }) => {
    await write("/sys/class/nvme/nvme0/transport", "pcie\n");
    await write("/sys/class/nvme/nvme0/state", "live\n");
    await write("/sys/class/nvme/nvme0/cntlid", "1\n");
    await write("/sys/class/nvme/nvme0/subsysnqn", "nqn.local\n");
    await write("/sys/block/nvme0n1/nsid", "1\n");
    await write("/sys/block/nvme0n1/size", "2048\n");
    await link("/sys/block/nvme0n1/device", "../../class/nvme/nvme0");
    let text = "";
    await runScan(host, { json: false }, (part) => text += part);
    assertStringIncludes(text, "Nothing here");
  });
});

Deno.test("this machine can be scanned as it is", async () => {
  let text = "";
  assertEquals(await runScan(linuxHost(), { json: true }, (part) => text += part), 0);
  assertEquals(JSON.parse(text).schemaVersion, 1);
});

Deno.test("a table is aligned and prints no control characters", () => {
  assertEquals(
    renderTable(["A", "LONG"], [["cell", "x"], ["\x1b[31mred", ""]]),
    "A         LONG\ncell      x\n?[31mred\n",
  );
});

Deno.test("sizes are for people", () => {
  assertEquals([0, 1023, 1024, 1.5 * 2 ** 30, 2 ** 60 * 2000].map(formatBytes), [
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 GiB",
    "2000.0 EiB",
  ]);
});
