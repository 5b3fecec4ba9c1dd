import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { complete, completionScript, SHELLS } from "../../src/cli/completions.ts";
import type { CommandContext } from "../../src/cli/framework.ts";
import { buildProgram } from "../../src/cli/program.ts";
import { silentLog } from "../../src/common/log.ts";
import { serve } from "../../src/daemon/serve.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { writeStorageCfg } from "../daemon/state_support.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";
import { Place } from "../support/place.ts";

const SECTIONS = "tnblock: san\n\ttnb-dataset tank/pve\n\ntnblock: fast\n\ttnb-dataset tank/b\n\n" +
  "dir: local\n\tpath /x\n";

const CONTEXT: CommandContext = {
  out: () => {},
  deliver: () => Promise.resolve(true),
  err: () => {},
  input: (async function* () {})(),
  isTerminal: false,
  env: {},
  root: "/",
  stopped: () => Promise.resolve(),
};

/** What may follow, without what is said about it. */
async function offered(host: Host, ...words: string[]): Promise<string[]> {
  const text = await complete(buildProgram(CONTEXT), words, host);
  return text.trimEnd().split("\n").map((line) => line.split("\t")[0] ?? "");
}

const withSections = (test: (host: Host, node: NodeFolder) => Promise<void>) =>
  withNode(undefined, async (node) => {
    await node.write("/etc/pve/storage.cfg", SECTIONS);
    await test(node.host, node);
  });

const cases: readonly (readonly [words: readonly string[], expected: readonly string[]])[] = [
  [["li"], ["list", ":4"]],
  [["completions", ""], ["bash", "zsh", "fish", ":4"]],
  [["list", ""], ["san", "fast", ":4"]],
  [["list", "s"], ["san", ":4"]],
  [["--root", "/tmp", "list", ""], ["san", "fast", ":4"]],
  [["list", "--no-header", ""], ["san", "fast", ":4"]],
  [["list", "-o", ""], ["text", "json", "name", ":4"]],
  [["list", "--output=j"], ["json", ":4"]],
  [["list", "--no-h"], ["--no-header", ":4"]],
  [["doctor", "--storage", "f"], ["fast", ":4"]],
  [["doctor", "--stri"], ["--strict", ":4"]],
  [["setup", "--edit", ""], ["san", "fast", ":4"]],
  // The shell knows files.
  [["setup", "--answers", ""], [":0"]],
  [["help", "exit"], ["exit-codes", ":4"]],
  [["help", "doc"], ["doctor", ":4"]],
  [["nothing", ""], [":4"]],
  // What is for programs is offered to nobody.
  [["compl"], ["completions", ":4"]],
  [["doctor", "--node"], [":4"]],
];

for (const [words, expected] of cases) {
  Deno.test(`"tnblock ${words.join(" ")}" goes on with ${expected.join(" ")}`, () =>
    withSections(async (host) => assertEquals(await offered(host, ...words), [...expected])));
}

Deno.test("a node without Proxmox VE, and a storage.cfg that cannot be read, are no error", async () => {
  await withNode(undefined, async ({ host }) => {
    assertEquals(await offered(host, "list", ""), [":4"]);
  });
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/pve/storage.cfg/not-a-file", "");
    assertEquals(await offered(host, "list", ""), [":4"]);
  });
});

Deno.test("volumes come from the daemon, and without one from nobody", async () => {
  await using place = await Place.start("iscsi");
  await writeStorageCfg(place);
  await place.alloc(100);
  await place.alloc(101);
  const host = linuxHost({ root: place.directory, nodeName: "pve1" });
  assertEquals(await offered(host, "rebind", "san", ""), [":4"]);
  const row = (zvol: string) => ({ volid: `san:vol-${zvol}-lun5` });
  // A daemon answers from memory; this one has another's words in it too.
  const serving = await serve({
    host,
    log: silentLog,
    setDebugLevel: () => {},
    limitLogins: false,
  }, {
    own: new Map([["list_images", () =>
      Promise.resolve([
        row("vm-100-disk-0"),
        row("vm-101-disk-0"),
        { volid: "san:base-1-disk-0/vm-102-cloudinit" },
        { volid: "san:$(reboot)" },
      ])]]),
  });
  try {
    assertEquals(await offered(host, "rebind", "san", ""), [
      ...["vm-100-disk-0", "vm-101-disk-0", "vm-102-cloudinit", ":4"],
    ]);
    assertEquals(await offered(host, "adopt", "san", "vm-100-disk-0", "vm-101"), [
      ...["vm-101-disk-0", ":4"],
    ]);
    assertEquals(await offered(host, "rebind", "other", ""), [":4"]);
  } finally {
    await serving.close();
  }
});

Deno.test("a daemon that does not answer costs a moment", async () => {
  await using place = await Place.start("iscsi");
  await writeStorageCfg(place);
  const host = linuxHost({ root: place.directory, nodeName: "pve1" });
  const held = Promise.withResolvers<unknown>();
  const serving = await serve({
    host,
    log: silentLog,
    setDebugLevel: () => {},
    limitLogins: false,
  }, { own: new Map([["list_images", () => held.promise]]) });
  try {
    assertEquals(await offered(host, "rebind", "san", ""), [":4"]);
  } finally {
    held.resolve([]);
    await serving.close();
  }
});

Deno.test("each shell has a script that asks this program", () => {
  for (const shell of SHELLS) {
    const script = completionScript(shell);
    assertStringIncludes(script, "complete -- ");
    // Nothing else is printed, and nothing is printed by itself.
    assert(!script.includes("undefined"), shell);
  }
});

/** Loads the script in a bash without anything else, and completes a line. */
async function bash(line: string, program: string): Promise<{ text: string; errors: string }> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/tnblock`, program, { mode: 0o755 });
    await Deno.writeTextFile(`${folder}/script`, completionScript("bash"));
    const words = line.split(" ");
    const test = `. "$1"; . "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _tnblock; ` +
      'printf "%s\\n" "${COMPREPLY[@]}"';
    const { stdout, stderr } = await new Deno.Command("bash", {
      args: ["--norc", "-c", test, "bash", `${folder}/script`, ...words],
      env: { PATH: `${folder}:/usr/bin:/bin`, FOLDER: folder },
      clearEnv: true,
      cwd: folder,
    }).output();
    const decoder = new TextDecoder();
    const left = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    assertEquals(left, ["script", "tnblock"]);
    return { text: decoder.decode(stdout), errors: decoder.decode(stderr) };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const ANSWERS = `#!/bin/sh
[ "$1 $2 $3" = "complete -- list" ] || exit 1
printf 'san\\tabout it\\nsan$(touch made)\\nfast\\n:4\\n'; echo trouble >&2
`;

Deno.test("bash offers what fits, says no error, and carries out nothing that was typed or answered", async () => {
  assertEquals(await bash("tnblock list s", ANSWERS), {
    text: "san\nsan$(touch made)\n",
    errors: "",
  });
  assertEquals(await bash("tnblock list $(touch typed)", ANSWERS), { text: "\n", errors: "" });
  assertEquals(await bash("tnblock list ", "#!/bin/sh\nexit 3\n"), { text: "\n", errors: "" });
});
