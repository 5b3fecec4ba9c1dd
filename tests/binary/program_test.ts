import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BINARY, nvmeConfig, run, SimulatorProcess, startHook } from "./program.ts";
import { lastingCommand } from "../support/child.ts";

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-binary-" });
  try {
    await work(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the binary obeys neither a stranger's bunfig.toml nor his .env", async () => {
  await inFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/bunfig.toml`, 'preload = ["./evil.ts"]\n');
    await Deno.writeTextFile(
      `${folder}/evil.ts`,
      'require("node:fs").writeFileSync("./obeyed", "");\n',
    );
    await Deno.writeTextFile(`${folder}/.env`, `TNBLOCK_ROOT=${folder}/nowhere\n`);
    const { status, stdout } = await run(["scan"], { cwd: folder });
    assertEquals(status, 0, stdout);
    assertEquals(await Deno.stat(`${folder}/obeyed`).then(() => true, () => false), false);
  });
});

Deno.test("version says what it is, also as JSON", async () => {
  assertMatch((await run(["version"])).stdout, /^tnblock \d+\.\d+\.\d+ /);
  const facts = JSON.parse((await run(["version", "-o", "json"])).stdout);
  assertEquals(facts.schemaVersion, 1);
  assertStringIncludes(facts.runtime, "bun 1.4.5");
});

Deno.test("the notices name everything that is bundled", async () => {
  const { stdout } = await run(["version", "--licenses"]);
  for (const name of ["bun", "commander", "valibot", "ws", "selfsigned"]) {
    assertStringIncludes(stdout, `${name} `);
  }
});

Deno.test("the shim in the binary is the one in the source", async () => {
  const source = await Deno.readTextFile(
    new URL("../../src/pve/shim/TnblockPlugin.pm", import.meta.url),
  );
  assertEquals((await run(["version", "--shim"])).stdout, source);
});

Deno.test("a mistake in usage ends with 2, and the message is on standard error", async () => {
  for (
    const args of [["nonsense"], ["scan", "--nonsense"], ["scan", "-o", "xml"], [
      "simulate",
      "--listen",
      "here",
    ], ["simulate", "--kernel"]]
  ) {
    const { status, stdout, stderr } = await run(args);
    assertEquals([args.join(" "), status, stdout], [args.join(" "), 2, ""]);
    assert(stderr.startsWith("error: "), stderr);
  }
});

Deno.test("help goes to standard output and ends with 0", async () => {
  const { status, stdout } = await run(["--help"]);
  assertEquals(status, 0);
  assertStringIncludes(stdout, "tnblock demo");
});

Deno.test("a broken request is answered with id null and status 1", async () => {
  const { status, stdout } = await run(["hook"], { input: "{\n" });
  assertEquals(status, 1);
  const reply = JSON.parse(stdout);
  assertEquals([reply.id, reply.ok, reply.error.code], [null, false, "invalid"]);
});

Deno.test("10 MB of JSON are refused, not read", async () => {
  const { status, stdout } = await run(["hook"], {
    input: `{"id":"a","x":"${"y".repeat(10_000_000)}"}\n`,
  });
  assertEquals([status, JSON.parse(stdout).error.code], [1, "invalid"]);
});

Deno.test("no request at all is answered too", async () => {
  const { status, stdout } = await run(["hook"]);
  assertEquals([status, JSON.parse(stdout).ok], [1, false]);
});

Deno.test("the reply comes when the request line is complete, with standard input still open", async () => {
  const child = lastingCommand(BINARY, {
    args: ["hook"],
    clearEnv: true,
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(
    new TextEncoder().encode(
      '{"protocol":1,"id":"7f3a","method":"path","storage":"san","args":{"volname":"vol-vm-1-disk-0-lun3"}}\n',
    ),
  );
  const { code } = await child.status;
  const reply = JSON.parse(await new Response(child.stdout).text());
  await writer.close().catch(() => {});
  assertEquals(code, 0);
  assertEquals(reply, {
    id: "7f3a",
    ok: true,
    result: { path: "/dev/tnblock/san/vm-1-disk-0", vmid: 1, vtype: "images" },
  });
});

Deno.test("an unknown method ends with its own code", async () => {
  const { status, stdout } = await run(["hook"], {
    input: '{"protocol":1,"id":1,"method":"brew","storage":"san"}\n',
  });
  assertEquals([status, JSON.parse(stdout).error.code, JSON.parse(stdout).id], [
    1,
    "unsupported",
    1,
  ]);
});

Deno.test("simulate tells in one line where it is, plays a node, and ends within a second of SIGTERM", async () => {
  await inFolder(async (folder) => {
    await using simulator = await SimulatorProcess.start(["--host", folder, "--login-limit", "0"]);
    for (
      const key of [
        "host",
        "port",
        "user",
        "apiKey",
        "fingerprint",
        "control",
        "dataset",
        "targetIqn",
        "subsystemNqn",
        "portals",
      ]
    ) {
      assert(simulator.ready[key] !== undefined, key);
    }
    for (
      const path of [
        "etc/nvme/hostnqn",
        "etc/nvme/hostid",
        "etc/iscsi/initiatorname.iscsi",
        "etc/pve/priv/tnblock/cluster-id",
        "dev/nvme-fabrics",
        "usr/sbin/iscsiadm",
      ]
    ) {
      await Deno.stat(`${folder}/${path}`);
    }
    const start = performance.now();
    assertEquals(await simulator.stop(), 0);
    assert(performance.now() - start < 2000);
  });
});

Deno.test("the binary's hook takes a volume through its life below a root", async () => {
  await inFolder(async (folder) => {
    await using simulator = await SimulatorProcess.start(["--host", folder]);
    const { ready } = simulator;
    await simulator.writeSecrets(folder);
    const config = nvmeConfig(ready);
    const ask = async (method: string, args: Record<string, unknown>) => {
      const line = JSON.stringify({
        protocol: 1,
        id: "x",
        method,
        storage: "san",
        config,
        args,
        deadlineMs: 30_000,
        node: "n",
        pveApi: 13,
      });
      const { stdout, stderr } = await run(["hook"], {
        input: `${line}\n`,
        env: { TNBLOCK_ROOT: folder },
      });
      const reply = JSON.parse(stdout);
      assert(reply.ok, `${method}: ${stdout}${stderr}`);
      assertEquals(
        JSON.stringify(reply).includes(ready.apiKey) || stderr.includes(ready.apiKey),
        false,
      );
      return reply.result;
    };
    const volname = await ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 1024 });
    await ask("activate_volume", { volname });
    const { path } = await ask("path", { volname });
    assertEquals((await Deno.stat(`${folder}${path}`)).size, 1024 * 1024);
    await ask("free_image", { volname, isBase: 0, finish: true });
    assertEquals(await ask("list_images", {}), []);
  });
});

/** Starts an allocation on a simulator of its own; afterwards it must have been made, and taken back. */
async function takenBack(
  options: { readonly delayMs: number; readonly deadlineMs: number },
  leave: (hook: Deno.ChildProcess, simulator: SimulatorProcess) => Promise<void>,
): Promise<void> {
  await inFolder(async (folder) => {
    await using simulator = await SimulatorProcess.start(["--host", folder]);
    await simulator.writeSecrets(folder);
    await simulator.faults([
      { method: "nvmet.namespace.create", nth: 1, do: "delay", ms: options.delayMs },
    ]);
    const hook = await startHook(folder, {
      protocol: 1,
      id: "left",
      method: "alloc_image",
      storage: "san",
      config: nvmeConfig(simulator.ready),
      args: { vmid: 100, format: "raw", sizeKiB: 1024 },
      deadlineMs: options.deadlineMs,
    });
    await leave(hook, simulator);
    await hook.status;
    const { calls } = await simulator.get("stats");
    assert(calls["nvmet.namespace.create"] > 0 && calls["nvmet.namespace.delete"] > 0);
    const { zvols, namespaces } = await simulator.get("objects");
    assertEquals([zvols, namespaces], [[], []]);
  });
}

Deno.test("past the deadline the hook takes its volume back, though nobody reads its output any more", async () => {
  await takenBack({ delayMs: 1500, deadlineMs: 700 }, async (hook) => {
    const reader = hook.stdout.getReader();
    const { value } = await reader.read();
    assertEquals(JSON.parse(new TextDecoder().decode(value)).error.code, "timeout");
    // The caller goes away, as PVE does after an error.
    await Promise.all([reader.cancel(), hook.stderr.cancel()]);
    assertEquals((await hook.status).code, 1);
  });
});

Deno.test("a hook that is told to end takes its volume back", async () => {
  await takenBack({ delayMs: 1000, deadlineMs: 20_000 }, async (hook, simulator) => {
    const isUnderWay = async () =>
      (await simulator.get("stats")).calls["nvmet.namespace.create"] !== undefined;
    while (!await isUnderWay()) continue;
    hook.kill("SIGTERM");
    const [text] = await Promise.all([new Response(hook.stdout).text(), hook.stderr.cancel()]);
    assertEquals([(await hook.status).code, JSON.parse(text).ok], [1, false]);
  });
});

Deno.test("a volume whose name nobody is there to read is taken back", async () => {
  await takenBack({ delayMs: 0, deadlineMs: 20_000 }, async (hook) => {
    await Promise.all([hook.stdout.cancel(), hook.stderr.cancel()]);
  });
});

Deno.test("output that is lost is no success", async () => {
  for (const args of [["version"], ["scan", "-o", "json"], ["--help"]]) {
    const child = new Deno.Command("/bin/sh", {
      args: ["-c", 'exec "$@" > /dev/full', "sh", BINARY, ...args],
      clearEnv: true,
      stderr: "null",
    });
    assertEquals([args.join(" "), (await child.output()).code], [args.join(" "), 1]);
  }
});

Deno.test("a root that is no folder is answered as a request, too", async () => {
  const { status, stdout } = await run(["hook"], {
    input: '{"protocol":1,"id":"a","method":"status","storage":"san"}\n',
    env: { TNBLOCK_ROOT: "/nonexistent" },
  });
  assertEquals([status, JSON.parse(stdout).error.code], [1, "host-fault"]);
});

Deno.test("the demo ends with 130 when it is interrupted, and leaves nothing behind", async () => {
  await inFolder(async (folder) => {
    const child = lastingCommand(BINARY, {
      args: ["demo"],
      clearEnv: true,
      env: { TMPDIR: folder },
      stdin: "null",
      stdout: "piped",
    }).spawn();
    const reader = child.stdout.getReader();
    await reader.read();
    child.kill("SIGINT");
    while (!(await reader.read()).done) continue;
    assertEquals((await child.status).code, 130);
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  });
});

Deno.test("the binary needs glibc's own libraries and nothing else", async () => {
  const { needed, newestGlibc } = await readElf(BINARY);
  assertEquals(
    needed.filter((name) =>
      !/^(libc|libm|libdl|libpthread|librt|ld-linux-x86-64|ld-linux-aarch64)\.so/.test(name)
    ),
    [],
  );
  // As the README says; Debian 12 (PVE 8) has 2.36.
  assert(newestGlibc <= 17, `it needs GLIBC_2.${newestGlibc}`);
});

/** NEEDED entries and the newest GLIBC_2.x of an ELF file, by the strings of its dynamic string table. */
async function readElf(path: string): Promise<{ needed: string[]; newestGlibc: number }> {
  const bytes = await Deno.readFile(path);
  const view = new DataView(bytes.buffer);
  const at = (offset: number) => Number(view.getBigUint64(offset, true));
  const text = (offset: number) =>
    new TextDecoder().decode(bytes.subarray(offset, bytes.indexOf(0, offset)));
  const headers = Array.from(
    { length: view.getUint16(0x3c, true) },
    (_, index) => at(0x28) + index * view.getUint16(0x3a, true),
  )
    .map((offset) => ({
      type: view.getUint32(offset + 4, true),
      offset: at(offset + 24),
      size: at(offset + 32),
      link: view.getUint32(offset + 40, true),
    }));
  const dynamic = headers.find((header) => header.type === 6);
  const strings = headers[dynamic?.link ?? 0];
  assert(dynamic !== undefined && strings !== undefined);
  const needed: string[] = [];
  for (let entry = dynamic.offset; entry < dynamic.offset + dynamic.size; entry += 16) {
    if (at(entry) === 1) needed.push(text(strings.offset + at(entry + 8)));
  }
  const table = new TextDecoder("latin1").decode(
    bytes.subarray(strings.offset, strings.offset + strings.size),
  );
  const versions = [...table.matchAll(/GLIBC_2\.(\d+)/g)].map((match) => Number(match[1]));
  return { needed, newestGlibc: Math.max(...versions) };
}
