/** Adopting and rebinding, by the commands themselves. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { runAdopt } from "../../src/cli/adopt.ts";
import { runRebind } from "../../src/cli/rebind.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { plantLegacy } from "../support/legacy.ts";
import { type Place, TRANSPORTS } from "../support/place.ts";
import { Cluster } from "./support.ts";

/** What a command printed. */
interface Printed {
  out: string;
  err: string;
}

function contextOf(place: Place, printed: Printed) {
  return {
    out: (text: string) => void (printed.out += text),
    deliver: () => Promise.resolve(true),
    err: (text: string) => void (printed.err += text),
    input: (async function* () {})(),
    isTerminal: false,
    env: { TNBLOCK_LOGIN_BUDGET: "0" },
    root: place.directory,
    stopped: () => new Promise<void>(() => {}),
  };
}

const NOTHING = { json: false, yes: false, dryRun: false };

async function adopt(place: Place, flags: Partial<Parameters<typeof runAdopt>[1]> = {}) {
  const printed = { out: "", err: "" };
  const host = linuxHost({ root: place.directory, nodeName: "pve1" });
  const all = { storage: "san", volumes: [], ofCluster: undefined, unexported: false };
  const status = await runAdopt(contextOf(place, printed), { ...NOTHING, ...all, ...flags }, {
    host,
    asker: undefined,
  });
  return { status, ...printed };
}

async function rebind(place: Place, volume: string, flags: Partial<typeof NOTHING> = {}) {
  const printed = { out: "", err: "" };
  const host = linuxHost({ root: place.directory, nodeName: "pve1" });
  const status = await runRebind(
    contextOf(place, printed),
    { ...NOTHING, storage: "san", volume, ...flags },
    { host, asker: undefined },
  );
  return { status, ...printed };
}

async function codeOf(work: Promise<unknown>): Promise<string> {
  const error = await assertRejects(() => work);
  assert(error instanceof TnblockError, String(error));
  return error.code;
}

