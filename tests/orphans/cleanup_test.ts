/** Cleaning up end to end: simulated array, three simulated nodes. */
import { assert, assertEquals } from "@std/assert";
import { TRANSPORTS } from "../support/place.ts";
import { weightName } from "../../src/volumes/weight.ts";
import { Cluster, kept, offered } from "./support.ts";

/** The name of a volume's zvol. */
const zvolOf = (volname: string) =>
  `tank/pve/${/^vol-(.+)-(?:lun\d+|ns.{36})$/.exec(volname)?.[1]}`;

for (const transport of TRANSPORTS) {
  for (const release of ["25.10", "26"] as const) {
    Deno.test(`${transport} ${release}: a volume that nobody names is removed, and one that is named stays`, async () => {
      await using cluster = await Cluster.start(transport, { release });
      const { place } = cluster;
      const orphan = await place.alloc(100);
      const used = await place.alloc(101);
      await place.must("volume_snapshot", { volname: orphan, snapshot: "before" });
      await cluster.everywhere(
        "/etc/pve/nodes/pve2/qemu-server/101.conf",
        `[before]\nscsi0: san:${used},size=1G\n`,
      );
      cluster.age();
      const path = zvolOf(orphan);
      await cluster.clean(async (cleanup) => {
        const found = await cleanup.look();
        assertEquals([found.blocked, offered(found), found.kept], [[], [`volume ${path}`], []]);
        const { removed, left, stoppedBy, record } = await cleanup.remove(found.offered);
        assertEquals([removed.length, left.length, stoppedBy], [1, 0, undefined]);
        const kept = JSON.parse(await Deno.readTextFile(`${place.directory}${record}`));
        assertEquals(kept.removals[0].name, path);
        assert(kept.removals[0].ended !== undefined && kept.removals[0].error === undefined);
      });
      const { zvols, extents, mappings, namespaces } = await place.objects();
      assertEquals(zvols?.map(({ name }) => name), [zvolOf(used)]);
      const rows = transport === "iscsi" ? [1, 1, 0] : [0, 0, 1];
      assertEquals([extents, mappings, namespaces].map((one) => one?.length), rows);
      await place.must("activate_volume", { volname: used });
    });
  }

  Deno.test(`${transport}: nothing is offered while a node cannot be asked, without quorum, or while a task runs`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    await place.alloc(100);
    cluster.age();
    cluster.dead.add("pve3");
    let found = await cluster.look();
    assertEquals(offered(found), []);
    assert(found.blocked[0]?.startsWith("node pve3 could not be asked"), found.blocked[0]);
    cluster.dead.clear();
    await cluster.write(
      "pve2",
      "/var/log/pve/tasks/active",
      "UPID:pve2:0000ABCD:00001000:65000000:qmigrate:100:root@pam: 0\n",
    );
    await cluster.write(
      "pve2",
      "/proc/43981/stat",
      `43981 (task UPID) ${Array.from({ length: 19 }, () => "1").join(" ")} 4096 1\n`,
    );
    found = await cluster.look();
    assertEquals([offered(found), found.blocked], [[], ["a task runs on node pve2: qmigrate 100"]]);
    await cluster.write("pve2", "/proc/43981/stat", "");
    await Deno.remove(`${place.node("pve2").directory}/proc/43981/stat`);
    assertEquals(offered(await cluster.look()).length, 1);
    const members = JSON.parse(await Deno.readTextFile(`${place.directory}/etc/pve/.members`));
    members.cluster.quorate = 0;
    await cluster.write("pve1", "/etc/pve/.members", JSON.stringify(members));
    found = await cluster.look();
    assertEquals([offered(found), found.blocked], [[], ["the cluster has no quorum"]]);
  });

  Deno.test(`${transport}: what is attached on another node stays, and so does what is young`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const attached = await place.alloc(100);
    cluster.age();
    const young = await place.alloc(102);
    await place.must("activate_volume", { volname: attached }, { node: "pve2" });
    const found = await cluster.look();
    assertEquals(offered(found), []);
    assertEquals(kept(found), {
      [zvolOf(attached)]: ["it is attached on node pve2"],
      [zvolOf(young)]: ["it is younger than 24 hours"],
    });
  });

  Deno.test(`${transport}: rows whose zvol is gone are removed, and the target or subsystem stays`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const volname = await place.alloc(100);
    const path = zvolOf(volname);
    place.simulator.world.zfs.datasets.delete(path);
    const found = await cluster.look();
    assertEquals(offered(found), [`${transport === "iscsi" ? "extent" : "namespace"} ${path}`]);
    await cluster.clean(async (cleanup) => {
      const { removed, stoppedBy } = await cleanup.remove(found.offered);
      assertEquals([removed.length, stoppedBy], [1, undefined]);
    });
    const { extents, mappings, namespaces } = await place.objects();
    assertEquals([extents, mappings, namespaces], [[], [], []]);
    assertEquals(
      place.simulator.world.tables[transport === "iscsi" ? "target" : "subsys"].all().length,
      1,
    );
  });

  Deno.test(`${transport}: what begins to be used after the plan was shown stops the clean-up`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const volnames = [await place.alloc(100), await place.alloc(101), await place.alloc(102)];
    cluster.age();
    await cluster.clean(async (cleanup) => {
      const found = await cleanup.look();
      assertEquals(found.offered.length, 3);
      const path = zvolOf(volnames[1] ?? "");
      await cluster.everywhere(
        "/etc/pve/nodes/pve3/lxc/101.conf",
        `rootfs: san:${volnames[1]},size=1G\n`,
      );
      const { removed, left, stoppedBy } = await cleanup.remove(found.offered);
      assertEquals(removed.map(({ name }) => name), [zvolOf(volnames[0] ?? "")]);
      assertEquals(left.map(({ name }) => name), [path, zvolOf(volnames[2] ?? "")]);
      assertEquals(stoppedBy?.code, "in-use");
    });
    assertEquals((await place.objects()).zvols?.length, 2);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a half import, and a clone that another node reads no more, are removed`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const base = await place.alloc(100);
    await place.must("volume_snapshot", { volname: base, snapshot: "before" });
    await place.must("activate_volume", { volname: base, snapshot: "before" }, { node: "pve2" });
    await cluster.everywhere("/etc/pve/nodes/pve1/qemu-server/100.conf", `scsi0: san:${base}\n`);
    const coming = await place.alloc(101);
    const path = zvolOf(coming);
    await place.array((nas) => nas.zvols.setUserProperties(path, { "tnblock:importing": path }));
    cluster.age();
    assertEquals(offered(await cluster.look()), [`import ${path}`]);
    // The node was reset: its links are gone with its memory.
    const links = `${place.node("pve2").directory}/dev/tnblock/san`;
    await Deno.remove(`${links}/vm-100-disk-0@before`);
    await cluster.clean(async (cleanup) => {
      const found = await cleanup.look();
      assertEquals(found.offered.map(({ kind }) => kind).sort(), ["import", "reading"]);
      const { removed, stoppedBy } = await cleanup.remove(found.offered);
      assertEquals([removed.length, stoppedBy], [2, undefined]);
    });
    const { zvols, snapshots } = await place.objects();
    assertEquals(zvols?.map(({ name }) => name), [zvolOf(base)]);
    assertEquals(snapshots?.length, 1);
  });

  Deno.test(`${transport}: with a key that may not see replication tasks no volume is offered`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const path = zvolOf(await place.alloc(100));
    cluster.age();
    const user = place.simulator.world.users.get("tnblock");
    assert(user !== undefined);
    const full = { ...user };
    const roles = ["DATASET_WRITE", "SNAPSHOT_WRITE", "SNAPSHOT_DELETE", "DATASET_DELETE"];
    const more = ["ZFS_RESOURCE_READ", "SHARING_ISCSI_READ", "SHARING_NVME_TARGET_READ"];
    place.simulator.world.users.set("tnblock", { ...full, roles: [...roles, ...more] });
    const found = await cluster.look();
    assertEquals([offered(found), Object.keys(kept(found))], [[], [path]]);
    assert(kept(found)[path]?.[0]?.includes("REPLICATION_TASK_READ"));
    place.simulator.world.users.set("tnblock", {
      ...full,
      roles: [...roles, ...more, "REPLICATION_TASK_READ"],
    });
    assertEquals(offered(await cluster.look()), [`volume ${path}`]);
  });

  Deno.test(`${transport}: what a replication task sends, above it and recursively, stays`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    const path = zvolOf(await place.alloc(100));
    cluster.age();
    place.simulator.world.replications.push({
      ...{ id: 1, name: "nightly", direction: "PUSH", transport: "SSH", recursive: true },
      ...{ source_datasets: ["tank/pve"], target_dataset: "backup/pve", exclude: [] },
      ...{ enabled: false, state: { state: "FINISHED" } },
    });
    assertEquals(kept(await cluster.look()), {
      [path]: ['the replication "nightly" refers to it'],
    });
  });
}

Deno.test("iscsi: a mapping without extent and the weight of a target that is gone are removed, the own weight stays", async () => {
  await using cluster = await Cluster.start("iscsi");
  const { place } = cluster;
  const { world } = place.simulator;
  await place.must("validate_storage");
  await place.alloc(100);
  const iqn = "iqn.2005-10.org.freenas.ctl:gone";
  const path = `tank/pve/${weightName(iqn)}`;
  await place.array(async (nas) => {
    await nas.zvols.create({ name: path, volsize: 1 << 20, volblocksize: "16K", sparse: true });
    await nas.zvols.setUserProperties(path, {
      ...{ "tnblock:schema": "1", "tnblock:cluster": place.clusterId, "tnblock:storage": "san" },
      ...{ "tnblock:volume": path, "tnblock:op": crypto.randomUUID(), "tnblock:weight": iqn },
    });
  });
  cluster.age();
  await cluster.everywhere(
    "/etc/pve/nodes/pve1/qemu-server/100.conf",
    "scsi0: san:vol-vm-100-disk-0-lun1\n",
  );
  const { id } = world.tables.targetextent.insert({ target: 1, extent: 4711, lunid: 77 });
  const before = await place.objects({ weight: true });
  await cluster.clean(async (cleanup) => {
    const found = await cleanup.look();
    assertEquals(offered(found), [`mapping mapping ${id} (LUN 77)`, `weight ${path}`]);
    const { removed, stoppedBy } = await cleanup.remove(found.offered);
    assertEquals([removed.length, stoppedBy], [2, undefined]);
  });
  const after = await place.objects({ weight: true });
  assertEquals(after.zvols?.length, (before.zvols?.length ?? 0) - 1);
  assertEquals(after.mappings?.length, (before.mappings?.length ?? 0) - 1);
  assertEquals(after.extents?.length, before.extents?.length);
});

Deno.test("iscsi 25.04: an orphan is removed there too", async () => {
  await using cluster = await Cluster.start("iscsi", { release: "25.04" });
  const { place } = cluster;
  const path = zvolOf(await place.alloc(100));
  cluster.age();
  await cluster.clean(async (cleanup) => {
    const found = await cleanup.look();
    assertEquals([found.blocked, offered(found)], [[], [`volume ${path}`]]);
    assertEquals((await cleanup.remove(found.offered)).stoppedBy, undefined);
  });
  assertEquals((await place.objects()).zvols, []);
});

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: nothing is offered while a node that left the cluster is still connected`, async () => {
    await using cluster = await Cluster.start(transport);
    const { place } = cluster;
    await place.alloc(100);
    const volname = await place.alloc(101);
    await place.must("activate_volume", { volname }, { node: "pve3" });
    cluster.age();
    const members = JSON.parse(await Deno.readTextFile(`${place.directory}/etc/pve/.members`));
    delete members.nodelist.pve3;
    await cluster.everywhere("/etc/pve/.members", JSON.stringify(members));
    const { blocked, offered } = await cluster.look();
    assertEquals([blocked.length, offered], [1, []]);
    assert(blocked[0]?.endsWith("is connected to the array, and is none of the cluster's nodes"));
  });
}

Deno.test("iscsi 25.10 over REST: an orphan is removed there too", async () => {
  await using cluster = await Cluster.start("iscsi", { release: "25.10" });
  const { place } = cluster;
  const path = zvolOf(await place.alloc(100));
  cluster.age();
  const cfg = await Deno.readTextFile(`${place.directory}/etc/pve/storage.cfg`);
  const rest = cfg.replace(/^(tnblock: san)$/m, "$1\n\ttnb-api-transport rest");
  await cluster.everywhere("/etc/pve/storage.cfg", rest);
  await cluster.clean(async (cleanup) => {
    const found = await cleanup.look();
    assertEquals([found.blocked, offered(found), kept(found)], [[], [`volume ${path}`], {}]);
    assertEquals((await cleanup.remove(found.offered)).stoppedBy, undefined);
  });
  assertEquals((await place.objects()).zvols, []);
});
