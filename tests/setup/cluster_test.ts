import { assert, assertEquals, assertRejects } from "@std/assert";
import { chmod, mkdir } from "node:fs/promises";
import type { TnblockError } from "../../src/common/error.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";
import type { Plan } from "../../src/setup/plan.ts";
import { SetupPlace, SHIM_FILE } from "./support.ts";

/** What the other node prints, behind a stand-in for ssh. */
async function withSecondNode(
  there: SetupPlace,
  facts: Record<string, unknown> | undefined,
  isOnline = true,
): Promise<void> {
  const node = (ip: string, online: boolean) => ({ id: 1, online: online ? 1 : 0, ip });
  await there.write(
    "/etc/pve/.members",
    JSON.stringify({
      nodename: "pve1",
      cluster: { name: "lab", quorate: 1 },
      nodelist: { pve1: node("10.0.0.1", true), pve2: node("10.0.0.2", isOnline) },
    }),
  );
  const told = facts === undefined ? "exit 127" : `cat <<'END'\n${JSON.stringify(facts)}\nEND`;
  await mkdir(`${there.directory}/usr/bin`, { recursive: true });
  await there.write(
    "/usr/bin/ssh",
    `#!/bin/sh\nprintf '%s\\n' "$*" >>"\${0%/usr/bin/ssh}/run/ssh"\n${told}\n`,
  );
  await chmod(`${there.directory}/usr/bin/ssh`, 0o755);
}

async function sha256(text: string): Promise<string> {
  const bytes = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function factsOf(change: Record<string, unknown> = {}) {
  return {
    ...{ schemaVersion: 1, node: "pve2", version: "0.1.0", shim: await sha256(SHIM) },
    hostNqn: "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555",
    initiator: "iqn.1993-08.org.debian:01:second",
    ...change,
  };
}

async function planned(there: SetupPlace, change = {}): Promise<Plan> {
  let plan: Plan | undefined;
  await there.run(there.answers(change), {
    decide: (prepared) => {
      plan = prepared.plan;
      return Promise.resolve();
    },
  });
  assert(plan !== undefined);
  return plan;
}

Deno.test("every node of the cluster is let in, by the name that it tells", async () => {
  for (const transport of ["nvme-tcp", "iscsi"] as const) {
    await using there = await SetupPlace.start(transport);
    await withSecondNode(there, await factsOf());
    await there.run(there.answers());
    const objects = await there.objects();
    const names = transport === "iscsi"
      ? objects.initiator[0].initiators
      : objects.host.map((one: { hostnqn: string }) => one.hostnqn);
    assertEquals(names.length, 2);
    const { hostNqn, initiator } = await factsOf();
    assert(names.includes(transport === "iscsi" ? initiator : hostNqn));
    assert((await there.read("/run/ssh"))?.includes("setup --node-facts"));
  }
});

const LACKING: readonly (readonly [string, Record<string, unknown> | undefined, string])[] = [
  ["has no plugin", { shim: null }, "pve2 (it is not installed)"],
  ["has another version's", { shim: "00" }, "pve2 (it is of another version)"],
  ["has no tnblock", undefined, "pve2 (Cannot ask node pve2"],
];

for (const [what, change, words] of LACKING) {
  Deno.test(`a node that is online and ${what} refuses the storage`, async () => {
    await using there = await SetupPlace.start("nvme-tcp");
    await withSecondNode(there, change === undefined ? undefined : await factsOf(change));
    const files = await there.files();
    const error = await assertRejects(() => there.run(there.answers())) as TnblockError;
    assert(error.message.includes(words), error.message);
    assertEquals(error.hint, "Run: tnblock install --all-nodes");
    assertEquals(await there.files(), files);
  });
}

Deno.test("this node's own plugin is looked at as well", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.write(SHIM_FILE, "package Old;");
  await assertRejects(() => there.run(there.answers()), "pve1 (it is of another version)");
});

Deno.test("a node that is offline is told of, and not let in", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await withSecondNode(there, undefined, false);
  const { notes, steps } = await planned(there);
  assert(notes.some((note) => note.includes("node pve2 is offline")), notes.join("\n"));
  const hosts = steps.flatMap(({ action }) => action.kind === "host" ? [action.node] : []);
  assertEquals(hosts, ["pve1"]);
});

Deno.test("two nodes with one name are refused: both would write to one disk", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const hostNqn = (await there.read("/etc/nvme/hostnqn"))?.trim();
  await withSecondNode(there, await factsOf({ hostNqn }));
  const error = await assertRejects(() => there.run(there.answers())) as TnblockError;
  assert(error.message.startsWith("Cannot use nodes pve1 and pve2"), error.message);
});

Deno.test("a node without an NVMe host name gets one, after the yes", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await Deno.remove(`${there.directory}/etc/nvme`, { recursive: true });
  const { steps } = await planned(there);
  assertEquals(steps[0]?.action, { kind: "identity", node: "pve1" });
  assertEquals(await there.read("/etc/nvme/hostnqn"), undefined);
  await there.run(there.answers());
  const { host } = await there.objects();
  assertEquals(host[0].hostnqn, (await there.read("/etc/nvme/hostnqn"))?.trim());
});

Deno.test("only the nodes that use the storage are let in", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await withSecondNode(there, await factsOf());
  const { steps } = await planned(there, { nodes: "pve1" });
  const hosts = steps.flatMap(({ action }) => action.kind === "host" ? [action.node] : []);
  assertEquals(hosts, ["pve1"]);
  await assertRejects(() => planned(there, { nodes: "pve2" }), "this node must be among them");
});
