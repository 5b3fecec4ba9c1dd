/** What the simulator sends and takes fits the published models of each dialect. */

import { assert, assertEquals } from "@std/assert";
import type { ReleaseName } from "../../src/simulator/simulator.ts";
import { schemaChecker } from "../support/schema_check.ts";
import { makeLun, makeZvol, onStage, playedDataSide } from "./world.ts";
import type { Stage } from "./world.ts";

/** Reads without parameters that every release has. */
const READS = [
  "core.ping",
  "core.get_jobs",
  "auth.me",
  "auth.sessions",
  "auth.mechanism_choices",
  "api_key.my_keys",
  "api_key.query",
  "system.version",
  "system.version_short",
  "system.ready",
  "system.state",
  "system.host_id",
  "system.product_type",
  "system.boot_id",
  "system.general.config",
  "service.query",
  "pool.dataset.query",
  "pool.dataset.details",
  "iscsi.global.config",
  "iscsi.global.sessions",
  "iscsi.global.client_count",
  "iscsi.global.alua_enabled",
  "iscsi.portal.query",
  "iscsi.portal.listen_ip_choices",
  "iscsi.initiator.query",
  "iscsi.auth.query",
  "iscsi.target.query",
  "iscsi.extent.query",
  "iscsi.extent.disk_choices",
  "iscsi.targetextent.query",
];
/** Reads that 25.04 has too, but whose old models there do not tell what it really answers. */
const LATER_READS = [
  "system.info",
  "pool.query",
  "core.get_methods",
  "nvmet.global.config",
  "nvmet.global.sessions",
  "nvmet.host.query",
  "nvmet.port.query",
  "nvmet.subsys.query",
  "nvmet.namespace.query",
  "nvmet.host_subsys.query",
  "nvmet.port_subsys.query",
  "zfs.resource.query",
];

async function iscsiLife({ client }: Stage, prefix: string): Promise<void> {
  const { extent, mapping } = await makeLun(client, "a");
  const zvol = "tank/pve/a";
  for (const service of ["extent", "targetextent"]) {
    const id = service === "extent" ? extent : mapping;
    await client.call(`iscsi.${service}.get_instance`, id);
  }
  await client.call("iscsi.extent.update", extent, { comment: "c" });
  await client.call("pool.dataset.update", zvol, { volsize: 2 ** 31, comments: "c" });
  await client.call("pool.dataset.attachments", zvol);
  await client.call(`${prefix}.create`, { dataset: zvol, name: "s" });
  await client.call(`${prefix}.query`, [["dataset", "=", zvol]], { extra: { holds: true } });
  await client.call(`${prefix}.get_instance`, `${zvol}@s`);
  await client.call(`${prefix}.hold`, `${zvol}@s`);
  await client.call(`${prefix}.release`, `${zvol}@s`);
  await client.call(`${prefix}.clone`, { snapshot: `${zvol}@s`, dataset_dst: "tank/pve/c" });
  await client.call("pool.dataset.promote", "tank/pve/c");
  await client.call(`${prefix}.rollback`, "tank/pve/c@s");
  await client.call("pool.dataset.get_instance", "tank/pve/c");
  await client.call("iscsi.targetextent.delete", mapping, true);
  await client.call("iscsi.extent.delete", extent, false, true);
  await client.call("pool.dataset.delete", zvol);
  await client.call("filesystem.statfs", "/mnt/tank/pve");
  await client.call("service.get_instance", 13);
  await client.call("service.started", "iscsitarget");
}

async function nvmetLife({ client }: Stage): Promise<void> {
  const zvol = await makeZvol(client, "n");
  const host = await client.call("nvmet.host.create", { hostnqn: "nqn.2014-08.org.example:h" });
  const link = await client.call("nvmet.host_subsys.create", { host_id: host.id, subsys_id: 1 });
  const space = await client.call("nvmet.namespace.create", {
    subsys_id: 1,
    device_type: "ZVOL",
    device_path: `zvol/${zvol}`,
    nsid: 77,
  });
  await client.call("nvmet.namespace.get_instance", space.id);
  await client.call("nvmet.namespace.update", space.id, { enabled: false });
  await client.call("nvmet.subsys.query", [], { extra: { verbose: true } });
  await client.call("nvmet.host_subsys.get_instance", link.id);
  await client.call("nvmet.host.generate_key", "SHA-256");
  await client.call("zfs.resource.query", {
    paths: ["tank/pve"],
    get_children: true,
    get_user_properties: true,
    properties: ["volsize", "used", "available", "volblocksize", "refreservation", "origin"],
  });
  await client.call("pool.dataset.rename", zvol, { new_name: "tank/pve/m", force: true });
  await client.call("nvmet.namespace.delete", space.id);
  await client.call("service.control", "RELOAD", "nvmet");
}

async function life26({ client }: Stage): Promise<void> {
  const path = await makeZvol(client, "z");
  const named = (verb: string, data: object) => client.call(`zfs.resource.snapshot.${verb}`, data);
  await named("create", { dataset: path, name: "s", user_properties: { "a:b": "c" } });
  await named("query", { paths: [path], get_holds: true, get_user_properties: true });
  await named("query", { paths: [`${path}@s`], properties: ["used", "volsize"], get_source: true });
  await named("count", { paths: [path] });
  await named("hold", { path: `${path}@s` });
  assertEquals(await named("holds", { path: `${path}@s` }), ["truenas"]);
  await named("release", { path: `${path}@s` });
  await named("rename", { current_name: `${path}@s`, new_name: `${path}@t` });
  await named("clone", { snapshot: `${path}@t`, dataset: "tank/pve/y" });
  await named("rollback", { path: `${path}@t` });
  await client.call("zfs.resource.destroy", { path: "tank/pve/y" });
  await named("destroy", { path: `${path}@t` });
  await client.call("zfs.resource.destroy", { path });
}

const RELEASES: readonly ReleaseName[] = ["25.04", "25.10.0", "25.10", "26"];

for (const release of RELEASES) {
  Deno.test(`requests and results of ${release} fit its published models`, async () => {
    const schema = schemaChecker();
    const dataSide = playedDataSide({
      sessions: () => ({
        iscsi: [{ iqn: "iqn.x:y", initiator: "iqn.z", address: "127.0.0.1" }],
        nvmet: [{ nqn: "nqn.a", hostNqn: "nqn.b", address: "127.0.0.1", portAddress: "127.0.0.2" }],
      }),
    });
    const options = { release, volumes: 2, dataSide, onExchange: schema.onExchange };
    await onStage(options, async (stage) => {
      await iscsiLife(stage, release === "25.04" ? "zfs.snapshot" : "pool.snapshot");
      if (release !== "25.04") await nvmetLife(stage);
      if (release === "26") await life26(stage);
      for (const method of release === "25.04" ? READS : [...READS, ...LATER_READS]) {
        await stage.client.call(method);
      }
    });
    assertEquals(schema.problems(), []);
  });
}

Deno.test("the schema check notices an unknown key", async () => {
  const schema = schemaChecker();
  await onStage({ onExchange: schema.onExchange }, async ({ client }) => {
    await client.send("iscsi.extent.create", [{ name: "a", nosuch: 1 }]);
  });
  assert(schema.problems()[0]?.includes("nosuch"));
  assertEquals(schema.resultProblems(), []);
});
