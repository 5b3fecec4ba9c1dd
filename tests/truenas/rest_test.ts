/** REST against the simulator: the same requests, results and errors as over the WebSocket. */
import { assertEquals } from "@std/assert";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { bindResources } from "../../src/truenas/array.ts";
import { systemClock } from "../../src/truenas/clock.ts";
import { restCall } from "../../src/truenas/rest_calls.ts";
import { openRestSession } from "../../src/truenas/rest_session.ts";
import { openSession, type Session, type SessionOptions } from "../../src/truenas/session.ts";
import { failure } from "../support/rest_cases.ts";

// The requests

Deno.test("a query is a GET with its filters in the body, whatever they are", () => {
  assertEquals(restCall("iscsi.extent.query", [[["id", "in", [1, 2]]], { select: ["id"] }]), {
    verb: "GET",
    path: "iscsi/extent",
    body: '{"query-filters":[["id","in",[1,2]]],"query-options":{"select":["id"]}}',
  });
});

Deno.test("the id of an item is one segment of the path", () => {
  assertEquals(restCall("pool.dataset.update", ["tank/pve/vm 1", { volsize: 1 }]), {
    verb: "PUT",
    path: "pool/dataset/id/tank%2Fpve%2Fvm%201",
    body: '{"volsize":1}',
  });
  assertEquals(
    restCall("pool.snapshot.delete", ["tank/a@b", { defer: false }])?.path,
    [
      "pool/snapshot/id/tank%2Fa%40b",
    ][0],
  );
});

Deno.test("one parameter is the body itself, several are an object of their names", () => {
  const body = (method: string, params: unknown[]) => restCall(method, params)?.body;
  assertEquals(body("iscsi.targetextent.delete", [7, true]), "true");
  assertEquals(body("iscsi.extent.delete", [7, false, true]), '{"remove":false,"force":true}');
  assertEquals(body("service.started", ["iscsitarget"]), '"iscsitarget"');
  assertEquals(body("pool.snapshot.rollback", ["a@b", {}]), '{"id":"a@b","options":{}}');
  assertEquals(body("pool.dataset.promote", ["tank/a"]), undefined);
  assertEquals(body("system.version", []), undefined);
});

Deno.test("what REST does not offer has no request", () => {
  for (const method of ["core.bulk", "core.subscribe", "auth.me", "toString"]) {
    assertEquals(restCall(method, []), undefined, method);
  }
});

// Both ways end in the same

const RELEASES = ["25.04", "25.10.0", "25.10"] as const;

/** Sessions of both kinds with one simulator. */
async function both(
  release: typeof RELEASES[number],
  work: (rest: Session, ws: Session) => Promise<void>,
): Promise<void> {
  const simulator = await startSimulator({ release, loginLimit: 0 });
  const { host, port, user, apiKey, fingerprint } = simulator.ready;
  const options: SessionOptions = {
    addresses: [host],
    port,
    user,
    apiKey,
    trust: { kind: "fingerprint", sha256: fingerprint },
    clock: systemClock,
  };
  const rest = await openRestSession(options);
  const ws = await openSession(options);
  try {
    await work(rest, ws);
  } finally {
    rest.close();
    ws.close();
    await simulator.stop();
  }
}

