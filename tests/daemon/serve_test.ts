import { assert, assertEquals, assertMatch } from "@std/assert";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { disks, isWrite } from "../support/array_state.ts";
import { perlTest } from "../pve/run_perl.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { daemonOn } from "./memory_support.ts";
import { Caller, requestLine, serviceOn, type TestService } from "./serve_support.ts";

const MIB = 1024 * 1024;

/** A name of a volume that there never was. */
const NONE = "vol-vm-1-disk-0-ns01b8f73f-42f5-4ea7-b646-cfe0b8def92b";

const socketOf = (place: Place) => `${place.directory}${DAEMON_SOCKET}`;

/** Resolves when the log has a line like this. */
async function logged(service: TestService, pattern: RegExp): Promise<void> {
  const end = performance.now() + 10_000;
  while (!service.log.some((line) => pattern.test(line))) {
    if (performance.now() > end) throw new Error(`no such line: ${pattern}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

Deno.test("a line is taken with a blank at once, and answered by one line with its id", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  await place.faults([{ method: "auth.login_ex", do: "hold" }]);
  const caller = service.call("list_images");
  await caller.taken();
  assertEquals(caller.text, " ");
  await place.faults([]);
  assertEquals(await caller.closed, ' {"id":"7f3a","ok":true,"result":[]}\n');
});

Deno.test("the socket is its owner's alone, and goes with the service", async () => {
  await using place = await Place.start("nvme-tcp");
  {
    await using _service = await serviceOn(place);
    assertEquals(((await Deno.lstat(socketOf(place))).mode ?? 0) & 0o7777, 0o600);
  }
  assertEquals(await Deno.lstat(socketOf(place)).catch(() => "gone"), "gone");
});

Deno.test("what a dead daemon left is replaced, a living one is not", async () => {
  await using place = await Place.start("nvme-tcp");
  await Deno.mkdir(`${place.directory}/run/tnblock`, { recursive: true });
  const left = Deno.listen({ transport: "unix", path: socketOf(place) });
  left.close();
  await using service = await serviceOn(place);
  assertEquals(await service.must("list_images"), []);
  const second = await serviceOn(place).then(() => "served", (error) => error.code);
  assertEquals(second, "EADDRINUSE");
});

Deno.test("what is no request is answered, and what is too long", async () => {
  await using place = await Place.start("nvme-tcp");
  await using _service = await serviceOn(place);
  for (const text of ["{\n", "\n", `${"x".repeat(MIB + 2)}`]) {
    const answer = await new Caller(socketOf(place), text).closed;
    assertEquals([JSON.parse(answer).id, JSON.parse(answer).error.code], [null, "invalid"]);
  }
});

perlTest("a caller that has left before its line was taken is not worked for", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  await service.must("list_images");
  service.calls.length = 0;
  const line = requestLine(place, "alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  const program = `socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; ` +
    `connect($s, pack_sockaddr_un($ARGV[0])) or die; syswrite($s, $ARGV[1]) or die;`;
  // While it runs we stand still, as a daemon that is stopped does.
  const { success } = new Deno.Command("perl", {
    args: ["-MSocket", "-e", program, socketOf(place), line],
  }).outputSync();
  assert(success);
  await service.must("volume_size_info", { volname: NONE }).catch(() => {});
  await service.idle();
  assertEquals(service.calls.filter(isWrite), []);
  assertEquals(service.log.filter((line) => line.includes("alloc_image")), []);
});

perlTest("a volume whose name a dying caller has not read is taken back", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  const line = requestLine(place, "alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  const program = `socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die; ` +
    `connect($s, pack_sockaddr_un($ARGV[0])) or die; syswrite($s, $ARGV[1]) or die; my $seen = ""; ` +
    `while ($seen !~ /\\n/) { recv($s, $seen, 9999, MSG_PEEK); select(undef, undef, undef, 0.01) } ` +
    `kill KILL => $$;`;
  await new Deno.Command("perl", { args: ["-MSocket", "-e", program, socketOf(place), line] })
    .output();
  await service.idle();
  const own = service.log.filter((text) => text.includes("alloc_image"));
  assertMatch(own.at(-1) ?? "", /took back what alloc_image made/);
  assertEquals((await place.objects()).zvols, []);
});

Deno.test("what cannot be taken back is told in the log, and the service goes on", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  const host = linuxHost({ root: place.directory });
  const line = requestLine(place, "alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  const passOn = async () => {
    await Deno.writeTextFile(`${place.directory}/etc/pve/priv/storage/san.tnblock`, "{");
    return false;
  };
  await host.askLocal(DAEMON_SOCKET, line, { deadlineMs: 30_000, maxLine: MIB, passOn });
  await service.idle();
  const errors = service.log.filter((line) =>
    /^(error|warning): \[7f3a alloc_image san\]/.test(line)
  );
  assertEquals(errors.length, 1, service.log.join("\n"));
  assertEquals((await service.ask("list_images")).error?.code, "config");
});

Deno.test("a caller that sends its line too slowly is left out", async () => {
  await using place = await Place.start("nvme-tcp");
  await using _service = await serviceOn(place, { lineMs: 200 });
  const caller = new Caller(socketOf(place), '{"protocol"');
  const trickle = setInterval(() => caller.socket.write(" "), 20);
  assertEquals(await caller.closed, "");
  clearInterval(trickle);
});

Deno.test("a caller that stops reading its answer is left out", async () => {
  await using place = await Place.start("nvme-tcp");
  const own = new Map([["much", () => Promise.resolve("x".repeat(10 * MIB))]]);
  await using service = await serviceOn(place, { lineMs: 200, own });
  const caller = service.call("much");
  await caller.taken();
  caller.socket.pause();
  await service.idle();
  caller.socket.destroy();
});

for (const transport of TRANSPORTS) {
  const test = (name: string, run: (place: Place, service: TestService) => Promise<void>) =>
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport);
      await using service = await serviceOn(place);
      await run(place, service);
    });
  const create = transport === "iscsi" ? "iscsi.targetextent.create" : "nvmet.namespace.create";
  const update = transport === "iscsi" ? "iscsi.extent.update" : "nvmet.namespace.update";

  /** Asks, and leaves while the array is at the call of this method. */
  const leave = async (
    place: Place,
    service: TestService,
    fault: { readonly method: string; readonly nth?: number },
    method: string,
    args: Record<string, unknown>,
  ) => {
    await place.faults([{ ...fault, do: "hold" }]);
    const caller = service.call(method, args);
    await place.held(fault.method);
    caller.socket.destroy();
    await logged(service, new RegExp(`\\[7f3a ${method} san\\] the caller left`));
    await place.faults([]);
    await service.idle();
  };

  const undone: readonly {
    readonly method: string;
    readonly at: string;
    readonly args: (made: { disk: string; base: string }) => Record<string, unknown>;
  }[] = [
    {
      method: "alloc_image",
      at: create,
      args: () => ({ vmid: 101, format: "raw", sizeKiB: 1024 }),
    },
    { method: "clone_image", at: create, args: ({ base }) => ({ volname: base, vmid: 101 }) },
    { method: "create_base", at: update, args: ({ disk }) => ({ volname: disk }) },
    { method: "rename_volume", at: update, args: ({ disk }) => ({ volname: disk, targetVmid: 7 }) },
    {
      method: "volume_snapshot",
      at: "pool.snapshot.create",
      args: ({ disk }) => ({ volname: disk, snapshot: "s" }),
    },
    { method: "volume_import_prepare", at: create, args: () => ({ vmid: 101, size: MIB }) },
  ];
  for (const { method, at, args } of undone) {
    test(`${method} is undone when its caller leaves`, async (place, service) => {
      const disk = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
      const other = await service.must("alloc_image", { vmid: 9, format: "raw", sizeKiB: 1024 });
      const base = await service.must("create_base", { volname: other });
      const before = await disks(place);
      await leave(place, service, { method: at }, method, args({ disk, base }));
      assertEquals(await disks(place), before);
    });

    test(`${method} is undone when its answer is not read`, async (place, service) => {
      const disk = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
      const other = await service.must("alloc_image", { vmid: 9, format: "raw", sizeKiB: 1024 });
      const base = await service.must("create_base", { volname: other });
      const before = await disks(place);
      const host = linuxHost({ root: place.directory });
      const line = requestLine(place, method, args({ disk, base }));
      const passOn = () => Promise.resolve(false);
      await host.askLocal(DAEMON_SOCKET, line, { deadlineMs: 30_000, maxLine: MIB, passOn });
      await service.idle();
      assertEquals(await disks(place), before);
    });
  }

  test("what a caller has left is stopped before its next write", async (place, service) => {
    await service.must("list_images");
    const args = { vmid: 100, format: "raw", sizeKiB: 1024 };
    await leave(place, service, { method: "pool.dataset.create" }, "alloc_image", args);
    assertEquals(service.calls.filter(isWrite), ["pool.dataset.create", "pool.dataset.delete"]);
  });

  test("a free is finished when its caller leaves", async (place, service) => {
    const volname = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    const token = await service.must("free_image", { volname, isBase: 0 });
    await leave(place, service, { method: "pool.dataset.delete" }, "free_image_finish", token);
    assertEquals((await place.objects()).zvols, []);
  });

  test("the deletion of a snapshot is finished when its caller leaves", async (place, service) => {
    const volname = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    const args = { volname, snapshot: "s" };
    await service.must("volume_snapshot", args);
    await leave(place, service, { method: "pool.snapshot.delete" }, "volume_snapshot_delete", args);
    assertEquals(await service.must("volume_snapshot_info", { volname }), {});
  });

  test("growing is finished when its caller leaves", async (place, service) => {
    const volname = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    const args = { volname, size: 2 * MIB, running: 0 };
    await leave(place, service, { method: "pool.dataset.update" }, "volume_resize", args);
    assertEquals((await service.must("volume_size_info", { volname })).size, 2 * MIB);
  });

  test("a rollback is finished when its caller leaves", async (place, service) => {
    const volname = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    const args = { volname, snapshot: "s" };
    await service.must("volume_snapshot", args);
    await service.must("volume_resize", { volname, size: 2 * MIB, running: 0 });
    const method = "pool.snapshot.rollback";
    await leave(place, service, { method }, "volume_snapshot_rollback", args);
    assertEquals((await service.must("volume_size_info", { volname })).size, MIB);
  });
}

Deno.test("each changing request has a line with its outcome and time, reading ones have none", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  const volname = await service.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
  await service.ask("volume_snapshot", { volname, snapshot: "current" });
  await service.must("list_images");
  await service.ask("volume_size_info", { volname: NONE });
  const outcomes = service.log.filter((line) => line.includes(" after "));
  assertEquals(outcomes.length, 2, outcomes.join("\n"));
  assertMatch(outcomes[0] ?? "", /^info: \[7f3a alloc_image san\] done after \d+ ms$/);
  assertMatch(
    outcomes[1] ?? "",
    /^info: \[7f3a volume_snapshot san\] failed: Cannot .* \[invalid\] after \d+ ms$/,
  );
  const own = service.log.filter((line) => !line.includes("connected to TrueNAS"));
  for (const line of own) assertMatch(line, /^[a-z]+: \[7f3a [a-z_]+ san\] /);
});

Deno.test("what is asked every ten seconds says the same once", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  await Deno.chmod(`${place.directory}/etc/pve/priv/storage/san.tnblock`, 0o644);
  for (let count = 0; count < 3; count++) {
    await service.must("list_images");
    await service.must("activate_storage");
  }
  const warnings = service.log.filter((line) => line.includes("can be read by others"));
  assertEquals(warnings.length, 1, warnings.join("\n"));
});

Deno.test("500 calls at once are all answered, each with its own id", async () => {
  await using place = await Place.start("nvme-tcp");
  await using daemon = await daemonOn(place);
  const { total } = await daemon.must("status");
  const callers = Array.from({ length: 500 }, (_, index) => {
    const line = requestLine(place, index % 2 === 0 ? "status" : "list_images", {});
    return new Caller(socketOf(place), line.replace('"7f3a"', `"${index}"`));
  });
  const answers = (await Promise.all(callers.map((caller) => caller.closed))).map((text) =>
    JSON.parse(text)
  );
  assertEquals(answers.map(({ id }) => id), callers.map((_, index) => String(index)));
  assertEquals(answers.filter(({ ok }) => !ok), []);
  assertEquals(answers[0].result.total, total);
});

Deno.test("2,000 callers that send nothing hinder nobody", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place);
  await service.must("list_images");
  const silent = Array.from({ length: 2_000 }, () => new Caller(socketOf(place), '{"protocol":1,'));
  const first = silent[0];
  assert(first !== undefined);
  // In the order in which they came: these are behind all the silent ones.
  const start = performance.now();
  assertEquals(await Promise.all([1, 2, 3].map(() => service.must("list_images"))), [[], [], []]);
  const ms = performance.now() - start;
  assert(ms < 5_000, `${ms} ms`);
  await first.closed;
  for (const { socket } of silent) socket.destroy();
});

Deno.test("past the limit of requests under way a caller hears that its own was not taken", async () => {
  await using place = await Place.start("nvme-tcp");
  await using service = await serviceOn(place, { maxConnections: 20 });
  // All wait for the one session.
  await place.faults([{ method: "auth.login_ex", do: "hold" }]);
  const callers = Array.from({ length: 20 }, () => service.call("list_images"));
  await Promise.all(callers.map((caller) => caller.taken()));
  const refused = JSON.parse(await service.call("list_images").closed);
  assertEquals([refused.id, refused.error.code], [null, "busy"]);
  for (const { socket } of callers) socket.destroy();
  await place.faults([]);
  await service.idle();
  assertEquals(await service.must("list_images"), []);
});

Deno.test("a service that ends answers reading, leaves changing to the next, and waits for what it began", async () => {
  await using place = await Place.start("nvme-tcp");
  const service = await serviceOn(place);
  await service.must("list_images");
  await place.faults([{ method: "nvmet.namespace.create", do: "hold" }]);
  const args = { vmid: 100, format: "raw", sizeKiB: 1024 };
  const begun = service.call("alloc_image", args);
  await place.held("nvmet.namespace.create");
  let isDrained = false;
  const drained = service[Symbol.asyncDispose]().then(() => isDrained = true);

  const refused = JSON.parse(await service.call("alloc_image", args).closed);
  assertEquals([refused.id, refused.error.code], [null, "busy"]);
  const held = await service.call("list_images").closed;
  assertEquals([JSON.parse(held).ok, isDrained], [true, false]);
  await place.faults([]);
  assertEquals(JSON.parse(await begun.closed).ok, true);
  await drained;
  assertEquals((await place.objects()).zvols?.length, 1);
  assertEquals(await Deno.lstat(socketOf(place)).catch(() => "gone"), "gone");
});
