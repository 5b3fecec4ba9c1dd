import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { scratchBase } from "../support/scratch.ts";
import { type InstallNode, makeNode, programOf } from "./support.ts";

const PROGRAM = "/usr/local/bin/tnblock";
const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";

/**
 * ssh, played: the last words are run on the folder of the node that the address belongs to. Paths of programs
 * and files are those below it.
 */
const SSH = (cluster: string) =>
  `#!/bin/sh
printf 'ssh %s\\n' "$*" >>'${cluster}/calls'
while [ "$1" != -- ]; do address=\${1#root@10.0.0.}; shift; done
shift
there='${cluster}'/pve$address
[ -f "$there/unreachable" ] && { echo 'Connection timed out' >&2; exit 255; }
export TNBLOCK_ROOT=$there
case "$1" in
  /*) program=$1; shift; exec "$there$program" "$@";;
  uname) cat "$there/machine" 2>/dev/null || echo x86_64;;
  sha256sum) cd / && sha256sum "$there$2";;
  chmod) chmod "$2" "$there$3";;
  rm) rm -f "$there$3";;
  *) exit 127;;
esac
`;

const SCP = (cluster: string) =>
  `#!/bin/sh
root=\${0%/usr/bin/scp}
printf 'scp %s\\n' "$*" >>'${cluster}/calls'
while [ "$1" != -- ]; do shift; done
from=$2; to=\${3#*:}; address=\${3#root@10.0.0.}; address=\${address%%:*}
there='${cluster}'/pve$address
cp "$root$from" "$there$to" || exit 1
if [ -f "$there/damages" ]; then rm "$there/damages"; echo x >>"$there$to"; fi
`;

interface Run {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

class Cluster {
  constructor(readonly directory: string, readonly nodes: readonly InstallNode[]) {}

  node(number: number): InstallNode {
    const node = this.nodes[number - 1];
    assert(node !== undefined);
    return node;
  }

