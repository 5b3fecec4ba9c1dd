/** Callers of the compiled daemon's socket that read slowly, not at all, or leave: bun's sockets are not node's. */
import { assert, assertEquals } from "@std/assert";
import { BareDaemon, Caller, requestLine, section, until } from "./bare_daemon.ts";
import { SimulatorProcess, startHook } from "./program.ts";

/** Volumes whose list is larger than what the kernel keeps for a socket. */
const MANY = 4_000;

/** A simulated node with a daemon. */
async function onNode(
  volumes: number,
  work: (daemon: BareDaemon, simulator: SimulatorProcess) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-callers-" });
  try {
    const options = ["--host", folder, "--volumes", String(volumes), "--login-limit", "0"];
    await using simulator = await SimulatorProcess.start(options);
    await using daemon = await BareDaemon.start(folder);
    await simulator.writeSecrets(folder);
    await work(daemon, simulator);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The section of an iSCSI storage: a subsystem has no room for so many. */
function longSection(simulator: SimulatorProcess): Record<string, unknown> {
  const { "tnb-subsystem-nqn": _, ...common } = section(simulator);
  return {
    ...common,
    "tnb-transport-mode": "iscsi",
    "tnb-target-iqn": simulator.ready.targetIqn,
    "tnb-portals": simulator.ready.portals.iscsi.join(","),
  };
}

/** All that a caller hears that reads a piece of `size` bytes each `ms`, and in the end, after `slowMs`, at once. */
async function readSlowly(
  path: string,
  line: string,
  { size, ms, slowMs }: { readonly size: number; readonly ms: number; readonly slowMs: number },
): Promise<string> {
  using connection = await Deno.connect({ transport: "unix", path });
  await connection.write(new TextEncoder().encode(line));
  const start = performance.now();
  const decoder = new TextDecoder();
  const piece = new Uint8Array(size);
  let text = "";
  for (;;) {
    const count = await connection.read(piece);
    if (count === null) return text;
    text += decoder.decode(piece.subarray(0, count), { stream: true });
    if (performance.now() - start < slowMs) await new Promise((go) => setTimeout(go, ms));
  }
}

Deno.test("a long answer comes whole to whoever reads on, however slowly, and who stops reading is left out", async () => {
  await onNode(MANY, async (daemon, simulator) => {
    const line = requestLine("7f3a", "list_images", longSection(simulator));
    const quick = await new Caller(daemon.socket, line).closed;
    assert(quick.length > 300_000, `${quick.length} characters are too few`);
    const withSession = await daemon.sockets();
    using deaf = await Deno.connect({ transport: "unix", path: daemon.socket });
    await deaf.write(new TextEncoder().encode(line));
    const start = performance.now();
    // For longer than the ten seconds in which something must be read.
    const [size, slowMs] = [32_768, 10_500];
    const ms = Math.ceil(slowMs / Math.floor(quick.length / size));
    const slow = await readSlowly(daemon.socket, line, { size, ms, slowMs });
    assert(performance.now() - start > 10_000);
    assertEquals(JSON.parse(slow).result.length, MANY);
    assertEquals(slow, quick);
    await until("farewell to the deaf", async () => await daemon.sockets() <= withSession);
  });
});

Deno.test("callers that leave in any way are noticed: what was begun for them is taken back", async () => {
  await onNode(0, async (daemon, simulator) => {
    const config = section(simulator);
    await new Caller(daemon.socket, requestLine("7f3a", "list_images", config)).closed;
    const base = await daemon.sockets();
    await simulator.faults([{ method: "nvmet.namespace.create", do: "hold" }]);
    const alloc = (vmid: number) =>
      requestLine(`left-${vmid}`, "alloc_image", config, { vmid, format: "raw", sizeKiB: 1024 });
    // What is not read when the connection is closed resets it.
    const resetting = await Deno.connect({ transport: "unix", path: daemon.socket });
    await resetting.write(new TextEncoder().encode(alloc(101)));
    const closing = new Caller(daemon.socket, alloc(102));
    const shutting = new Caller(daemon.socket, alloc(103));
    await Promise.all([closing.taken(), shutting.taken()]);
    await until("three zvols", async () => (await simulator.get("objects")).zvols.length === 3);
    resetting.close();
    closing.socket.destroy();
    shutting.socket.end();
    const left = () => daemon.log.match(/left-\d+ alloc_image san\] the caller left before/g) ?? [];
    await until("word of the leaving", () => left().length === 3);
    // Those that never were callers: nothing said, half a line said.
    for (const text of ["", "{"]) {
      const stranger = await Deno.connect({ transport: "unix", path: daemon.socket });
      await stranger.write(new TextEncoder().encode(text));
      stranger.close();
    }
    await simulator.faults([]);
    await until("end of the volumes", async () => {
      const { zvols, namespaces } = await simulator.get("objects");
      return zvols.length + namespaces.length === 0;
    });
    await until("free descriptors", async () => await daemon.sockets() <= base);
    assertEquals(new Set(left()).size, 3);
  });
});

Deno.test("a hook that cannot pass the daemon's answer on says so, and the volume is taken back", async () => {
  await onNode(0, async (daemon, simulator) => {
    await simulator.faults([{ method: "nvmet.namespace.create", do: "hold" }]);
    const args = { vmid: 101, format: "raw", sizeKiB: 1024 };
    const line = requestLine("lost", "alloc_image", section(simulator), args);
    const hook = await startHook(daemon.folder, JSON.parse(line));
    await until("zvol", async () => (await simulator.get("objects")).zvols.length === 1);
    await Promise.all([hook.stdout.cancel(), hook.stderr.cancel()]);
    await simulator.faults([]);
    await hook.status;
    await until("end of the volume", async () => {
      const { zvols, namespaces } = await simulator.get("objects");
      return zvols.length + namespaces.length === 0;
    });
    assert(daemon.log.includes("[lost alloc_image san]"), "the daemon had no part in it");
  });
});
