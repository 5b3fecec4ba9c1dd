/** What is read of the cluster's configuration and of the tasks of a node. */
import { assert, assertEquals } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { disksNamed, lockOf, readReferences, zvolsNamed } from "../../src/orphans/references.ts";
import { parseFacts, parseQuestion, questionText } from "../../src/orphans/node_facts.ts";
import { runningTasks } from "../../src/pve/running_tasks.ts";
import { idsSharing } from "../../src/orphans/storages_of.ts";
import { scratchBase } from "../support/scratch.ts";

async function withFiles(
  files: Readonly<Record<string, string>>,
  run: (host: ReturnType<typeof linuxHost>, root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir({ dir: scratchBase(), prefix: "tnblock-orphans-" });
  try {
    for (const [path, text] of Object.entries(files)) {
      await Deno.mkdir(`${root}${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
      await Deno.writeTextFile(`${root}${path}`, text);
    }
    await run(linuxHost({ root }), root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const UUID = "0a1b2c3d-0000-4000-8000-00000000000f";

for (
  const [what, text, zvols] of [
    ["a disk", "scsi0: san:vol-vm-1-disk-0-lun5,size=1G", ["vm-1-disk-0"]],
    ["a namespace", `rootfs: san:vol-vm-1-disk-0-ns${UUID}`, ["vm-1-disk-0"]],
    ["a linked clone, both parts", "scsi0: san:vol-base-1-disk-0-lun1/vol-vm-2-disk-0-lun2", [
      "base-1-disk-0",
      "vm-2-disk-0",
    ]],
    ["a cloud-init disk", "ide2: san:vm-1-cloudinit,media=cdrom", ["vm-1-cloudinit"]],
    ["a value with its key", "scsi0: file=san:vol-vm-1-disk-0-lun5", ["vm-1-disk-0"]],
    ["several in a list", "fleecing-images: san:vol-vm-1-a-lun1;san:vol-vm-1-b-lun2", [
      "vm-1-a",
      "vm-1-b",
    ]],
    ["a name that looks like a tag", "scsi0: san:vol-vm-1-x-lun3-lun4", ["vm-1-x-lun3"]],
    ["the former id", "scsi0: old.id:vol-vm-1-disk-0-lun5", ["vm-1-disk-0"]],
    ["the path of a link", "args: -drive file=/dev/tnblock/san/vm-1-disk-0@x,if=none", [
      "vm-1-disk-0",
    ]],
    ["another storage", "scsi0: san2:vol-vm-1-disk-0-lun5\nscsi1: my-san:vol-vm-1-disk-0-lun5", []],
    ["an id with other signs", "scsi0: oldxid:vol-vm-1-disk-0-lun5", []],
  ] as const
) {
  Deno.test(`${what} is read from a configuration as it must be`, () => {
    assertEquals([...zvolsNamed(text, ["san", "old.id"])].sort(), [...zvols]);
  });
}

Deno.test("a disk is known by its identity in any path", () => {
  const naa = "6589cfc000000123456789abcdef0123";
  for (const path of [`wwn-0x${naa}`, `scsi-3${naa}`, `dm-uuid-mpath-3${naa.toUpperCase()}`]) {
    assert(disksNamed(`scsi0: /dev/disk/by-id/${path},size=1G`).has(naa), path);
  }
  assert(disksNamed(`scsi0: /dev/disk/by-id/nvme-uuid.${UUID}`).has(UUID));
});

Deno.test("guests of all nodes are read, with their locks; without pmxcfs nothing is known", async () => {
  await withFiles({
    "/etc/pve/nodes/pve1/qemu-server/100.conf":
      "lock: migrate\nscsi0: san:vol-vm-100-disk-0-lun1\n",
    "/etc/pve/nodes/gone/lxc/101.conf":
      "rootfs: san:vol-vm-101-disk-0-lun2\n[s1]\nrootfs: san:vol-vm-101-disk-0-lun2\n",
    "/etc/pve/nodes/pve1/qemu-server/notes.txt": "san:vol-vm-7-disk-0-lun1\n",
    "/etc/pve/storage.cfg": "lvm: onit\n\tbase san:vol-vm-3-disk-0-lun9\n",
  }, async (host) => {
    const references = await readReferences(host, ["san"]);
    assertEquals([...references.byZvol].sort(), [
      ["vm-100-disk-0", ["VM 100 on pve1"]],
      ["vm-101-disk-0", ["container 101 on gone"]],
      ["vm-3-disk-0", ["/etc/pve/storage.cfg"]],
    ]);
    assertEquals(lockOf(references, "vm-100-disk-7"), "migrate");
    assertEquals([lockOf(references, "vm-101-disk-0"), references.unread], [undefined, []]);
  });
  await withFiles({}, async (host) => {
    assertEquals((await readReferences(host, ["san"])).unread, ["/etc/pve/nodes (not there)"]);
  });
  await withFiles({ "/etc/pve/nodes/pve1/lxc/100.conf/x": "" }, async (host) => {
    const { unread } = await readReferences(host, ["san"]);
    assertEquals(unread.length, 1);
  });
});

Deno.test("a task runs while it has not ended and its process is the one that began it", async () => {
  const upid = (type: string, pid: string) =>
    `UPID:pve1:${pid}:0000FFFF:6500AAAA:${type}:100:root@pam:`;
  const stat = (start: number) =>
    `17 (task (x) UPID) S ${Array.from({ length: 18 }, () => 0).join(" ")} ${start} 0\n`;
  await withFiles({
    "/var/log/pve/tasks/active": [
      `${upid("vzdump", "00000011")} 0`,
      `${upid("qmstart", "00000012")} 1 6500BBBB OK`,
      `${upid("vncproxy", "00000011")} 0`,
      `${upid("qmigrate", "00000013")} 0`,
      `${upid("qmmove", "00000014")} 0`,
      "something else",
      "",
    ].join("\n"),
    "/proc/17/stat": stat(0xffff),
    "/proc/19/stat": stat(0xeeee),
  }, async (host) => {
    assertEquals((await runningTasks(host)).map(({ type }) => type), ["vzdump", "unknown"]);
  });
  await withFiles({}, async (host) => assertEquals(await runningTasks(host), []));
});

Deno.test("ids that share a dataset are found whatever their type", () => {
  const text =
    "tnblock: san\n\ttnb-dataset tank/pve\n\ntruenasplugin: old\n\ttn_dataset tank/pve\n\tx y\n\n" +
    "dir: local\n\tpath tank/pve2\n";
  assertEquals(idsSharing(text, "tank/pve", "san"), ["old"]);
});

Deno.test("what nodes ask and tell is read again, and nothing else", () => {
  const disks = [{ kind: "iscsi", lun: 3, naa: "6".repeat(32) }] as const;
  assertEquals(parseQuestion(questionText(disks)), [...disks]);
  for (const text of ["", "{}", '{"schemaVersion":2,"disks":[]}', "null"]) {
    assertEquals([parseQuestion(text), parseFacts(text)], [undefined, undefined]);
  }
});