  /** Runs the program of this version on the first node. */
  async run(version: string, ...args: string[]): Promise<Run> {
    const path = join(this.directory, `tnblock-${version}`);
    await Deno.writeTextFile(path, programOf(version), { mode: 0o755 });
    const { code, stdout, stderr } = await new Deno.Command(path, {
      args,
      env: { TNBLOCK_ROOT: this.node(1).directory },
    }).output();
    const decoder = new TextDecoder();
    return { status: code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
  }

  async calls(): Promise<string> {
    return await Deno.readTextFile(join(this.directory, "calls")).catch(() => "");
  }
}

async function withCluster(
  test: (cluster: Cluster) => Promise<void>,
  { offline = [] }: { readonly offline?: readonly number[] } = {},
): Promise<void> {
  const directory = await mkdtemp(join(scratchBase(), "tnblock-install-cluster-"));
  try {
    const nodes: InstallNode[] = [];
    for (const number of [1, 2, 3]) {
      const node = await makeNode(join(directory, `pve${number}`), `pve${number}`);
      const nodelist = Object.fromEntries([1, 2, 3].map((each) => [
        `pve${each}`,
        { id: each, online: offline.includes(each) ? 0 : 1, ip: `10.0.0.${each}` },
      ]));
      const cluster = { name: "lab", version: 3, nodes: 3, quorate: 1 };
      const members = { nodename: `pve${number}`, version: 9, cluster, nodelist };
      await node.write("/etc/pve/.members", JSON.stringify(members));
      await node.write("/usr/bin/ssh", SSH(directory), 0o755);
      await node.write("/usr/bin/scp", SCP(directory), 0o755);
      await Deno.mkdir(join(node.directory, "usr/local/bin"), { recursive: true });
      nodes.push(node);
    }
    await test(new Cluster(directory, nodes));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

Deno.test("one command installs on every node, with the same program and plugin", async () => {
  await withCluster(async (cluster) => {
    const { status, stdout, stderr } = await cluster.run(
      "0.2.0",
      "install",
      "--all-nodes",
      "--yes",
    );
    assertEquals(status, 0, stderr);
    assertEquals(stdout.split("\n").map((line) => line.split(/\s+/).slice(0, 3)), [
      ...[["NODE", "RESULT", "VERSION"], ["pve1", "installed", "0.2.0"]],
      ...[["pve2", "installed", "0.2.0"], ["pve3", "installed", "0.2.0"], [""]],
    ]);
    for (const node of cluster.nodes) {
      assertEquals(await node.read(PROGRAM), programOf("0.2.0"));
      assert(await node.read(SHIM_FILE) !== undefined);
      const staged = [...Deno.readDirSync(join(node.directory, "usr/local/bin"))];
      assertEquals(staged.map(({ name }) => name), ["tnblock"]);
    }
    const again = await cluster.run("0.2.0", "install", "--all-nodes", "--yes", "-o", "json");
    assertEquals(
      JSON.parse(again.stdout).nodes.map(({ result }: { result: string }) => result),
      ["already", "already", "already"],
    );
    // What is there already is not sent again.
    assertEquals((await cluster.calls()).match(/^scp /gm)?.length, 2);
  });
});

Deno.test("the plan for all nodes names the others, and touches none", async () => {
  await withCluster(async (cluster) => {
    const { status, stdout } = await cluster.run("0.2.0", "install", "--all-nodes", "--dry-run");
    assertEquals(status, 0);
    assertStringIncludes(stdout, "The same then on pve2, pve3 (offline)");
    assertEquals(await cluster.calls(), "");
    assertEquals(await cluster.node(1).read(PROGRAM), undefined);
  }, { offline: [3] });
});

Deno.test("one command brings the version before back on every node", async () => {
  await withCluster(async (cluster) => {
    await cluster.run("0.1.0", "install", "--all-nodes", "--yes");
    await cluster.run("0.2.0", "install", "--all-nodes", "--yes");
    const { status, stderr } = await cluster.run(
      ...["0.2.0", "install", "--roll-back", "--all-nodes", "--yes"] as const,
    );
    assertEquals(status, 0, stderr);
    for (const node of cluster.nodes) assertEquals(await node.read(PROGRAM), programOf("0.1.0"));
  });
});

Deno.test("when the first node fails, no other one is tried", async () => {
  await withCluster(async (cluster) => {
    await cluster.node(1).plant("systemctl enable*");
    const { status, stdout } = await cluster.run("0.2.0", "install", "--all-nodes", "--yes");
    assertEquals(status, 1);
    assertStringIncludes(stdout, "pve2  not-tried");
    assertEquals(await cluster.calls(), "");
    assertEquals(await cluster.node(1).read(PROGRAM), undefined);
  });
});

Deno.test("a node that is offline is named, the others are installed", async () => {
  await withCluster(async (cluster) => {
    const { status, stdout, stderr } = await cluster.run(
      "0.2.0",
      "install",
      "--all-nodes",
      "--yes",
    );
    assertEquals(status, 8);
    assert(/^pve2 +offline/m.test(stdout) && /^pve3 +installed/m.test(stdout), stdout);
    assertStringIncludes(stderr, "do not add a storage before");
  }, { offline: [2] });
});

Deno.test("a node that fails is tried once more, and told about", async () => {
  await withCluster(async (cluster) => {
    await cluster.node(2).write("/unreachable", "");
    await cluster.node(3).plant("systemctl enable*");
    const { status, stdout } = await cluster.run("0.2.0", "install", "--all-nodes", "--yes");
    assertEquals(status, 8);
    assertStringIncludes(stdout, "Connection timed out");
    assertStringIncludes(stdout, "planted: systemctl failed; everything is as it was");
    assertEquals((await cluster.calls()).match(/ install --yes -o json/g)?.length, 2);
    assertEquals(await cluster.node(3).read(SHIM_FILE), undefined);
  });
});

Deno.test("a program that arrives damaged is not run, and is sent again", async () => {
  await withCluster(async (cluster) => {
    await cluster.node(2).write("/damages", "");
    const { status, stderr } = await cluster.run("0.2.0", "install", "--all-nodes", "--yes");
    assertEquals(status, 0, stderr);
    assertStringIncludes(stderr, "another checksum");
    assertEquals(await cluster.node(2).read(PROGRAM), programOf("0.2.0"));
  });
});

Deno.test("a node of another kind of machine is left alone", async () => {
  await withCluster(async (cluster) => {
    await cluster.node(3).write("/machine", "aarch64\n");
    const { status, stdout } = await cluster.run("0.2.0", "install", "--all-nodes", "--yes");
    assertEquals(status, 8);
    assertStringIncludes(stdout, "it is aarch64, and this program is for x86_64");
    assertEquals(await cluster.node(3).read(PROGRAM), undefined);
  });
});