/** Deletes what exports a volume, as an administrator would by mistake. */
async function deleteExport(place: Place): Promise<void> {
  await place.array(async (nas) => {
    for (const row of await nas.targetExtents.all()) {
      await nas.targetExtents.remove(row.id, { force: true });
    }
    for (const row of await nas.extents.all()) await nas.extents.remove(row.id, { force: true });
    for (const row of await nas.namespaces.all()) await nas.namespaces.remove(row.id);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a volume of the Perl plugin is shown, adopted, and works`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    const volname = await plantLegacy(place, { zvol: "vm-100-disk-3", number: 41, adopted: false });
    await place.array((nas) =>
      nas.zvols.create({
        name: "tank/pve/vm-100-disk-9",
        volsize: 1 << 26,
        volblocksize: "16K",
        sparse: true,
      })
    );
    await place.array((nas) =>
      nas.zvols.create({
        name: "tank/pve/scratch",
        volsize: 1 << 26,
        volblocksize: "16K",
        sparse: true,
      })
    );
    const { out, status } = await adopt(place);
    assertEquals(status, 0);
    for (
      const text of [
        `san:${volname}`,
        "vm-100-disk-9: nothing exports it",
        "scratch: its name is none",
      ]
    ) {
      assertStringIncludes(out, text);
    }
    assertEquals(await place.must("list_images"), []);
    assertEquals((await adopt(place, { yes: true, volumes: ["vm-100-disk-3"] })).status, 0);
    assertEquals((await place.must("list_images")).map((row: { volid: string }) => row.volid), [
      `san:${volname}`,
    ]);
    await place.must("activate_volume", { volname });
    await place.must("deactivate_volume", { volname });
    await place.must("free_image", { volname, isBase: 0, finish: true });
    // Nothing is left to be adopted: that is no failure.
    assertEquals((await adopt(place, { yes: true })).status, 0);
    assertEquals(await codeOf(adopt(place, { volumes: ["vm-7-disk-0"] })), "not-found");
  });

  Deno.test(`${transport}: what another storage or cluster has marked is not adopted unless it is gone`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    const other = crypto.randomUUID();
    const mark = async (zvol: string, marks: Record<string, string>) => {
      await plantLegacy(place, { zvol, number: Number(zvol.slice(-1)) + 10 });
      await place.array((nas) => nas.zvols.setUserProperties(`tank/pve/${zvol}`, marks));
    };
    await mark("vm-1-disk-1", { "tnblock:cluster": other });
    await mark("vm-1-disk-2", { "tnblock:storage": "former" });
    await mark("vm-1-disk-3", { "tnblock:volume": "tank/pve/vm-1-disk-8" });
    await mark("vm-1-disk-4", {
      "tnblock:storage": "former",
      "tnblock:rename-to": "tank/pve/vm-2-disk-4",
    });
    // A mark that is meant for its zvol makes the target another storage's: it is looked at with that storage alone.
    const { out } = await adopt(place, { json: true });
    const { adoptable, refused } = JSON.parse(out);
    assertEquals(adoptable.map(({ zvol }: { zvol: string }) => zvol), [
      "vm-1-disk-2",
      "vm-1-disk-3",
    ]);
    assertEquals(refused.map(({ zvol }: { zvol: string }) => zvol), ["vm-1-disk-1", "vm-1-disk-4"]);
    const cfg = `${place.directory}/etc/pve/storage.cfg`;
    await Deno.writeTextFile(cfg, `${await Deno.readTextFile(cfg)}\ndir: former\n\tpath /x\n`);
    const again = JSON.parse((await adopt(place, { json: true, ofCluster: other })).out);
    assertEquals(again.adoptable.map(({ zvol }: { zvol: string }) => zvol), [
      "vm-1-disk-1",
      "vm-1-disk-3",
    ]);
    assertEquals((await adopt(place, { yes: true, ofCluster: other })).status, 0);
    assertEquals((await place.must("list_images")).length, 2);
  });

  Deno.test(`${transport}: a lost export is made again, and what changes is said`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    const volname = await place.alloc(100);
    await place.must("activate_volume", { volname });
    await Deno.writeTextFile(place.linkOf(volname), "precious", { create: false });
    await place.must("deactivate_volume", { volname });
    const path = "/etc/pve/nodes/pve1/qemu-server/100.conf";
    await cluster.everywhere(path, `scsi0: san:${volname},size=64M\n`);
    assertEquals(await codeOf(rebind(place, volname, { yes: true })), "exists");
    await deleteExport(place);
    assertStringIncludes((await rebind(place, volname)).out, "named by: VM 100 on node pve1");
    const { out, err, status } = await rebind(place, "vm-100-disk-0", { yes: true });
    assertEquals(status, 0);
    const now = out.trim().slice("san:".length);
    if (transport === "iscsi") assertEquals(now, volname);
    else assertStringIncludes(err, `in ${path} replace san:${volname} by san:${now}`);
    await place.must("activate_volume", { volname: now });
    assertStringIncludes(await place.beginning(now), "precious");
  });

  Deno.test(`${transport}: nothing is exported again while something else could be meant`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    const volname = await place.alloc(100);
    await deleteExport(place);
    const other = transport === "iscsi"
      ? volname.replace(/lun\d+$/, "lun4000")
      : volname.replace(/ns.*$/, `ns${crypto.randomUUID()}`);
    const guest = (vmid: number, text: string) =>
      cluster.everywhere(`/etc/pve/nodes/pve1/qemu-server/${vmid}.conf`, text);
    await guest(100, `scsi0: san:${volname}\n[old]\nscsi0: san:${other}\n`);
    assertEquals(await codeOf(rebind(place, volname, { yes: true })), "invalid");
    await guest(100, `scsi0: san:${volname}\n`);
    await guest(101, `scsi0: san:${volname}\n`);
    assertEquals(await codeOf(rebind(place, volname, { yes: true })), "invalid");
    await guest(101, "cores: 1\n");
    await place.array((nas) =>
      nas.zvols.setUserProperties("tank/pve/vm-100-disk-0", {
        "tnblock:rename-to": "tank/pve/vm-101-disk-0",
      })
    );
    assertEquals(await codeOf(rebind(place, volname, { yes: true })), "busy");
    await place.array((nas) =>
      nas.zvols.setUserProperties("tank/pve/vm-100-disk-0", {
        "tnblock:rename-to": undefined,
        "tnblock:storage": "x",
      })
    );
    assertEquals(await codeOf(rebind(place, volname, { yes: true })), "not-ours");
    const { extents, namespaces } = await place.objects();
    assertEquals([extents, namespaces], [[], []]);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: after the storage's id was changed, dataset and volumes are taken over, and their names stay`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    await place.must("validate_storage");
    const volname = await place.alloc(100);
    const cfg = `${place.directory}/etc/pve/storage.cfg`;
    const before = await Deno.readTextFile(cfg);
    // The former storage is there still: nothing is its to give.
    await Deno.writeTextFile(cfg, `${before}\n${before.replace("tnblock: san", "tnblock: fast")}`);
    await place.writeSecrets({ "tnb-api-key": place.simulator.ready.apiKey }, "fast");
    assertEquals(await codeOf(adopt(place, { storage: "fast" })), "not-ours");
    await Deno.writeTextFile(cfg, before.replace("tnblock: san", "tnblock: fast"));
    const { out } = await adopt(place, { storage: "fast" });
    assertStringIncludes(out, "The dataset is marked as that of storage san, which is gone.");
    assertStringIncludes(out, `fast:${volname}`);
    assertEquals((await adopt(place, { storage: "fast", yes: true })).status, 0);
    place.log.length = 0;
    await place.must("validate_storage", {}, { storage: "fast" });
    assertEquals(place.log.filter((line) => line.includes("no weight")), []);
    const listed = await place.must("list_images", {}, { storage: "fast" });
    assertEquals(listed.map((row: { volid: string }) => row.volid), [`fast:${volname}`]);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a replica that was restored without its export is adopted, exported and read`, async () => {
    await using cluster = await Cluster.start(transport, { nodes: ["pve1"] });
    const { place } = cluster;
    const path = "tank/pve/vm-100-disk-0";
    await place.array(async (nas) => {
      await nas.zvols.create({ name: path, volsize: 1 << 26, volblocksize: "16K", sparse: true });
      await nas.zvols.setUserProperties(path, {
        ...{ "tnblock:schema": "1", "tnblock:cluster": place.clusterId, "tnblock:storage": "san" },
        ...{ "tnblock:volume": "tank/was/vm-100-disk-0", "tnblock:op": crypto.randomUUID() },
        "tnblock:importing": "tank/was/vm-100-disk-0",
      });
    });
    assertStringIncludes((await adopt(place)).out, "vm-100-disk-0: nothing exports it");
    assertEquals(await codeOf(rebind(place, "vm-100-disk-0", { yes: true })), "not-ours");
    assertEquals((await adopt(place, { yes: true, unexported: true })).status, 0);
    const { out, err } = await rebind(place, "vm-100-disk-0", { yes: true });
    assertStringIncludes(err, "Exported again as san:");
    const volname = out.trim().slice("san:".length);
    await place.must("activate_volume", { volname });
    const [row] = await place.must("list_images");
    assertEquals(row.volid, `san:${volname}`);
  });
}
