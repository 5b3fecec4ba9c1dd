import { assert, assertEquals, assertRejects } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { type ClusterNode, readCluster } from "../../src/pve/cluster.ts";
import { copyToNode, runOnNode } from "../../src/pve/remote.ts";
import { scratchBase } from "../support/scratch.ts";

const BOUNDS = { deadlineMs: 20_000 };

/** A node's folder with these files, the programs of it executable. */
async function withFiles(
  files: Readonly<Record<string, string>>,
  run: (host: ReturnType<typeof linuxHost>, root: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir({ dir: scratchBase(), prefix: "tnblock-cluster-" });
  try {
    for (const [path, text] of Object.entries(files)) {
      await Deno.mkdir(`${root}${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
      await Deno.writeTextFile(`${root}${path}`, text, { mode: 0o755 });
    }
    await run(linuxHost({ root }), root);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

const MEMBERS = JSON.stringify({
  nodename: "pve2",
  version: 9,
  cluster: { name: "lab", version: 3, nodes: 3, quorate: 1 },
  nodelist: {
    pve1: { id: 1, online: 1, ip: "10.0.0.1" },
    pve2: { id: 2, online: 1, ip: "10.0.0.2" },
    pve3: { id: 3, online: 0 },
  },
});

const OTHER: ClusterNode = { name: "pve1", address: "10.0.0.1", isOnline: true, isThis: false };

Deno.test("the nodes of a cluster are read, this one first", async () => {
  await withFiles({ "/etc/pve/.members": MEMBERS }, async (host) => {
    assertEquals(await readCluster(host), {
      name: "lab",
      isQuorate: true,
      nodes: [
        { name: "pve2", address: "10.0.0.2", isOnline: true, isThis: true },
        OTHER,
        { name: "pve3", address: undefined, isOnline: false, isThis: false },
      ],
    });
  });
});

Deno.test("a node alone is a cluster of one", async () => {
  const text = JSON.stringify({ nodename: "pve", version: 4 });
  await withFiles({ "/etc/pve/.members": text }, async (host) => {
    const { name, isQuorate, nodes } = await readCluster(host);
    assertEquals([name, isQuorate, nodes.map((node) => node.name)], [undefined, true, ["pve"]]);
  });
});

for (
  const [what, files] of [
    ["without pmxcfs", {}],
    ["with half a file", { "/etc/pve/.members": MEMBERS.slice(0, 60) }],
    ["when this node is not among them", {
      "/etc/pve/.members": MEMBERS.replace('"nodename":"pve2"', '"nodename":"pve9"'),
    }],
  ] as const
) {
  Deno.test(`${what} nobody is taken for all nodes`, async () => {
    await withFiles(files, async (host) => {
      const error = await assertRejects(() => readCluster(host));
      assert(error instanceof TnblockError && error.code === "host-fault", String(error));
    });
  });
}

Deno.test("another node is asked by its name's host key, and never for a password", async () => {
  await withFiles({
    "/usr/bin/ssh": '#!/bin/sh\nprintf "%s\\n" "$@"; cat\n',
    "/etc/pve/nodes/pve1/ssh_known_hosts": "",
  }, async (host) => {
    const { stdout } = await runOnNode(host, OTHER, ["tnblock", "version"], {
      ...BOUNDS,
      input: "in",
    });
    assertEquals(stdout.split("\n"), [
      ...["-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "HostKeyAlias=pve1"],
      ...["-o", "UserKnownHostsFile=/etc/pve/nodes/pve1/ssh_known_hosts"],
      ...["-o", "GlobalKnownHostsFile=none"],
      ...["root@10.0.0.1", "--", "tnblock", "version", "in"],
    ]);
  });
});

Deno.test("nothing that a remote shell would interpret is sent", async () => {
  await withFiles({ "/usr/bin/ssh": "#!/bin/sh\n" }, async (host) => {
    for (const word of ["a b", "$(id)", "x;y", "", "'"]) {
      const error = await assertRejects(() => runOnNode(host, OTHER, ["true", word], BOUNDS));
      assert(error instanceof TnblockError && error.code === "internal", word);
    }
  });
});

Deno.test("a node that cannot be reached says so, a program's own failure is its answer", async () => {
  const ssh =
    '#!/bin/sh\ncase "$*" in *true) exit 3;; *) echo "connection refused" >&2; exit 255;; esac\n';
  await withFiles({ "/usr/bin/ssh": ssh }, async (host) => {
    assertEquals((await runOnNode(host, OTHER, ["true"], BOUNDS)).status, 3);
    const error = await assertRejects(() => runOnNode(host, OTHER, ["uptime"], BOUNDS));
    assert(error instanceof TnblockError, String(error));
    assertEquals(error.code, "unreachable");
    assertEquals(error.message, "Cannot run uptime on node pve1: connection refused");
  });
});

Deno.test("a file is copied to the place that is named", async () => {
  const scp = '#!/bin/sh\nprintf "%s\\n" "$@" >"${0%/usr/bin/scp}/args"\n';
  await withFiles({ "/usr/bin/scp": scp }, async (host, root) => {
    const node = { ...OTHER, address: "fd00::1" };
    await copyToNode(host, node, "/usr/bin/tnblock", "/tmp/x", BOUNDS);
    const args = (await Deno.readTextFile(`${root}/args`)).trim().split("\n");
    assertEquals(args.slice(-3), ["--", "/usr/bin/tnblock", "root@[fd00::1]:/tmp/x"]);
  });
});