for (const release of RELEASES) {
  Deno.test(`${release}: every resource reads over REST what it reads over the WebSocket`, async () => {
    await both(release, async (rest, ws) => {
      const [a, b] = [bindResources(rest), bindResources(ws)];
      const name = "tank/pve/vm-1-disk-0";
      await a.zvols.create({
        name,
        volsize: 1 << 30,
        volblocksize: "16K",
        sparse: true,
        userProperties: { "tnblock:x": 'with "quotes", ümlaut' },
      });
      const extent = await a.extents.create({
        name: "vm-1-disk-0",
        zvol: name,
        blocksize: 512,
        comment: "c",
      });
      await a.targetExtents.create({ target: 1, extent: extent.id, lun: 7 });
      await a.snapshots.create(name, "one", { "tnblock:y": "1" });
      await a.snapshots.clone(`${name}@one`, "tank/pve/vm-2-disk-0", { "tnblock:z": "2" });
      const look = async ({ ...nas }: typeof a) => [
        await nas.datasets.read("tank/pve"),
        await nas.zvols.read(name),
        await nas.zvols.read("tank/pve/none"),
        await nas.zvols.readSome([name, "tank/pve/none", "tank/pve/vm-2-disk-0"]),
        await nas.zvols.list("tank/pve"),
        await nas.zvols.clones(name),
        await nas.snapshots.names(name),
        await nas.snapshots.list(name),
        await nas.snapshots.read(name, "one"),
        await nas.extents.all(),
        await nas.extents.byName("vm-1-disk-0"),
        await nas.extents.byZvol(name),
        await nas.extents.byIds([extent.id, 99]),
        await nas.targetExtents.all(),
        await nas.targetExtents.byTarget(1),
        await nas.targetExtents.byExtents([extent.id]),
        await nas.targets.all(),
        await nas.targets.byIqn("iqn.2005-10.org.freenas.ctl:none", "iqn.2005-10.org.freenas.ctl"),
        await nas.portals.all(),
        await nas.iscsiGlobal.read(),
        await nas.pools.read("tank"),
        await nas.pools.read("none"),
        await nas.services.isRunning("iscsitarget"),
        await nas.services.state("iscsitarget"),
      ];
      assertEquals(await look(a), await look(b));
      assertEquals(
        (await a.zvols.read(name))?.userProperties["tnblock:x"],
        'with "quotes", ümlaut',
      );
    });
  });

  Deno.test(`${release}: every resource writes over REST`, async () => {
    await both(release, async (rest, ws) => {
      const [a, b] = [bindResources(rest), bindResources(ws)];
      const name = "tank/pve/vm-1-disk-0";
      await a.zvols.create({ name, volsize: 1 << 30, volblocksize: "16K", sparse: true });
      await a.zvols.grow(name, 2 ** 31);
      await a.zvols.setUserProperties(name, { "tnblock:x": "1" });
      await a.snapshots.create(name, "one");
      await a.snapshots.rollback(name, "one");
      await a.snapshots.clone(`${name}@one`, "tank/pve/clone");
      await a.zvols.promote("tank/pve/clone");
      assertEquals((await b.zvols.read(name))?.origin, "tank/pve/clone@one");
      assertEquals((await b.zvols.read(name))?.volsize, 2 ** 31);
      await a.zvols.destroy(name);
      for (const snapshot of ["two", "three"]) await a.snapshots.create("tank/pve/clone", snapshot);
      await a.snapshots.remove("tank/pve/clone", "one");
      assertEquals(await a.snapshots.removeSome("tank/pve/clone", ["two", "none", "three"]), [{
        name: "none",
        error: (await b.snapshots.removeSome("tank/pve/clone", ["none"]))[0]?.error
          .replace(/^\[E[A-Z]+\] (None: )?/, "").trim() ?? "",
      }]);
      const extent = await a.extents.create({
        name: "e",
        zvol: "tank/pve/clone",
        blocksize: 4096,
        comment: "",
      });
      const row = await a.targetExtents.create({ target: 1, extent: extent.id, lun: 3 });
      await a.targetExtents.remove(row.id, { force: true });
      await a.extents.remove(extent.id, { force: true });
      if (rest.release.can.rename) await a.zvols.rename("tank/pve/clone", "tank/pve/renamed");
      const left = rest.release.can.rename ? "tank/pve/renamed" : "tank/pve/clone";
      await a.zvols.destroy(left);
      assertEquals((await b.zvols.list("tank/pve")).zvols, []);
      assertEquals(await b.extents.all(), []);
    });
  });

  Deno.test(`${release}: a failure is the same error over REST as over the WebSocket`, async () => {
    await both(release, async (rest, ws) => {
      const nas = bindResources(ws);
      const name = "tank/pve/vm-1-disk-0";
      await nas.zvols.create({ name, volsize: 1 << 30, volblocksize: "16K", sparse: true });
      await nas.snapshots.create(name, "one");
      await nas.snapshots.clone(`${name}@one`, "tank/pve/clone");
      await nas.snapshots.create(name, "two");
      const extent = await nas.extents.create({
        name: "e",
        zvol: name,
        blocksize: 512,
        comment: "",
      });
      await nas.targetExtents.create({ target: 1, extent: extent.id, lun: 3 });
      const snapshots = ws.release.can.snapshots;
      const zvol = { name, type: "VOLUME", volsize: 1 << 30, sparse: true };
      const calls: readonly (readonly [string, readonly unknown[]])[] = [
        ["pool.dataset.create", [zvol]],
        ["pool.dataset.create", [{ ...zvol, name: "tank/none/x" }]],
        ["pool.dataset.create", [{ ...zvol, name: "tank/pve/odd", volsize: 12345 }]],
        ["pool.dataset.create", [{ ...zvol, name: "tank/pve/odd", nonsense: 1 }]],
        ["pool.dataset.update", ["tank/pve/none", { volsize: 2 ** 31 }]],
        ["pool.dataset.update", [name, { volsize: 1 << 20 }]],
        ["pool.dataset.delete", ["tank/pve/none", {}]],
        ["pool.dataset.promote", [name]],
        [`${snapshots}.create`, [{ dataset: name, name: "one" }]],
        [`${snapshots}.delete`, [`${name}@one`, {}]],
        [`${snapshots}.delete`, [`${name}@none`, {}]],
        [`${snapshots}.rollback`, [`${name}@one`, {}]],
        [`${snapshots}.clone`, [{ snapshot: `${name}@one`, dataset_dst: "tank/pve/clone" }]],
        ["iscsi.extent.create", [{ name: "e", type: "DISK", disk: `zvol/${name}` }]],
        ["iscsi.extent.create", [{ name: "f", type: "DISK", disk: "zvol/tank/pve/none" }]],
        ["iscsi.extent.delete", [99, false, true]],
        ["iscsi.targetextent.create", [{ target: 1, extent: extent.id, lunid: 3 }]],
        ["iscsi.targetextent.create", [{ target: 1, extent: 99, lunid: 4 }]],
        ["iscsi.targetextent.delete", [99, true]],
        ["iscsi.extent.query", [[["disk", "=", "x"]], { force_sql_filters: true }]],
        ["pool.query", [[["name", "=", "none"]], { get: true }]],
        ...(ws.release.can.zfsResource
          ? [["zfs.resource.query", [{ paths: ["tank/none"] }]]] as const
          : []),
        // Last: its exports go before it fails.
        ["pool.dataset.delete", [name, {}]],
      ];
      for (const [method, params] of calls) {
        const told = async (session: Session) => {
          const { message, code, errno, field, reason, outcome, rpcCode, findings } = await failure(
            session.call(method, params, { lane: "write", doing: "Cannot do it" })
              .then(() => Promise.reject(new Error(`${method} ${JSON.stringify(params)} works`))),
          );
          // Of several findings the server makes lines of its own.
          const words = findings.length > 1 ? undefined : reason;
          return { message, code, errno, field, reason: words, outcome, rpcCode, findings };
        };
        const [a, b] = [await told(rest), await told(ws)];
        assertEquals([method, params, a], [method, params, b]);
      }
    });
  });
}

