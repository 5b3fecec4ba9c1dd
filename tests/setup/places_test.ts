import { assert, assertEquals, assertRejects } from "@std/assert";
import type { TnblockError } from "../../src/common/error.ts";
import { datasetTaken, targetTaken } from "../../src/setup/free_targets.ts";
import type { Plan } from "../../src/setup/plan.ts";
import { leastRoles } from "../../src/setup/rights.ts";
import { makeChapSecret, makeDhchapSecret } from "../../src/setup/secrets.ts";
import { parseAllSections } from "../../src/setup/used_names.ts";
import { checkDhchapSecret } from "../../src/host/dhchap_secret.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { TRANSPORTS } from "../support/place.ts";
import { SetupPlace } from "./support.ts";

const CLUSTER = "11111111-2222-3333-4444-555555555555";

/** Datasets by their owner's mark, and why they are somebody's. */
const DATASETS: readonly (readonly [
  name: string,
  owner: string | undefined,
  cfg: string,
  why: string | undefined,
])[] = [
  ["tank/pve", undefined, "", undefined],
  ["tank/pve", `${CLUSTER}/gone`, "", undefined],
  ["tank/pve", "other/san", "", 'it belongs to storage "san" of another cluster'],
  ["tank/pve", undefined, "tnblock: a\n\ttnb-dataset tank/pve\n", 'storage "a" has it'],
  ["tank/pve/x", undefined, "tnblock: a\n\ttnb-dataset tank/pve\n", 'storage "a" has it'],
  ["tank", undefined, "tnblock: a\n\ttnb-dataset tank/pve\n", 'storage "a" has it'],
  ["tank/pve2", undefined, "tnblock: a\n\ttnb-dataset tank/pve\n", undefined],
  ["tank/pve", undefined, "truenasplugin: p\n\tdataset tank/pve\n", 'storage "p" has it'],
];

for (const [name, owner, cfg, why] of DATASETS) {
  Deno.test(`dataset ${name}, owned by ${owner ?? "nobody"}, beside "${cfg.trim()}": ${why ?? "free"}`, () => {
    const userProperties: Record<string, string> = owner === undefined
      ? {}
      : { "tnblock:owner": owner };
    const around = { sections: parseAllSections(cfg), clusterId: CLUSTER };
    const found = datasetTaken(around, { name, userProperties });
    assertEquals(found?.startsWith(why ?? "-") ?? undefined, why === undefined ? undefined : true);
  });
}

const IQN = "iqn.2005-10.org.freenas.ctl:pve";

/** Targets by what they carry, in the dataset tank/pve. */
const TARGETS: readonly (readonly [
  what: string,
  zvols: readonly string[],
  count: number,
  marks: Readonly<Record<string, Readonly<Record<string, string>>>>,
  cfg: string,
  isFree: boolean,
])[] = [
  ["nothing", [], 0, {}, "", true],
  ["a volume of ours without a mark", ["tank/pve/vm-1-disk-0"], 1, {}, "", true],
  ["a volume elsewhere", ["tank/other/vm-1-disk-0"], 1, {}, "", false],
  ["a weight elsewhere", ["tank/old/tnb-weight-0123abcd"], 1, {}, "", true],
  ["a file", [], 1, {}, "", false],
  ["another storage's section", [], 0, {}, `iscsi: x\n\tportal 10.0.0.1\n\ttarget ${IQN}\n`, false],
  [
    "another cluster's volume",
    ["tank/pve/vm-1-disk-0"],
    1,
    {
      "tank/pve/vm-1-disk-0": {
        ...{ "tnblock:volume": "tank/pve/vm-1-disk-0", "tnblock:storage": "san" },
        "tnblock:cluster": "another",
      },
    },
    "",
    false,
  ],
];

