import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { PROGRAM, UNITS } from "../../src/daemon/unit.ts";

/** Options by section; lists where an option stands more than once. */
function parse(text: string): Map<string, string[]> {
  const options = new Map<string, string[]>();
  let section = "";
  for (const line of text.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const heading = /^\[(\w+)\]$/.exec(line);
    if (heading?.[1] !== undefined) {
      section = heading[1];
      continue;
    }
    const option = /^(\w+)=(\S.*)$/.exec(line);
    assert(option !== null && section !== "", `a line of neither kind: ${line}`);
    const name = `${section}.${option[1]}`;
    options.set(name, [...options.get(name) ?? [], option[2] ?? ""]);
  }
  return options;
}

const service = parse(UNITS["tnblock.service"] ?? "");
const socket = parse(UNITS["tnblock.socket"] ?? "");

/** systemd.exec(5): all of these give a service a mount namespace of its own, or close devices to it. */
const CLOSING =
  /^Service\.(Private|Protect|ReadOnly|ReadWrite|Inaccessible|NoExec|ExecPaths|TemporaryFile|Bind|Mount|Root|Device|Dynamic|ProcSubset|RuntimeDirectory|StateDirectory|InaccessiblePaths)/;

Deno.test("the service stays in the node's mount namespace and sees all devices and processes", () => {
  assertEquals([...service.keys()].filter((name) => CLOSING.test(name)), []);
});

Deno.test("no option of the units stands twice", () => {
  for (const options of [service, socket]) {
    for (const [name, values] of options) assertEquals([name, values.length], [name, 1]);
  }
});

Deno.test("the socket is the one that the shim asks, root's alone", () => {
  assertEquals(socket.get("Socket.ListenStream"), [DAEMON_SOCKET]);
  assertEquals(socket.get("Socket.SocketMode"), ["0600"]);
});

Deno.test("the daemon is there before what uses storages, and never given up", () => {
  for (const name of ["pve-guests", "pvedaemon", "pvestatd", "pve-ha-lrm"]) {
    for (const unit of [service, socket]) {
      assertStringIncludes(unit.get("Unit.Before")?.[0] ?? "", `${name}.service`);
    }
  }
  assertEquals(service.get("Service.Restart"), ["always"]);
  assertEquals(service.get("Unit.StartLimitIntervalSec"), ["0"]);
  assertEquals(socket.get("Socket.TriggerLimitIntervalSec"), ["0"]);
});

Deno.test("systemd understands the units", async () => {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-units-" });
  try {
    const files: string[] = [];
    for (const [name, text] of Object.entries(UNITS)) {
      files.push(`${folder}/${name}`);
      // The program need not be installed here.
      const there = text.replaceAll(PROGRAM, "/bin/true");
      await Deno.writeTextFile(`${folder}/${name}`, there);
    }
    const verify = new Deno.Command("systemd-analyze", { args: ["verify", "--man=no", ...files] });
    const result = await verify.output().catch(() => undefined);
    // Without systemd only what the other tests here read is checked.
    if (result === undefined) return;
    const said = new TextDecoder().decode(result.stderr).split("\n")
      .filter((line) => line.includes("tnblock."));
    assertEquals([result.code, said], [0, []]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