Deno.test("REST on 25.10 keeps the direct look at zvols, guids included, and the look at NVMe", async () => {
  await both("25.10", async (rest, ws) => {
    assertEquals(rest.release.can, { ...ws.release.can, jobResults: false });
    const [a, b] = [bindResources(rest), bindResources(ws)];
    const name = "tank/pve/vm-1-disk-0";
    await b.zvols.create({ name, volsize: 1 << 30, volblocksize: "16K", sparse: true });
    const [subsystem] = await b.subsystems.all();
    const id = subsystem?.id ?? 0;
    await b.namespaces.create({ subsystem: id, zvol: name, nsid: 7 });
    assertEquals((await a.namespaces.byZvol(name))?.nsid, 7);
    assertEquals((await a.namespaces.bySubsystem(id)).length, 1);
    assertEquals(await a.subsystems.ports(id), await b.subsystems.ports(id));
    assertEquals((await a.zvols.read(name))?.guid, (await b.zvols.read(name))?.guid);
  });
});

Deno.test("what REST has not is refused and not sent", async () => {
  await both("25.10", async (rest) => {
    const events = await failure(rest.subscribe("pool.dataset.query", () => {}));
    assertEquals([events.code, events.outcome], ["unsupported", "not-sent"]);
    const login = await failure(rest.call("auth.me", []));
    assertEquals([login.code, login.outcome], ["unsupported", "not-sent"]);
  });
});

Deno.test("a job is waited for, and fails with its own error", async () => {
  await both("25.10", async (rest) => {
    const control = (verb: string) =>
      rest.callJob("service.control", [verb, "iscsitarget", {}], { lane: "write" });
    assertEquals(await control("STOP"), true);
    assertEquals(await bindResources(rest).services.isRunning("iscsitarget"), false);
    assertEquals(await control("START"), true);
    const error = await failure(control("NONSENSE"));
    assertEquals([error.code, error.outcome], ["array-fault", "answered"]);
  });
});
