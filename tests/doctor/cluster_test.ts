import { assert, assertEquals } from "@std/assert";
import { fromFileUrl } from "./paths.ts";
import { VERSION as OWN_VERSION } from "../../src/cli/version.ts";
import { CLUSTER_CHECKS } from "../../src/doctor/checks/cluster.ts";
import { openDoctor } from "../../src/doctor/doctor.ts";
import { gatherFacts, type NodeFacts } from "../../src/doctor/node_facts.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { SHIM as OWN_SHIM } from "../../src/pve/shim/shim.ts";
import { Healthy, SHIM, VERSION } from "./healthy.ts";

const NODES = ["pve1", "pve2", "pve3"] as const;

const addressOf = (name: string) => `10.0.0.${name.slice(-1)}`;

/** What pmxcfs tells; `offline` of a node that is away. */
function members(offline?: string): string {
  return JSON.stringify({
    nodename: "pve1",
    version: 9,
    cluster: { name: "lab", version: 3, nodes: 3, quorate: 1 },
    nodelist: Object.fromEntries(
      NODES.map((name) => [name, { id: 1, online: name === offline ? 0 : 1, ip: addressOf(name) }]),
    ),
  });
}

/** Three nodes of which all is well; what the others tell is in files that the stub of ssh prints. */
async function healthyCluster(transport: "nvme-tcp" | "iscsi" = "nvme-tcp"): Promise<Healthy> {
  const healthy = await Healthy.start(transport, { nodes: [...NODES] });
  await healthy.write("/etc/pve/.members", members());
  const cfg = await healthy.read("/etc/pve/storage.cfg");
  const guest = await healthy.read("/etc/pve/nodes/pve1/qemu-server/100.conf");
  for (const name of NODES.slice(1)) {
    const { directory } = healthy.place.node(name);
    await Deno.writeTextFile(`${directory}/etc/hostname`, `${name}\n`);
    await Deno.writeTextFile(`${directory}/etc/pve/storage.cfg`, cfg);
    await Deno.mkdir(`${directory}/etc/pve/nodes/pve1/qemu-server`, { recursive: true });
    await Deno.writeTextFile(`${directory}/etc/pve/nodes/pve1/qemu-server/100.conf`, guest);
    await healthy.place.must("activate_storage", {}, { node: name });
  }
  await healthy.write(
    "/usr/bin/ssh",
    '#!/bin/sh\nroot=${0%/usr/*}\nfor word in "$@"; do case $word in root@*) to=${word#root@};; esac; done\n' +
      'exec cat "$root/run/facts-$to"\n',
    0o755,
  );
  for (const name of NODES.slice(1)) await tell(healthy, name, await factsOf(healthy, name));
  return healthy;
}

/** What a node tells of itself; its daemon is played by what it says. */
async function factsOf(healthy: Healthy, name: string): Promise<NodeFacts> {
  const { directory } = healthy.place.node(name);
  const host = linuxHost({ root: directory });
  const doctor = openDoctor({ host, version: VERSION, shim: SHIM, limitLogins: false });
  try {
    const facts = await gatherFacts(doctor);
    const { ready } = healthy.place.simulator;
    const live = healthy.place.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
    return {
      ...facts,
      daemon: VERSION,
      storages: facts.storages.map((storage) => ({ ...storage, live: [...live].sort() })),
      results: facts.results.filter(({ id }) => id !== "daemon"),
    };
  } finally {
    await doctor.close();
  }
}

async function tell(healthy: Healthy, name: string, facts: NodeFacts): Promise<void> {
  await healthy.write(`/run/facts-${addressOf(name)}`, JSON.stringify(facts));
}

async function change(
  healthy: Healthy,
  name: string,
  to: (facts: NodeFacts) => Partial<NodeFacts>,
): Promise<void> {
  const facts = JSON.parse(await healthy.read(`/run/facts-${addressOf(name)}`)) as NodeFacts;
  await tell(healthy, name, { ...facts, ...to(facts) });
}

async function foundBy(healthy: Healthy): Promise<string[]> {
  const { results } = await healthy.look({ cluster: true });
  const findings = results.flatMap((result) => result.findings);
  for (const { guide } of findings) assertEquals(guide.length, 5);
  return findings.map(({ check, node, text }) => `${check} (${node}): ${text}`);
}

for (const transport of ["nvme-tcp", "iscsi"] as const) {
  Deno.test(`nothing is found in a cluster where all is well, over ${transport}`, async () => {
    await using healthy = await healthyCluster(transport);
    assertEquals(await foundBy(healthy), []);
  });
}

interface ClusterPlant {
  readonly check: typeof CLUSTER_CHECKS[number]["id"];
  readonly what: string;
  readonly text: RegExp;
  readonly plant: (healthy: Healthy) => Promise<unknown>;
}

