import { assertEquals } from "@std/assert";
import { findGuests, NOW, sectionsNaming } from "../../src/host/guest_configs.ts";
import { parseGuestStates } from "../../src/host/guest_states.ts";
import { linuxHost } from "../../src/host/linux.ts";

const NAME = "vol-vm-100-disk-0-lun5";
const isMeant = (volname: string) => volname.split("/").at(-1) === NAME;
const sections = (...lines: string[]) => sectionsNaming(lines.join("\n"), "san", isMeant);

for (
  const line of [
    `scsi0: san:${NAME},discard=on,size=32G`,
    `virtio1: file=san:${NAME},size=32G`,
    `unused0: san:${NAME}`,
    `vmstate: san:${NAME}`,
    `rootfs: san:${NAME},size=8G`,
    `mp0: volume=san:${NAME},mp=/srv`,
    `tpmstate0: san:${NAME},version=v2.0`,
    `ide2: san:${NAME},media=cdrom`,
    `scsi0: san:vol-base-9-disk-0-lun1/${NAME},size=32G`,
  ]
) {
  Deno.test(`a configuration names a volume by: ${line}`, () => {
    assertEquals(sections("cores: 4", line, "memory: 2048"), [NOW]);
  });
}

for (
  const line of [
    `#scsi0: san:${NAME}`,
    `scsi0: other:${NAME},size=32G`,
    `scsi0: san:${NAME}0,size=32G`,
    `scsi0: san:${NAME}/vol-vm-200-disk-0-lun6`,
    `name: ${NAME}`,
    "",
  ]
) {
  Deno.test(`a configuration does not name a volume by: ${line || "nothing"}`, () => {
    assertEquals(sections("cores: 4", line), []);
  });
}

Deno.test("a snapshot's section is told from the present configuration", () => {
  assertEquals(
    sections("scsi0: san:other", "", "[before]", `scsi0: san:${NAME}`, "snaptime: 1763769600"),
    ["before"],
  );
});

for (
  const [heading, line] of [
    ["[PENDING]", `scsi1: san:${NAME}`],
    ["[pve:pending]", `mp1: san:${NAME},mp=/srv`],
    ["[special:fleecing]", `fleecing-images: san:other san:${NAME}`],
  ] as const
) {
  Deno.test(`what is below ${heading} belongs to the present configuration`, () => {
    assertEquals(sections("cores: 1", "", heading, line), [NOW]);
  });
}

const TIME = 1_763_769_600;

Deno.test("the state of a guest is what its node told last, in either form of the line", () => {
  const states = parseGuestStates(
    [
      "pve2-node/pve1:86400:x:1763769600:1:2",
      `pve2.3-vm/100:86400:web:running:0:${TIME}:4:0.02:4294967296:1073741824`,
      `pve-vm-9.0/101:0:db:stopped:0:${TIME}:2:U:2147483648:U`,
      `pve-vm-9.0/102:60:io:paused:0:${TIME}:2:0:1:1`,
      `pve2.3-storage/pve1/san:${TIME}:100:1`,
      "\0",
    ].join("\n"),
    TIME + 15,
  );
  assertEquals([...states], [[100, true], [101, false], [102, true]]);
});

Deno.test("what was told long ago says nothing about a guest", () => {
  const line = `pve-vm-9.0/100:0:db:stopped:0:${TIME}:2:U:1:U`;
  assertEquals(parseGuestStates(line, TIME + 61).get(100), "unknown");
});

Deno.test("of two lines about one guest the later one counts", () => {
  const lines = [
    `pve-vm-9.0/100:5:db:running:0:${TIME}:2:0:1:1`,
    `pve2.3-vm/100:0:db:stopped:0:${TIME - 40}:2:U:1:U`,
  ];
  assertEquals(parseGuestStates(lines.join("\n"), TIME).get(100), true);
  assertEquals(parseGuestStates(lines.reverse().join("\n"), TIME).get(100), true);
});

/** A cluster's configuration in a folder. */
async function withCluster(
  files: Readonly<Record<string, string>>,
  work: (find: () => ReturnType<typeof findGuests>, root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "tnblock-guests-" });
  try {
    for (const [path, text] of Object.entries(files)) {
      const file = `${root}/etc/pve/${path}`;
      await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
      await Deno.writeTextFile(file, text);
    }
    const search = { storage: "san", contains: "vm-100-disk-0", isMeant, exceptNode: "pve1" };
    await work(() => findGuests(linuxHost({ root }), search), root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

Deno.test("guests of other nodes are found with their state, this node's are left out", async () => {
  const disk = `scsi0: san:${NAME}\n`;
  await withCluster({
    "nodes/pve1/qemu-server/1.conf": disk,
    "nodes/pve2/qemu-server/100.conf": disk,
    "nodes/pve2/qemu-server/101.conf": "scsi0: san:vol-vm-101-disk-0-lun6\n",
    "nodes/pve2/qemu-server/102.conf.tmp": disk,
    "nodes/pve3/lxc/200.conf": `cores: 1\n\n[before]\nrootfs: san:${NAME}\n`,
    ".rrd": `pve2.3-vm/100:60:web:running:0:${Math.floor(Date.now() / 1000)}:4\n`,
  }, async (find) => {
    assertEquals(await find(), {
      guests: [
        { vmid: 100, node: "pve2", kind: "qemu", snapshots: [], now: true, running: true },
        {
          vmid: 200,
          node: "pve3",
          kind: "lxc",
          snapshots: ["before"],
          now: false,
          running: "unknown",
        },
      ],
      unread: [],
    });
  });
});

Deno.test("a thousand configurations are all looked at", async () => {
  const files: Record<string, string> = {};
  for (let vmid = 1000; vmid < 2000; vmid++) {
    files[`nodes/pve2/qemu-server/${vmid}.conf`] = vmid === 1999 ? `scsi0: san:${NAME}\n` : "";
  }
  await withCluster(files, async (find) => {
    assertEquals((await find()).guests.map(({ vmid }) => vmid), [1999]);
  });
});

Deno.test("what cannot be read is told, and the rest is looked at", async () => {
  await withCluster({
    "nodes/pve2/qemu-server/100.conf": `scsi0: san:${NAME}\n`,
    "nodes/pve4/qemu-server/300.conf/in": "not a file",
  }, async (find) => {
    const { guests, unread } = await find();
    assertEquals(guests.map(({ vmid }) => vmid), [100]);
    assertEquals(unread.map((text) => text.split(" ")[0]), [
      "/etc/pve/nodes/pve4/qemu-server/300.conf",
    ]);
  });
});

Deno.test("a node without any cluster has no guests elsewhere", async () => {
  await withCluster({}, async (find) => {
    assertEquals(await find(), { guests: [], unread: [] });
  });
});
