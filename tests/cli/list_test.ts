import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { type ListedRow, type ListFlags, runList } from "../../src/cli/list.ts";
import { TnblockError } from "../../src/common/error.ts";
import { renderList } from "../../src/cli/list_view.ts";
import { silentLog } from "../../src/common/log.ts";
import { serve } from "../../src/daemon/serve.ts";
import { tellVolumes, VOLUMES_METHOD } from "../../src/daemon/volumes_document.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { writeStorageCfg } from "../daemon/state_support.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

/** As a script runs it. */
async function list(place: Place, change: Partial<ListFlags> = {}, host: Host = hostOf(place)) {
  const printed = { out: "", err: "" };
  const status = await runList(
    {
      out: (text) => void (printed.out += text),
      err: (text) => void (printed.err += text),
      env: { TNBLOCK_LOGIN_BUDGET: "0" },
    },
    host,
    {
      ...{ storage: undefined, output: "text", header: true, snapshots: false },
      ...{ fresh: false, columns: undefined, ...change },
    },
  );
  return { status, ...printed };
}

function hostOf(place: Place): Host {
  return linuxHost({ root: place.directory, nodeName: "pve1" });
}

async function write(place: Place, path: string, text: string): Promise<void> {
  const file = `${place.directory}${path}`;
  await Deno.mkdir(file.slice(0, file.lastIndexOf("/")), { recursive: true });
  await Deno.writeTextFile(file, text);
}

/** A place with its storage in storage.cfg, and guest 100 with a name. */
async function placeWithGuest(transport: typeof TRANSPORTS[number]): Promise<Place> {
  const place = await Place.start(transport);
  await writeStorageCfg(place);
  await write(
    place,
    "/etc/pve/nodes/pve2/qemu-server/100.conf",
    "cores: 2\nname: web\n\n[before]\nname: old\n",
  );
  return place;
}

for (const transport of TRANSPORTS) {
  Deno.test(`without a daemon one login lists the volumes, with guest and number (${transport})`, async () => {
    await using place = await placeWithGuest(transport);
    const volname = await place.alloc(100);
    await place.alloc(101);
    await place.must("activate_volume", { volname });
    const before = await place.stats();
    const { status, out, err } = await list(place);
    assertEquals([status, err], [0, ""]);
    assertEquals((await place.stats()).logins - before.logins, 1);
    const [head = "", web = "", other = ""] = out.split("\n");
    assert(out.split("\n").every((line) => line.length <= 80), out);
    assertEquals(head.split(/ +/).slice(0, 4), ["STORAGE", "VOLUME", "SIZE", "USED"]);
    assertEquals(web.split(/ +/).slice(0, 3), ["san", "vm-100-disk-0", "64.0MiB"]);
    for (const text of [" 100 ", " web ", " pve2 ", " idle ", " ok"]) {
      assertStringIncludes(`${web} `, text);
    }
    assertStringIncludes(other, "vm-101-disk-0");
    const names = (await list(place, { output: "name" })).out.split("\n");
    assertEquals(names[0], `san:${volname}`);
    const { schemaVersion, storages } = JSON.parse((await list(place, { output: "json" })).out);
    const [first] = storages[0].volumes;
    assertEquals([schemaVersion, storages[0].source, storages[0].ageSeconds], [1, "array", null]);
    assertEquals([first.volid, first.size, first.state], [`san:${volname}`, 64 * 2 ** 20, "ok"]);
    assertEquals([first.guest, first.attachedHere.inUse], [
      { node: "pve2", kind: "qemu", name: "web" },
      false,
    ]);
    assertEquals([first.lun !== null, first.uuid !== null], [
      transport === "iscsi",
      transport === "nvme-tcp",
    ]);
  });
}

Deno.test("a volume that nothing exports is listed as such, and snapshots are counted when asked for", async () => {
  await using place = await placeWithGuest("nvme-tcp");
  const volname = await place.alloc(100);
  await place.alloc(101);
  await place.must("volume_snapshot", { volname, snapshot: "before" });
  const [, second] = (await place.objects())["namespaces"] ?? [];
  await place.array((nas) => nas.session.call("nvmet.namespace.delete", [second.id, {}]));
  const { out, status } = await list(place, { header: false, snapshots: true });
  assertEquals(status, 0);
  const cells = out.trimEnd().split("\n").map((line) => line.split("\t"));
  assertEquals(cells.map((row) => row.length), [13, 13]);
  assertEquals(cells.map((row) => [row[1], row[2], row[4], row.at(-1)]), [
    ["vm-100-disk-0", String(64 * 2 ** 20), "1", "ok"],
    ["vm-101-disk-0", String(64 * 2 ** 20), "0", "not-exported"],
  ]);
  // It has no name by which Proxmox VE could be told of it.
  assertEquals((await list(place, { output: "name" })).out, `san:${volname}\n`);
});

