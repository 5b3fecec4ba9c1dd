/** The whole client against the simulator, release by release: a disk's life at the array's side. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type ReleaseName, type Simulator, startSimulator } from "../../src/simulator/simulator.ts";
import { connectTrueNas, type TrueNas } from "../../src/truenas/array.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import { ArrayError, isInUse, isNotFound } from "../../src/truenas/errors.ts";
import { openSession, type SessionOptions } from "../../src/truenas/session.ts";

const MIB = 1024 ** 2;
const RELEASES: readonly ReleaseName[] = ["25.04", "25.10.0", "25.10", "26"];

function options(simulator: Simulator, more: Partial<SessionOptions> = {}): SessionOptions {
  const { host, port, user, apiKey, fingerprint } = simulator.ready;
  return {
    addresses: [host],
    port,
    user,
    apiKey,
    trust: { kind: "fingerprint", sha256: fingerprint },
    clock: systemClock,
    ...more,
  };
}

async function withArray(
  release: ReleaseName,
  run: (nas: TrueNas, simulator: Simulator) => Promise<void>,
): Promise<void> {
  const simulator = await startSimulator({ release });
  try {
    const nas = await connectTrueNas(options(simulator));
    await run(nas, simulator);
    nas.session.close();
  } finally {
    await simulator.stop();
  }
}

async function code(work: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(work);
  assertInstanceOf(error, ArrayError);
  return error.code;
}

const newZvol = (name: string) => ({
  name,
  volsize: 64 * MIB,
  volblocksize: "16K",
  sparse: true,
  userProperties: { "tnblock:volume": name },
});

for (const release of RELEASES) {
  Deno.test(`${release}: a zvol is made, marked, grown, listed and destroyed`, async () => {
    await withArray(release, async (nas, { ready: { dataset } }) => {
      const name = `${dataset}/vm-100-disk-0`;
      assertEquals(await nas.zvols.read(name), undefined);
      await nas.zvols.create(newZvol(name));
      assertEquals(await code(() => nas.zvols.create(newZvol(name))), "exists");
      assertEquals(await code(() => nas.zvols.create(newZvol("tank/no/such"))), "not-found");
      await nas.zvols.setUserProperties(name, { "tnblock:op": "1" });
      await nas.zvols.grow(name, 128 * MIB);
      const zvol = await nas.zvols.read(name);
      assert(zvol !== undefined);
      assertEquals([zvol.volsize, zvol.volblocksize, zvol.sparse], [128 * MIB, 16384, true]);
      assertEquals([zvol.origin, zvol.guid === undefined], [undefined, release === "25.04"]);
      assertEquals(zvol.userProperties["tnblock:volume"], name);
      assertEquals(zvol.userProperties["tnblock:op"], "1");
      await nas.zvols.setUserProperties(name, { "tnblock:op": undefined });
      const listing = await nas.zvols.list(dataset);
      const listed = listing.zvols.find((one) => one.name === name);
      assertEquals(listed?.userProperties, { "tnblock:volume": name });
      assert(listing.parent.available > 0);
      assertEquals((await nas.datasets.read(dataset))?.available, listing.parent.available);
      assertEquals((await nas.zvols.readSome([name, `${dataset}/none`])).length, 1);
      assertEquals(await code(() => nas.zvols.grow(name, 64 * MIB)), "invalid");
      if (release !== "25.04") {
        await nas.zvols.rename(name, `${name}x`);
        assertEquals((await nas.zvols.read(`${name}x`))?.guid, zvol.guid);
        await nas.zvols.rename(`${name}x`, name);
      }
      await nas.zvols.destroy(name);
      assertEquals(await nas.zvols.read(name), undefined);
      assert(isNotFound(await assertRejects(() => nas.zvols.destroy(name))));
      assertEquals(await code(() => nas.zvols.list(`${dataset}/none`)), "not-found");
    });
  });

  Deno.test(`${release}: snapshots are taken, cloned, guarded by their clones, and deleted`, async () => {
    await withArray(release, async (nas, { ready: { dataset } }) => {
      const name = `${dataset}/vm-101-disk-0`;
      const clone = `${dataset}/vm-102-disk-0`;
      await nas.zvols.create(newZvol(name));
      for (const snapshot of ["a", "b", "c"]) await nas.snapshots.create(name, snapshot);
      assertEquals(await code(() => nas.snapshots.create(name, "a")), "exists");
      assertEquals((await nas.snapshots.names(name)).toSorted(), ["a", "b", "c"]);
      await nas.zvols.clone(`${name}@a`, clone, {
        userProperties: { "tnblock:volume": clone },
      }, () => {});
      const cloned = await nas.zvols.read(clone);
      assertEquals([cloned?.origin, cloned?.volsize], [`${name}@a`, 64 * MIB]);
      assertEquals(await nas.zvols.clones(name), [{ name: clone, origin: `${name}@a` }]);
      const listed = await nas.snapshots.list(name);
      assertEquals(listed.map((snapshot) => snapshot.name), ["a", "b", "c"]);
      assert(listed.every((snapshot) => snapshot.createTxg > 0 && snapshot.createdMs > 0));
      assertEquals(await code(() => nas.snapshots.remove(name, "a")), "has-dependents");
      assertEquals(await code(() => nas.snapshots.rollback(name, "a")), "has-dependents");
      await nas.snapshots.rollback(name, "c");
      assertEquals(await nas.snapshots.read(name, "none"), undefined);
      await nas.zvols.destroy(clone);
      assertEquals(
        await nas.snapshots.removeSome(name, ["a", "b", "none"]).then((failed) =>
          failed.map((one) => one.name)
        ),
        ["none"],
      );
      if (release === "26") {
        assertEquals(await code(() => nas.zvols.destroy(name)), "has-dependents");
        await nas.snapshots.remove(name, "c");
      }
      await nas.zvols.destroy(name, { withSnapshots: true });
      assertEquals(await nas.zvols.read(name), undefined);
    });
  });

  Deno.test(`${release}: a zvol becomes a LUN and stops being one`, async () => {
    await withArray(release, async (nas, { ready: { dataset, targetIqn, portals } }) => {
      const zvol = `${dataset}/vm-103-disk-0`;
      await nas.zvols.create(newZvol(zvol));
      const global = await nas.iscsiGlobal.read();
      const target = await nas.targets.byIqn(targetIqn, global.basename);
      assert(target !== undefined);
      assertEquals((await nas.targets.all()).some((one) => one.id === target.id), true);
      const addresses = (await nas.portals.all()).flatMap((portal) => portal.addresses);
      for (const portal of portals.iscsi) {
        assert(addresses.some((address) => portal === `${address}:${global.port}`), portal);
      }
      const extent = await nas.extents.create({
        name: "vm-103-disk-0",
        zvol,
        blocksize: 512,
        comment: "tnblock",
      });
      assertEquals([extent.zvol, extent.naa.length, extent.comment], [zvol, 32, "tnblock"]);
      assertEquals(await nas.extents.byZvol(zvol), [extent]);
      assertEquals(await nas.extents.byName("vm-103-disk-0"), extent);
      assertEquals(await nas.extents.byIds([extent.id]), [extent]);
      const mapping = await nas.targetExtents.create({
        target: target.id,
        extent: extent.id,
        lun: 77,
      });
      assertEquals(mapping.lun, 77);
      assertEquals(
        (await nas.targetExtents.byTarget(target.id)).find((one) => one.id === mapping.id),
        mapping,
      );
      assertEquals(await nas.targetExtents.byExtents([extent.id]), [mapping]);
      await nas.targetExtents.remove(mapping.id, { force: true });
      await nas.extents.remove(extent.id, { force: true });
      assertEquals(await nas.extents.byZvol(zvol), []);
      assertEquals(
        await code(() => nas.extents.remove(extent.id, { force: true })),
        "not-found",
      );
      assertEquals(await nas.services.isRunning("iscsitarget"), true);
      assertEquals((await nas.services.state("iscsitarget"))?.running, true);
      assertEquals((await nas.pools.read("tank"))?.healthy, true);
      await nas.zvols.destroy(zvol);
    });
  });

  if (release === "25.04") continue;
  Deno.test(`${release}: a zvol becomes a namespace and stops being one`, async () => {
    await withArray(release, async (nas, { ready: { dataset, subsystemNqn, portals } }) => {
      const zvol = `${dataset}/vm-104-disk-0`;
      await nas.zvols.create(newZvol(zvol));
      const subsystem = await nas.subsystems.byNqn(subsystemNqn);
      assert(subsystem !== undefined);
      const ports = await nas.subsystems.ports(subsystem.id);
      assertEquals(ports, await nas.subsystems.portsByNqn(subsystemNqn));
      assertEquals(
        ports.map((port) => `${port.address}:${port.port}`).toSorted(),
        portals.nvme.toSorted(),
      );
      await nas.subsystems.hosts(subsystem.id);
      const namespace = await nas.namespaces.create({ subsystem: subsystem.id, zvol, nsid: 77 });
      assertEquals([namespace.nsid, namespace.zvol], [77, zvol]);
      assertEquals(await nas.namespaces.byZvol(zvol), namespace);
      for (
        const found of [
          await nas.namespaces.bySubsystem(subsystem.id),
          await nas.namespaces.byNqn(subsystemNqn),
          await nas.namespaces.all(),
        ]
      ) assertEquals(found.find((one) => one.id === namespace.id), namespace);
      const extent = { name: "x", zvol, blocksize: 512, comment: "" } as const;
      assert(isInUse(await assertRejects(() => nas.extents.create(extent))));
      await nas.namespaces.remove(namespace.id);
      assertEquals(await nas.namespaces.byZvol(zvol), undefined);
      await nas.zvols.destroy(zvol);
    });
  });
}

Deno.test("25.04 knows no NVMe: unsupported, not an empty list", async () => {
  await withArray("25.04", async (nas) => {
    assertEquals(await code(() => nas.subsystems.all()), "unsupported");
  });
});

Deno.test("a lost reply is an unknown outcome, and the deed is found by looking", async () => {
  await withArray("25.10", async (nas, simulator) => {
    const name = `${simulator.ready.dataset}/vm-105-disk-0`;
    simulator.setFaults([{ method: "pool.dataset.create", nth: 1, do: "done-then-drop" }]);
    const error = await assertRejects(() => nas.zvols.create(newZvol(name), { deadlineMs: 2000 }));
    assertInstanceOf(error, ArrayError);
    assertEquals(error.outcome, "unknown");
    const again = await connectTrueNas(options(simulator));
    assertEquals((await again.zvols.read(name))?.name, name);
    again.session.close();
  });
});

Deno.test("the simulator's changes come as events", async () => {
  await withArray("25.10", async (nas, simulator) => {
    const name = `${simulator.ready.dataset}/vm-106-disk-0`;
    const heard = Promise.withResolvers<string>();
    await nas.session.subscribe("pool.dataset.query", (event) => {
      if (event.kind === "added") heard.resolve(String(event.id));
    });
    await nas.zvols.create(newZvol(name));
    assertEquals(await Promise.race([heard.promise, systemClock.wait(5000)]), name);
  });
});

Deno.test("a wrong key and too many logins are told apart at the simulator too", async () => {
  const simulator = await startSimulator({ release: "25.10", loginLimit: 1 });
  try {
    const wrong = options(simulator, { apiKey: `1-${"x".repeat(64)}` });
    assertEquals(await code(() => openSession(wrong)), "auth");
    assertEquals(await code(() => openSession(options(simulator))), "rate-limited");
  } finally {
    await simulator.stop();
  }
});

Deno.test("a session at the simulator costs one login and, with the dialect known, one connection", async () => {
  const simulator = await startSimulator({ release: "25.10" });
  try {
    const session = await openSession(options(simulator, { dialect: "v25.10.0" }));
    const { logins, connections } = simulator.stats();
    assertEquals({ logins, connections }, { logins: 1, connections: 1 });
    session.close();
  } finally {
    await simulator.stop();
  }
});
