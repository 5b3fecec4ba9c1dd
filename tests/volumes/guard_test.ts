/** A guest that runs on another node keeps its disk; the other node's words are believed, not proved. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";

const OTHER = "pve2";

/** Puts a guest's configuration on another node, and what that node tells of it. */
async function guestElsewhere(
  place: Place,
  config: string,
  state: "running" | "stopped" | undefined,
  kind: "qemu-server" | "lxc" = "qemu-server",
): Promise<void> {
  const folder = `${place.directory}/etc/pve/nodes/${OTHER}/${kind}`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/200.conf`, config);
  if (state === undefined) return;
  const now = Math.floor(Date.now() / 1000);
  const uptime = state === "running" ? 3600 : 0;
  await Deno.writeTextFile(
    `${place.directory}/etc/pve/.rrd`,
    `pve-vm-9.0/200:${uptime}:web:${state}:0:${now}:4:0:1:1\n`,
  );
}

for (const transport of TRANSPORTS) {
  const test = (name: string, run: (place: Place, volname: string) => Promise<void>) =>
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport);
      await run(place, await place.alloc());
    });

  const free = (place: Place, volname: string, config: Record<string, unknown> = {}) =>
    place.ask("free_image", { volname, isBase: 0, finish: true }, { config });

  test(
    "a volume of a guest that runs on another node is not freed, and both are named",
    async (place, volname) => {
      await guestElsewhere(place, `scsi0: san:${volname},size=64M\n`, "running");
      await place.must("activate_volume", { volname });
      place.calls.length = 0;
      const { error } = await free(place, volname);
      assertEquals(error?.code, "in-use");
      assertStringIncludes(error?.message ?? "", "VM 200 on node pve2");
      assertStringIncludes(error?.hint ?? "", "tnb-force-free");
      // Nothing was touched: the disk is still attached here, and the array was only asked.
      await Deno.stat(place.linkOf(volname));
      assertEquals(place.calls.filter((method) => /create|update|delete|destroy/.test(method)), []);
    },
  );

  test("of a container's disk likewise", async (place, volname) => {
    await guestElsewhere(place, `rootfs: san:${volname},size=64M\n`, "running", "lxc");
    assertStringIncludes(
      (await free(place, volname)).error?.message ?? "",
      "container 200 on node pve2",
    );
  });

  test(
    "a guest of which nobody tells whether it runs counts as running",
    async (place, volname) => {
      await guestElsewhere(place, `scsi0: san:${volname},size=64M\n`, undefined);
      assertEquals((await free(place, volname)).error?.code, "in-use");
    },
  );

  test("tnb-force-free frees it all the same, with a warning", async (place, volname) => {
    await guestElsewhere(place, `scsi0: san:${volname},size=64M\n`, "running");
    assertEquals((await free(place, volname, { "tnb-force-free": 1 })).error, undefined);
    assert(place.log.some((line) => line.startsWith("warning:") && line.includes("VM 200")));
    assertEquals((await place.objects()).zvols, []);
  });

  test(
    "a stopped guest on another node is a warning only, as with every storage of PVE",
    async (place, volname) => {
      await guestElsewhere(place, `scsi0: san:${volname},size=64M\n`, "stopped");
      assertEquals((await free(place, volname)).error, undefined);
      assert(place.log.some((line) => line.startsWith("warning:") && line.includes("stopped")));
    },
  );

  for (
    const [what, config] of [
      ["names it in a snapshot only", (name: string) => `cores: 1\n\n[old]\nscsi0: san:${name}\n`],
      [
        "names another disk of that zvol name",
        () =>
          `scsi0: san:vol-vm-100-disk-0-${
            transport === "iscsi" ? "lun16000" : `ns${crypto.randomUUID()}`
          }\n`,
      ],
      ["has a linked clone of it", (name: string) => `scsi0: san:${name}/vol-vm-200-disk-0-lun9\n`],
      ["names it on another storage", (name: string) => `scsi0: other:${name}\n`],
      ["has it in a comment", (name: string) => `#scsi0: san:${name}\n`],
    ] as const
  ) {
    test(`a running guest elsewhere that ${what} does not keep it`, async (place, volname) => {
      await guestElsewhere(place, config(volname), "running");
      assertEquals((await free(place, volname)).error, undefined);
      assertEquals((await place.objects()).zvols, []);
    });
  }

  for (const form of ["vm-200-cloudinit", "vol-vm-200-cloudinit-lun3"]) {
    test(`a cloud-init volume is guarded by the name ${form}`, async (place) => {
      await place.alloc(200, 4096, "vm-200-cloudinit");
      await guestElsewhere(place, `ide2: san:${form},media=cdrom\n`, "running");
      assertEquals((await free(place, "vm-200-cloudinit")).error?.code, "in-use");
    });
  }

  test("a linked clone is guarded by its name with the base", async (place, volname) => {
    const base = volname.replace("vm-100", "base-9");
    await guestElsewhere(place, `scsi0: san:${base}/${volname},size=64M\n`, "running");
    assertEquals((await free(place, volname)).error?.code, "in-use");
  });

  test(
    "a guest that came to run elsewhere between the two steps stops the second",
    async (place, volname) => {
      const { token } = await place.must("free_image", { volname, isBase: 0 });
      await guestElsewhere(place, `scsi0: san:${volname}\n`, "running");
      const reply = await place.ask("free_image_finish", { token });
      assertEquals(reply.error?.code, "in-use");
      assertEquals((await place.must("list_images")).length, 1);
    },
  );

  test(
    "configurations that cannot be read are a warning, and the volume is freed",
    async (place, volname) => {
      const file = `${place.directory}/etc/pve/nodes/${OTHER}/qemu-server/200.conf`;
      await Deno.mkdir(`${file}/instead-of-a-file`, { recursive: true });
      assertEquals((await free(place, volname)).error, undefined);
      assert(place.log.some((line) => line.includes("not looked up everywhere")));
    },
  );

  test("this node's own configurations do not stop it", async (place, volname) => {
    const folder = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    await Deno.writeTextFile(`${folder}/100.conf`, `scsi0: san:${volname}\n`);
    assertEquals((await free(place, volname)).error, undefined);
  });
}
