import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { buildProgram } from "../../src/cli/program.ts";
import { type CommandContext, runProgram } from "../../src/cli/framework.ts";
import { reportError } from "../../src/cli/report_error.ts";
import { KEY, Pty } from "../support/pty.ts";
import { type InstallNode, programOf, withInstallNode } from "./support.ts";

const PROGRAM = "/usr/local/bin/tnblock";
const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/** The stand-in of the compiled program, outside of the node's own places. */
async function withProgram(
  test: (node: InstallNode, path: string) => Promise<void>,
): Promise<void> {
  await withInstallNode(async (node) => {
    await node.write("/stub/program", programOf("0.2.0"), 0o755);
    await test(node, `${node.directory}/stub/program`);
  });
}

async function run(node: InstallNode, path: string, ...args: string[]) {
  const { code, signal, stdout, stderr } = await new Deno.Command(path, {
    args,
    env: { TNBLOCK_ROOT: node.directory },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return {
    ...{ status: code, signal },
    ...{ stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) },
  };
}

Deno.test("in a terminal the plan is shown, and nothing is done without a yes", async () => {
  await withProgram(async (node, path) => {
    const before = await node.snapshot();
    await using terminal = new Pty(path, ["install"], { env: { TNBLOCK_ROOT: node.directory } });
    await terminal.shows("Install tnblock 0.2.0 on pve1");
    await terminal.shows("/usr/local/bin/tnblock");
    await terminal.shows("check  pvesm status");
    await terminal.shows("systemctl reload-or-try-restart pvedaemon.service");
    await terminal.answers("Do all this?", KEY.enter);
    assertEquals(await terminal.ends(), 130);
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("in a terminal Ctrl-C at the question leaves no trace", async () => {
  await withProgram(async (node, path) => {
    const before = await node.snapshot();
    await using terminal = new Pty(path, ["install"], { env: { TNBLOCK_ROOT: node.directory } });
    await terminal.answers("Do all this?", KEY.ctrlC);
    assertEquals(await terminal.ends(), 130);
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("after a yes it is done, and what comes next is said", async () => {
  await withProgram(async (node, path) => {
    await using terminal = new Pty(path, ["install"], { env: { TNBLOCK_ROOT: node.directory } });
    await terminal.answers("Do all this?", "y");
    await terminal.shows("tnblock 0.2.0 is installed on pve1. Next: tnblock status");
    assertEquals(await terminal.ends(), 0);
    assert(await node.read(PROGRAM) !== undefined);
  });
});

Deno.test("without a terminal it asks nothing, and names the flag", async () => {
  await withProgram(async (node, path) => {
    const before = await node.snapshot();
    const { status, stderr } = await run(node, path, "install");
    assertEquals(status, 2);
    assertStringIncludes(stderr, "fix: Give --yes");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("--dry-run prints the plan on standard output, and changes nothing", async () => {
  await withProgram(async (node, path) => {
    const before = await node.snapshot();
    const text = await run(node, path, "install", "--dry-run");
    assertEquals(text.status, 0);
    assertStringIncludes(
      text.stdout,
      "write  /usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm",
    );
    const json = JSON.parse((await run(node, path, "install", "--dry-run", "-o", "json")).stdout);
    assertEquals([json.schemaVersion, json.version, json.from], [1, "0.2.0", null]);
    assertEquals(json.steps[0].write, [PROGRAM]);
    const leftOut = await run(node, path, "install", "--dry-run", "--no-lvm-filter");
    assertStringIncludes(leftOut.stdout, "(--no-lvm-filter)");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("--yes and --dry-run together are a mistake", async () => {
  await withProgram(async (node, path) => {
    for (const command of ["install", "uninstall"]) {
      assertEquals((await run(node, path, command, "--yes", "--dry-run")).status, 2);
    }
  });
});

Deno.test("killed half-way, it goes on from there when it is run again", async () => {
  await withProgram(async (node, path) => {
    const perl = await node.read("/usr/bin/perl") ?? "";
    await node.write(
      "/usr/bin/perl",
      `#!/bin/sh\nif [ "$2" = -e ]; then kill -9 $PPID; fi\n`,
      0o755,
    );
    assertEquals((await run(node, path, "install", "--yes")).signal, "SIGKILL");
    assert(await node.read(SHIM_FILE) !== undefined);
    await node.write("/usr/bin/perl", perl, 0o755);
    const { status, stderr } = await run(node, path, "install", "--yes");
    assertEquals(status, 0, stderr);
    assertStringIncludes(stderr, "An earlier run was interrupted");
    assertStringIncludes((await node.calls()).join("\n"), "reload-or-try-restart pveproxy");
  });
});

Deno.test("SIGINT half-way: everything is put back, shown, and the status is 130", async () => {
  await withProgram(async (node, path) => {
    const perl = await node.read("/usr/bin/perl") ?? "";
    await node.write(
      "/usr/bin/perl",
      `${perl}\nif [ "$2" = -e ]; then kill -INT $PPID; fi\n`,
      0o755,
    );
    const before = await node.snapshot();
    const { status, stderr } = await run(node, path, "install", "--yes");
    assertEquals(status, 130, stderr);
    assertStringIncludes(stderr, `put back: ${SHIM_FILE}`);
    assertStringIncludes(stderr, "Everything is as it was.");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("a failure is told to programs as well", async () => {
  await withProgram(async (node, path) => {
    await node.plant("perl -T -e*");
    const { status, stdout, stderr } = await run(node, path, "install", "--yes", "-o", "json");
    assertEquals(status, 1);
    const { node: name, result, error } = JSON.parse(stdout);
    assertEquals([name, result, error.code], ["pve1", "failed", "host-fault"]);
    assertStringIncludes(error.message, "everything is as it was");
    assertStringIncludes(stderr, "error: Cannot install tnblock");
  });
});

Deno.test("uninstall keeps the secrets unless told, and says what is gone", async () => {
  await withProgram(async (node, path) => {
    const secrets = "/etc/pve/priv/storage/san.tnblock";
    const others = "/etc/pve/priv/storage/cifs.pw";
    await node.write(others, "x", 0o600);
    for (const [flags, isKept] of [[[], true], [["--remove-secrets"], false]] as const) {
      await node.write(secrets, "{}", 0o600);
      await run(node, path, "install", "--yes");
      const { status, stderr } = await run(node, path, "uninstall", "--yes", ...flags);
      assertEquals(status, 0, stderr);
      assertStringIncludes(stderr, "tnblock is removed from pve1");
      assertEquals(await node.read(secrets) !== undefined, isKept);
      assert(await node.read(others) !== undefined);
    }
  });
});

Deno.test("the real command refuses the uncompiled source, with the way to compile it", async () => {
  await withInstallNode(async (node) => {
    const written: string[] = [];
    const context: CommandContext = {
      out: (text) => void written.push(text),
      deliver: () => Promise.resolve(true),
      err: (text) => void written.push(text),
      input: (async function* () {})(),
      isTerminal: false,
      env: {},
      root: node.directory,
      stopped: () => new Promise(() => {}),
    };
    const status = await runProgram(buildProgram(context), ["install", "--yes"], context)
      .catch((error) => reportError(error, context));
    assertEquals(status, 1);
    assertStringIncludes(written.join(""), "deno task build");
  });
});
