/** `tnblock cleanup-orphans` as somebody at a terminal has it, and as a script does. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { runCleanupOrphans } from "../../src/cli/cleanup_orphans.ts";
import type { Host } from "../../src/host/host.ts";
import { TnblockError } from "../../src/common/error.ts";
import { KEY, Pty } from "../support/pty.ts";
import { Cluster } from "./support.ts";

const BUN = new URL("../../node_modules/.bin/bun", import.meta.url).pathname;
const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

/** Lets pve1 reach pve2 by its own ssh, which runs the program there. */
async function withSsh(cluster: Cluster): Promise<string> {
  const { place } = cluster;
  for (const [name, { directory }] of place.nodes) {
    await Deno.mkdir(`${directory}/etc`, { recursive: true });
    await Deno.writeTextFile(`${directory}/etc/hostname`, `${name}\n`);
  }
  const other = place.node("pve2").directory;
  const { directory } = place;
  await Deno.mkdir(`${directory}/usr/bin`, { recursive: true });
  const script = `#!/bin/sh
case "$*" in *"root@10.0.0.2 -- /usr/local/bin/tnblock "*) ;; *) echo "wrong: $*" >&2; exit 255;; esac
while [ "$1" != /usr/local/bin/tnblock ]; do shift; done
shift
exec '${BUN}' --no-env-file run '${MAIN}' --root '${other}' "$@"
`;
  await Deno.writeTextFile(`${directory}/usr/bin/ssh`, script, { mode: 0o755 });
  return directory;
}

Deno.test("in a terminal the plan is shown, and only the storage's typed name removes anything", async () => {
  await using cluster = await Cluster.start("nvme-tcp", { nodes: ["pve1", "pve2"] });
  const { place } = cluster;
  await place.alloc(100);
  const held = await place.alloc(101);
  await place.must("activate_volume", { volname: held }, { node: "pve2" });
  cluster.age();
  const root = await withSsh(cluster);
  const args = ["--no-env-file", "run", MAIN, "--root", root, "cleanup-orphans", "san"];
  const env = { TNBLOCK_LOGIN_BUDGET: "0" };
  for (const [keys, status] of [[`yes${KEY.enter}`, 130], [KEY.ctrlC, 130]] as const) {
    await using terminal = new Pty(BUN, args, { env });
    await terminal.shows("it is attached on node pve2");
    await terminal.shows("destroy zvol tank/pve/vm-100-disk-0");
    await terminal.answers("Remove 1 orphan of storage san?", keys);
    await terminal.shows("Nothing was removed");
    assertEquals(await terminal.ends(), status);
  }
  assertEquals((await place.objects()).zvols?.length, 2);
  await using terminal = new Pty(BUN, args, { env });
  await terminal.answers("Remove 1 orphan of storage san?", `san${KEY.enter}`);
  await terminal.shows("removed: volume tank/pve/vm-100-disk-0");
  await terminal.shows("Record: /var/log/tnblock/cleanup-san-");
  assertEquals(await terminal.ends(), 0);
  assertEquals((await place.objects()).zvols?.map(({ name }) => name), ["tank/pve/vm-101-disk-0"]);
});

/** Runs it without a terminal. */
async function run(cluster: Cluster, flags: Record<string, boolean>, host: Host = cluster.host()) {
  const printed = { out: "", err: "" };
  const context = {
    out: (text: string) => void (printed.out += text),
    deliver: () => Promise.resolve(true),
    err: (text: string) => void (printed.err += text),
    input: (async function* () {})(),
    isTerminal: false,
    env: { TNBLOCK_LOGIN_BUDGET: "0" },
    root: cluster.place.directory,
    stopped: () => new Promise<void>(() => {}),
  };
  const all = { storage: undefined, json: false, yes: false, dryRun: false, nodeFacts: false };
  const status = await runCleanupOrphans(context, { ...all, ...flags }, { host, asker: undefined });
  return { status, ...printed };
}

Deno.test("without a terminal it only reports, whatever the output; with --yes it removes what is offered", async () => {
  await using cluster = await Cluster.start("iscsi");
  const { place } = cluster;
  await place.alloc(100);
  cluster.age();
  await place.alloc(101);
  const before = JSON.stringify(await place.objects());
  const plain = await run(cluster, {});
  assertEquals(plain.status, 0);
  assertStringIncludes(plain.out, "vm-101-disk-0: it is younger than 24 hours");
  assertStringIncludes(
    (await run(cluster, { dryRun: true })).out,
    "  destroy zvol tank/pve/vm-100-disk-0\n",
  );
  const { schemaVersion, storages: [san] } = JSON.parse((await run(cluster, { json: true })).out);
  assertEquals([schemaVersion, san.storage, san.offered.length, san.kept.length], [1, "san", 1, 1]);
  assertEquals(JSON.stringify(await place.objects()), before);
  const error = await assertRejects(() => run(cluster, { yes: true, dryRun: true }));
  assert(error instanceof TnblockError && error.code === "invalid");
  const done = await run(cluster, { yes: true, json: true });
  assertEquals(done.status, 0);
  assertEquals(JSON.parse(done.out).storages[0].result.removed.length, 1);
  assertEquals((await place.objects()).zvols?.map(({ name }) => name), ["tank/pve/vm-101-disk-0"]);
  cluster.dead.add("pve2");
  const blocked = await run(cluster, { yes: true });
  assertEquals(blocked.status, 5);
  assertStringIncludes(blocked.err, "node pve2 could not be asked");
});