Deno.test("a daemon's memory answers, and no array is asked", async () => {
  await using place = await placeWithGuest("iscsi");
  await place.alloc(100);
  const host = hostOf(place);
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: false };
  const told = await tellVolumes(world);
  const serving = await serve(world, {
    own: new Map([[VOLUMES_METHOD, () => Promise.resolve(told)]]),
  });
  try {
    const before = await place.stats();
    const { status, out, err } = await list(place);
    assertEquals(status, 0);
    assertStringIncludes(out, "vm-100-disk-0");
    assertStringIncludes(err, "san: from the daemon's memory");
    assertEquals((await place.stats()).logins, before.logins);
    // What is not from memory says so by the login that it costs.
    assertEquals((await list(place, { fresh: true })).err, "");
    assertEquals((await place.stats()).logins - before.logins, 1);
  } finally {
    await serving.close();
  }
});

Deno.test("a daemon that tells no volumes is no obstacle", async () => {
  await using place = await placeWithGuest("nvme-tcp");
  await place.alloc(100);
  const world = {
    host: hostOf(place),
    log: silentLog,
    setDebugLevel: () => {},
    limitLogins: false,
  };
  const serving = await serve(world);
  try {
    const { status, out, err } = await list(place);
    assertEquals(status, 0);
    assertStringIncludes(out, "vm-100-disk-0");
    assertStringIncludes(err, "the array is asked");
  } finally {
    await serving.close();
  }
});

Deno.test("a storage that cannot be listed is told, the others are listed", async () => {
  await using place = await placeWithGuest("nvme-tcp");
  await writeStorageCfg(place, { san: {}, gone: { "tnb-dataset": "tank/not-there" } });
  await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "gone");
  await place.alloc(100);
  const { status, out, err } = await list(place);
  assertEquals(status, 8);
  assertStringIncludes(out, "vm-100-disk-0");
  assertStringIncludes(err, "error: Cannot");
  const alone = await list(place, { storage: "gone" });
  assertEquals([alone.status, alone.out], [3, ""]);
  const error = await assertRejects(() => list(place, { storage: "nothing" }));
  assert(error instanceof TnblockError && error.code === "not-found");
});

/** A row as NVMe/TCP has it. */
function row(change: Partial<ListedRow> = {}): ListedRow {
  return {
    ...{ storage: "san", zvol: "vm-100-disk-0", volid: "san:vol-x", size: 2 ** 35, used: 2 ** 34 },
    ...{ created: "2026-03-01T12:00:00.000Z", vmid: 100, lun: null, naa: null, nsid: 7 },
    uuid: "01b8f73f-42f5-4ea7-b646-cfe0b8def92b",
    ...{ parent: null, notes: "", protected: false, state: "ok", snapshots: null },
    transport: "nvme-tcp",
    guest: { node: "pve1", kind: "qemu", name: "web" },
    here: { name: "vm-100-disk-0", inUse: true, idleSince: null, pathsUp: 2, pathsConfigured: 2 },
    ...change,
  };
}

Deno.test("a table is as wide as its terminal, and loses the least of it first", () => {
  const rows = [
    row(),
    row({ guest: { node: "a-long-node-name", kind: "qemu", name: "a-guest-with-a-long-name" } }),
  ];
  const head = (columns: number | undefined) =>
    renderList(rows, { header: true, snapshots: false, columns }).split("\n")[0]?.split(/ +/);
  assertEquals(head(300)?.length, 12);
  assertEquals(head(100), [
    ...["STORAGE", "VOLUME", "SIZE", "USED", "GUEST", "NAME", "NUMBER", "HERE", "STATE"],
  ]);
  assertEquals(head(undefined), ["STORAGE", "VOLUME", "SIZE", "GUEST", "NAME", "HERE", "STATE"]);
  assertEquals(head(1), ["STORAGE", "VOLUME", "SIZE", "STATE"]);
});

Deno.test("a name from elsewhere is one word, and moves no cursor", () => {
  const rows = [row({ zvol: "vm-1 \x1b[2J\tx" })];
  const wide = renderList(rows, { header: true, snapshots: false, columns: 200 });
  assertStringIncludes(wide, "vm-1_?[2J?x");
  const plain = renderList(rows, { header: false, snapshots: false, columns: undefined });
  assertEquals(plain.trimEnd().split("\t").length, 13);
});
