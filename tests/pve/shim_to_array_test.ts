/**
 * The whole way: Perl under -T, the shim, the compiled binary or a daemon, a simulated array and node.
 */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { lineLog } from "../../src/common/log.ts";
import { startDaemon } from "../../src/daemon/daemon.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { BINARY } from "../binary/program.ts";
import { Place, type TransportKind, TRANSPORTS } from "../support/place.ts";
import { configure, reboot } from "../volumes/reboot_support.ts";
import { lastingCommand } from "../support/child.ts";

const HERE = new URL(".", import.meta.url).pathname;
const MIB = 1024 * 1024;

interface Answer {
  readonly ok: boolean;
  readonly result?: unknown;
  readonly error?: string;
}

/** A Perl process that will make one call of the plugin. */
async function driver(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<Deno.Command> {
  const wrapper = `${place.directory}/tnblock`;
  // The shim hands no environment on; the root comes in by this stand-in for the installed program.
  await Deno.writeTextFile(
    wrapper,
    `#!/bin/sh
echo run >> '${place.directory}/runs'
TNBLOCK_ROOT='${place.directory}' TNBLOCK_LOGIN_BUDGET=0 exec '${BINARY}' "$@"
`,
  );
  await Deno.chmod(wrapper, 0o755);
  return lastingCommand("/usr/bin/perl", {
    args: [
      "-T",
      "-I",
      `${HERE}lib`,
      `${HERE}drive.pl`,
      method,
      "san",
      JSON.stringify(place.config()),
      JSON.stringify(args),
      wrapper,
      place.directory,
    ],
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
}

/** One call of the plugin in a Perl process of its own. */
async function perl(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<Answer> {
  const { stdout, stderr } = await (await driver(place, method, args)).output();
  const text = new TextDecoder().decode(stdout);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${method}: ${text}${new TextDecoder().decode(stderr)}`);
  }
}

/** As {@link perl}, for a call that must succeed. */
async function must(
  place: Place,
  method: string,
  args: Record<string, unknown> = {},
): Promise<unknown> {
  const reply = await perl(place, method, args);
  assertEquals([method, reply.error], [method, undefined]);
  return reply.result;
}

/** As {@link perl}, for a call that must fail; its one line. */
async function fails(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<string> {
  const reply = await perl(place, method, args);
  assertEquals([method, reply.ok], [method, false]);
  assertMatch(reply.error ?? "", /^[\x20-\x7e]+\n$/);
  return reply.error ?? "";
}

async function alloc(place: Place, vmid = 100, sizeKiB = 65536): Promise<string> {
  return String(await must(place, "alloc_image", { vmid, format: "raw", sizeKiB }));
}

/** Writes at the beginning of an active volume, as a guest does. */
async function write(place: Place, volname: string, text: string): Promise<void> {
  await must(place, "activate_volume", { volname });
  const disk = await Deno.open(place.linkOf(volname), { read: true, write: true });
  await disk.write(new TextEncoder().encode(text));
  disk.close();
}

/** The first bytes of an active volume, or of a snapshot that is read. */
async function read(path: string, length: number): Promise<string> {
  const disk = await Deno.open(path, { read: true });
  const bytes = new Uint8Array(length);
  await disk.read(bytes);
  disk.close();
  return new TextDecoder().decode(bytes);
}

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

/** A stream of raw+size: some data, a long hole, and data at the very end. */
function streamOf(size: number): Uint8Array {
  const stream = new Uint8Array(8 + size);
  new DataView(stream.buffer).setBigUint64(0, BigInt(size), true);
  for (let at = 0; at < 3 * MIB; at += 65536) {
    crypto.getRandomValues(stream.subarray(8 + at, 8 + at + 65536));
  }
  crypto.getRandomValues(stream.subarray(8 + size - 5000));
  return stream;
}

/** Who does the shim's requests. */
const WAYS = ["the binary", "the daemon"] as const;

/** A place, with a daemon where that is the way. */
async function stage(
  way: typeof WAYS[number],
  transport: TransportKind,
): Promise<
  & { readonly place: Place; readonly whileDown: (work: () => Promise<unknown>) => Promise<void> }
  & AsyncDisposable
> {
  const place = await Place.start(transport);
  const begin = () =>
    startDaemon({
      host: linuxHost({ root: place.directory, nodeName: "pve1" }),
      log: lineLog((line) => place.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
    });
  let daemon = way === "the binary" ? undefined : await begin();
  return {
    place,
    whileDown: async (work) => {
      await daemon?.stop();
      await work();
      if (daemon !== undefined) daemon = await begin();
    },
    [Symbol.asyncDispose]: async () => {
      await daemon?.stop();
      const runs = await Deno.readTextFile(`${place.directory}/runs`).catch(() => "");
      await place[Symbol.asyncDispose]();
      if (daemon !== undefined) assertEquals(runs, "", "the binary was run");
    },
  };
}

for (
  const [way, transport] of WAYS.flatMap((way) => TRANSPORTS.map((each) => [way, each] as const))
) {
  const test = (
    name: string,
    run: (
      place: Place,
      whileDown: (work: () => Promise<unknown>) => Promise<void>,
    ) => Promise<void>,
  ) =>
    Deno.test(`${transport}: through the Perl shim and ${way}: ${name}`, async () => {
      await using on = await stage(way, transport);
      await run(on.place, on.whileDown);
    });

  test("the storage is connected, and active where a daemon knows it", async (place) => {
    assertEquals(await must(place, "check_connection"), 1);
    assertEquals(await must(place, "activate_storage"), 1);
    const status = await must(place, "status") as number[];
    assertEquals([status.length, status[3]], way === "the daemon" ? [4, 1] : [0, undefined]);
  });

  test("a disk's life", async (place) => {
    await must(place, "activate_storage");
    const volname = await alloc(place);
    assertMatch(volname, /^vol-vm-100-disk-0-/);
    await must(place, "activate_volume", { volname });
    await Deno.stat(place.linkOf(volname));
    assertStringIncludes(
      JSON.stringify(await must(place, "path", { volname })),
      "/dev/tnblock/san/vm-100-disk-0",
    );
    assertStringIncludes(JSON.stringify(await must(place, "list_images", {})), volname);
    assertStringIncludes(
      JSON.stringify(await must(place, "volume_size_info", { volname })),
      String(65536 * 1024),
    );
    assertEquals(await must(place, "qemu_blockdev_options", { volname, machine: "9.2" }), {
      driver: "host_device",
      filename: place.linkOf(volname),
    });
    await must(place, "deactivate_volume", { volname });
    await must(place, "free_image", { volname, isBase: 0 });
    assertEquals((await place.objects()).zvols, []);
  });

  test("after a boot a guest is started with the API away", async (place, whileDown) => {
    await must(place, "activate_storage");
    const volname = await alloc(place);
    await configure(place, 100, volname);
    await write(place, volname, "guest");
    await must(place, "deactivate_volume", { volname });
    await whileDown(async () => {
      await reboot(place);
      await place.simulator.goDown();
    });
    // As PVE::Storage::activate_volumes does it, before the machine is given its disks.
    assertEquals(await must(place, "check_connection"), 1);
    assertEquals(await must(place, "activate_storage"), 1);
    await must(place, "activate_volume", { volname });
    const path = place.linkOf(volname);
    assertEquals(await must(place, "qemu_blockdev_options", { volname, machine: "9.2" }), {
      driver: "host_device",
      filename: path,
    });
    assertEquals(await read(path, 5), "guest");
    // What is not about starting it fails, and the volume stays.
    await must(place, "deactivate_volume", { volname });
    assertMatch(await fails(place, "free_image", { volname, isBase: 0 }), /^Cannot /);
    assertMatch(await fails(place, "list_images", {}), /^Cannot /);
  });

  test("an error of the array reaches PVE as one line", async (place) => {
    const args = { vmid: 100, format: "raw", sizeKiB: 2 ** 40 };
    assertMatch(await fails(place, "alloc_image", args), /^Cannot make a volume of /);
  });

  test("a snapshot is taken, read, rolled back to, and deleted", async (place) => {
    const volname = await alloc(place);
    await write(place, volname, "before");
    await must(place, "volume_snapshot", { volname, snapshot: "one" });
    await write(place, volname, "after!");
    await must(place, "volume_snapshot", { volname, snapshot: "two" });
    const info = await must(place, "volume_snapshot_info", { volname }) as Record<
      string,
      { id: string; timestamp: number }
    >;
    assertEquals(Object.keys(info).sort(), ["one", "two"]);
    assertEquals(typeof info["one"]?.timestamp, "number");

    const reading = { volname, snapshot: "one" };
    await must(place, "activate_volume", reading);
    const [path] = await must(place, "path", reading) as string[];
    assertEquals(path, "/dev/tnblock/san/vm-100-disk-0@one");
    assertEquals(await read(`${place.directory}${path}`, 6), "before");
    const options = { "snapshot-name": "one" };
    const blockdev = await must(place, "qemu_blockdev_options", { volname, options });
    assertEquals(blockdev, { driver: "host_device", filename: `${place.directory}${path}` });
    await must(place, "deactivate_volume", reading);

    await must(place, "deactivate_volume", { volname });
    assertMatch(
      await fails(place, "volume_rollback_is_possible", { ...reading, blockers: [] }),
      /^Cannot roll back volume .* to snapshot "one": newer snapshots exist: two/,
    );
    await must(place, "volume_snapshot_delete", { volname, snapshot: "two" });
    await must(place, "volume_snapshot_delete", { volname, snapshot: "two" });
    assertEquals(await must(place, "volume_rollback_is_possible", reading), 1);
    await must(place, "volume_snapshot_rollback", reading);
    await must(place, "activate_volume", { volname });
    assertEquals(await read(place.linkOf(volname), 6), "before");
    await must(place, "volume_snapshot_delete", reading);
    assertEquals(await must(place, "volume_snapshot_info", { volname }), {});
    assertMatch(
      await fails(place, "rename_snapshot", { volname, snapshot: "a", targetSnapshot: "b" }),
      /^Cannot rename a snapshot /,
    );
  });

  test("a disk becomes a template, and gets linked clones", async (place) => {
    const disk = await alloc(place, 9);
    await write(place, disk, "golden");
    await must(place, "deactivate_volume", { volname: disk });
    const base = String(await must(place, "create_base", { volname: disk }));
    assertMatch(base, /^vol-base-9-disk-0-/);
    const clone = String(await must(place, "clone_image", { volname: base, vmid: 101 }));
    assertEquals(clone.split("/")[0], base);
    const [, name, vmid, basename] = await must(place, "parse_volname", {
      volname: clone,
    }) as unknown[];
    assertEquals([name, vmid, basename], ["vm-101-disk-0", 101, "base-9-disk-0"]);
    assertStringIncludes(JSON.stringify(await must(place, "list_images", {})), `san:${clone}`);
    await must(place, "activate_volume", { volname: clone });
    assertEquals(
      await read(`${place.directory}/dev/tnblock/san/vm-101-disk-0`, 6),
      "golden",
    );
    await must(place, "deactivate_volume", { volname: clone });
    assertMatch(await fails(place, "free_image", { volname: base, isBase: 1 }), /vm-101-disk-0/);
    await must(place, "free_image", { volname: clone, isBase: 0 });
    await must(place, "free_image", { volname: base, isBase: 1 });
    assertEquals((await place.objects()).zvols, []);
  });

  test("a disk is grown, renamed, noted on, and protected", async (place) => {
    const volname = await alloc(place);
    await must(place, "activate_volume", { volname });
    await must(place, "volume_resize", { volname, size: 128 * MIB, running: 1 });
    assertEquals((await Deno.stat(place.linkOf(volname))).size, 128 * MIB);
    assertMatch(
      await fails(place, "volume_resize", { volname, size: MIB, running: 0, snapshot: "s" }),
      /^Cannot resize a snapshot /,
    );
    await must(place, "deactivate_volume", { volname });

    const volid = String(await must(place, "rename_volume", { volname, targetVmid: 101 }));
    assertMatch(volid, /^san:vol-vm-101-disk-0-/);
    const renamed = volid.slice("san:".length);
    const about = { volname: renamed, attribute: "notes" };
    const notes = 'two\nlines, "quoted", für später';
    assertEquals(await must(place, "get_volume_attribute", about), "");
    await must(place, "update_volume_attribute", { ...about, value: notes });
    assertEquals(await must(place, "get_volume_attribute", about), notes);
    const mark = { volname: renamed, attribute: "protected" };
    await must(place, "update_volume_attribute", { ...mark, value: 1 });
    assertEquals(await must(place, "get_volume_attribute", mark), 1);
    assertMatch(await fails(place, "free_image", { volname: renamed, isBase: 0 }), /protected/);
    await must(place, "update_volume_attribute", { ...mark, value: 0 });
    await must(place, "free_image", { volname: renamed, isBase: 0 });
    assertEquals((await place.objects()).zvols, []);
  });

  test("what is imported comes out again, byte for byte", async (place) => {
    const stream = streamOf(24 * MIB);
    const file = `${place.directory}/stream`;
    await Deno.writeFile(file, stream);
    const formats = { format: "raw+size", withSnapshots: 0, file };
    const volid = String(
      await must(place, "volume_import", { volname: "vm-100-disk-5", ...formats, allowRename: 0 }),
    );
    assertMatch(volid, /^san:vol-vm-100-disk-5-/);
    const volname = volid.slice("san:".length);
    assertEquals(await Deno.stat(place.linkOf(volname)).catch(() => "gone"), "gone");

    // As PVE does: through a pipe from one process into the other.
    await must(place, "activate_volume", { volname });
    const from = (await driver(place, "volume_export", { volname, ...formats, file: "-" }))
      .output();
    const { stdout, code } = await from;
    assertEquals([code, stdout.length], [0, stream.length]);
    assertEquals(sha256(stdout), sha256(stream));
    assertEquals(await Deno.stat(place.linkOf(volname)).catch(() => "gone"), "gone");

    assertMatch(
      await fails(place, "volume_import", { volname, ...formats, allowRename: 0 }),
      /vm-100-disk-5.*exists/,
    );
    const other = String(
      await must(place, "volume_import", { volname, ...formats, allowRename: 1 }),
    );
    assertMatch(other, /^san:vol-vm-100-disk-0-/);
  });

  for (
    const [what, cut] of [["too short", -1], ["too long", 1]] as const
  ) {
    test(`a stream that is ${what} leaves nothing`, async (place) => {
      const stream = streamOf(4 * MIB);
      const file = `${place.directory}/stream`;
      const all = new Uint8Array(stream.length + cut);
      all.set(stream.subarray(0, all.length));
      await Deno.writeFile(file, all);
      const args = { volname: "vm-100-disk-0", format: "raw+size", file };
      assertMatch(await fails(place, "volume_import", args), /^Cannot import volume /);
      const { zvols, extents, mappings, namespaces } = await place.objects();
      assertEquals([zvols, extents, mappings, namespaces].map((all) => all?.length ?? 0), [
        0,
        0,
        0,
        0,
      ]);
    });
  }

  test("an import that is stopped half-way leaves nothing", async (place) => {
    const file = `${place.directory}/pipe`;
    const made = await new Deno.Command("mkfifo", { args: [file] }).output();
    assertEquals(made.code, 0);
    const args = { volname: "vm-100-disk-0", format: "raw+size", file };
    const child = (await driver(place, "volume_import", args)).spawn();
    const output = child.output();
    const pipe = await Deno.open(file, { write: true });
    const stream = streamOf(24 * MIB).subarray(0, 4 * MIB);
    // All of it is taken only once the import writes.
    for (let at = 0; at < stream.length;) at += await pipe.write(stream.subarray(at));
    child.kill("SIGTERM");
    const { stdout } = await output;
    pipe.close();
    assertStringIncludes(new TextDecoder().decode(stdout), "stopped by SIGTERM");
    assertEquals((await place.objects()).zvols, []);
  });
}

Deno.test("what the release lacks is not promised by the shim once the binary has logged in", async () => {
  await using place = await Place.start("iscsi", { release: "25.04" });
  const volname = "vol-vm-100-disk-0-lun5";
  const has = async (feature: string) =>
    await must(place, "volume_has_feature", { feature, volname, running: 0 });
  assertEquals(await has("rename"), 1);
  await must(place, "list_images");
  assertEquals([await has("rename"), await has("template")], [null, null]);
  assertEquals([await has("snapshot"), await has("copy")], [1, 1]);
});