const PLANTS: readonly ClusterPlant[] = [
  {
    check: "cluster-nodes",
    what: "a node that is offline",
    text: /node pve3 .*offline/,
    plant: (healthy) => healthy.write("/etc/pve/.members", members("pve3")),
  },
  {
    check: "cluster-nodes",
    what: "a node that ssh does not reach",
    text: /node pve2 .*refused/,
    plant: (healthy) =>
      healthy.write("/usr/bin/ssh", SSH_REFUSED.replace("ROOT", "${0%/usr/*}"), 0o755),
  },
  {
    check: "cluster-nodes",
    what: "a node that tells something else",
    text: /pve2 does not tell how it is/,
    plant: (healthy) => healthy.write(`/run/facts-${addressOf("pve2")}`, "tnblock: what?\n"),
  },
  {
    check: "cluster-nodes",
    what: "a cluster without quorum",
    text: /no quorum/,
    plant: (healthy) =>
      healthy.write("/etc/pve/.members", members().replace('"quorate":1', '"quorate":0')),
  },
  {
    check: "cluster-versions",
    what: "a node with an older tnblock",
    text: /tnblock: 1\.2\.3 on pve1, pve2; 1\.1\.0 on pve3/,
    plant: (healthy) => change(healthy, "pve3", () => ({ version: "1.1.0" })),
  },
  {
    check: "cluster-versions",
    what: "a node with another plugin",
    text: /the plugin's file/,
    plant: (healthy) => change(healthy, "pve2", () => ({ shim: "ab".repeat(32) })),
  },
  {
    check: "cluster-identity",
    what: "a node that was cloned",
    text: /pve2 and pve3 have the same host NQN/,
    plant: async (healthy) => {
      const facts = JSON.parse(await healthy.read(`/run/facts-${addressOf("pve2")}`)) as NodeFacts;
      await change(healthy, "pve3", () => ({ hostNqn: facts.hostNqn }));
    },
  },
  {
    check: "cluster-hosts",
    what: "a node that the array does not let in",
    text: /does not let node pve2 in to "san"/,
    plant: (healthy) => change(healthy, "pve2", () => ({ hostNqn: "nqn.2014-08.org:other" })),
  },
  {
    check: "cluster-clock",
    what: "a node whose clock is wrong",
    text: /node pve2 is \d+ s ahead/,
    plant: (healthy) => change(healthy, "pve2", ({ timeMs }) => ({ timeMs: timeMs + 60_000 })),
  },
  {
    check: "cluster-parity",
    what: "a node that is connected to fewer portals",
    text: /node pve3 is connected to 1 portal of "san", others to 2/,
    plant: (healthy) =>
      change(healthy, "pve3", ({ storages }) => ({
        storages: storages.map((one) => ({ ...one, live: one.live.slice(0, 1) })),
      })),
  },
  {
    check: "cluster-parity",
    what: "a node that reads another section",
    text: /different sections for "san"/,
    plant: (healthy) =>
      change(healthy, "pve2", ({ storages }) => ({
        storages: storages.map((one) => ({ ...one, section: "00" })),
      })),
  },
];

const SSH_REFUSED =
  '#!/bin/sh\nroot=ROOT\ncase "$*" in *root@10.0.0.2*) echo "connection refused" >&2; exit 255;; esac\n' +
  'exec cat "$root/run/facts-10.0.0.3"\n';

for (const { check, what, text, plant } of PLANTS) {
  Deno.test(`${what} is found by ${check} alone`, async () => {
    await using healthy = await healthyCluster();
    await plant(healthy);
    const found = await foundBy(healthy);
    assertEquals(found.length, 1, found.join("\n"));
    assert(found[0]?.startsWith(`${check} (pve1): `) && text.test(found[0]), found[0]);
  });
}

Deno.test("every check that compares nodes has a fault planted for it", () => {
  const planted = new Set(PLANTS.map(({ check }) => check));
  assertEquals([...planted].sort(), CLUSTER_CHECKS.map(({ id }) => id).sort());
});

Deno.test("that the nodes are not known is told once", async () => {
  await using healthy = await healthyCluster();
  await healthy.write("/etc/pve/.members", "{");
  const { results } = await healthy.look({ cluster: true });
  const ids = CLUSTER_CHECKS.map(({ id }) => id as string);
  assertEquals(
    results.filter(({ id }) => ids.includes(id)).map(({ id, outcome }) => [id, outcome]),
    ids.map((id) => [id, id === "cluster-nodes" ? "broken" : "skipped"]),
  );
});

Deno.test("what another node finds by itself is told with its name", async () => {
  await using healthy = await healthyCluster();
  await Deno.remove(`${healthy.place.node("pve2").directory}/usr/local/bin/tnblock`);
  await tell(healthy, "pve2", await factsOf(healthy, "pve2"));
  const found = await foundBy(healthy);
  assertEquals(found, ["binary (pve2): /usr/local/bin/tnblock is not there"]);
});

Deno.test("the program itself is run on the other nodes", async () => {
  await using healthy = await healthyCluster();
  const run = [
    `exec "${fromFileUrl("../../node_modules/.bin/bun")}" --no-env-file run`,
    `"${fromFileUrl("../../src/main.ts")}" --root`,
  ].join(" ");
  const cases = NODES.slice(1).map((name) =>
    `root@${addressOf(name)}) ${run} "${healthy.place.node(name).directory}" doctor --node-facts;;`
  );
  await healthy.write(
    "/usr/bin/ssh",
    `#!/bin/sh\nfor word in "$@"; do case $word in\n${cases.join("\n")}\nesac; done\n`,
    0o755,
  );
  const { results } = await healthy.look({
    cluster: true,
    ids: ["cluster-nodes", "cluster-versions"],
  }, {
    version: OWN_VERSION,
    shim: OWN_SHIM,
  });
  // The stand-in for the shim is everywhere; no daemon runs on the others.
  assertEquals(results.flatMap(({ findings }) => findings.map(({ text }) => text)), []);
  assertEquals(results.map(({ outcome }) => outcome), ["ok", "ok"]);
});