for (const [what, zvols, count, marks, cfg, isFree] of TARGETS) {
  Deno.test(`a target with ${what} is ${isFree ? "free" : "somebody's"}`, () => {
    const why = targetTaken(
      { sections: parseAllSections(cfg), clusterId: CLUSTER },
      { marks: new Map(Object.entries(marks)) },
      { name: IQN, zvols, count },
      { name: "tank/pve", userProperties: {} },
    );
    assertEquals(why === undefined, isFree, why);
  });
}

Deno.test("secrets are made in the form that TrueNAS and the kernel take", () => {
  const host = linuxHost();
  for (let turn = 0; turn < 20; turn++) {
    checkDhchapSecret(makeDhchapSecret(host));
    assert(/^[A-Za-z0-9]{16}$/.test(makeChapSecret(host)));
  }
});

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

for (const transport of TRANSPORTS) {
  Deno.test(`an address without a portal gets one (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    there.place.simulator.world.addresses = { own: ["127.0.0.1", "127.0.0.2", "10.9.9.9"] };
    const { steps } = await planned(there, { portals: "10.9.9.9" });
    const kinds = steps.map(({ action }) => action.kind);
    assert(kinds.includes(transport === "iscsi" ? "iscsi-portal" : "nvme-port"), kinds.join());
  });

  Deno.test(`a target or subsystem that another storage has is refused (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const { ready } = there.place.simulator;
    const target = transport === "iscsi" ? ready.targetIqn : ready.subsystemNqn;
    const option = transport === "iscsi" ? "tnb-target-iqn" : "tnb-subsystem-nqn";
    await there.write("/etc/pve/storage.cfg", `tnblock: other\n\t${option} ${target}\n`);
    const error = await assertRejects(() => planned(there, { target })) as TnblockError;
    assertEquals([error.code, error.field], ["not-ours", "--target"]);
  });

  Deno.test(`with the roles of the documentation a target that is there is enough (${transport})`, async () => {
    const release = { can: { nvmet: true, zfsResource: true, zfsResourceWrites: false } };
    const roles = leastRoles(transport, release as never);
    await using there = await SetupPlace.start(transport, { roles });
    const { ready } = there.place.simulator;
    const target = transport === "iscsi" ? ready.targetIqn : ready.subsystemNqn;
    await there.run(there.answers({ target }));
    assert((await there.read("/etc/pve/storage.cfg"))?.includes("tnblock: san"));
  });

  Deno.test(`a key without a role of daily work is refused, with the way to a right one (${transport})`, async () => {
    const release = { can: { nvmet: true, zfsResource: true, zfsResourceWrites: false } };
    const roles = leastRoles(transport, release as never).filter((role) =>
      role !== "SNAPSHOT_DELETE"
    );
    await using there = await SetupPlace.start(transport, { roles });
    const error = await assertRejects(() => planned(there)) as TnblockError;
    assertEquals(error.code, "denied");
    assert(error.message.endsWith("its user lacks SNAPSHOT_DELETE"), error.message);
    assert(error.hint?.includes("Credentials"), error.hint);
  });
}

Deno.test("a key that may not make a target is told so before anything is made", async () => {
  const release = { can: { nvmet: true, zfsResource: true, zfsResourceWrites: false } };
  await using there = await SetupPlace.start("iscsi", {
    roles: leastRoles("iscsi", release as never),
  });
  const error = await assertRejects(() => planned(there)) as TnblockError;
  assert(error.message.includes("SHARING_ISCSI_TARGET_WRITE"), error.message);
});

Deno.test("a service that does not run is named, with the place to start it", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.place.stopService("nvmet");
  await assertRejects(
    () => planned(there),
    "its service does not run: System > Services > NVMe-oF",
  );
});

for (
  const [release, transport] of [["25.04", "iscsi"], ["26", "iscsi"], ["26", "nvme-tcp"]] as const
) {
  Deno.test(`a storage on TrueNAS ${release} (${transport})`, async () => {
    await using there = await SetupPlace.start(transport, { release });
    await there.run(there.answers({ "dataset": "tank/new", "proof": "mutual" }));
    assert((await there.read("/etc/pve/storage.cfg"))?.includes("tnblock: san"));
  });
}
