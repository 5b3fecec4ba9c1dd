/** A storage of the Perl plugin becomes one of ours on a cluster of three, and goes back; whatever fails leaves nothing. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { HostError, type HostFiles } from "../../src/host/host.ts";
import { Cancelled } from "../../src/common/asking.ts";
import { prepareMigration } from "../../src/migrate/migrate.ts";
import { prepareBack } from "../../src/migrate/migrate_back.ts";
import { parseTimestamp } from "../../src/migrate/node_facts.ts";
import { sectionTexts } from "../../src/migrate/section_text.ts";
import { swapSection } from "../../src/migrate/swap_section.ts";
import type { Trust } from "../../src/migrate/to_tnblock.ts";
import type { MigrateWorld } from "../../src/migrate/world.ts";
import { plantLegacy } from "../support/legacy.ts";
import { TRANSPORTS } from "../support/place.ts";
import { NODES, PerlPlace, SHIM_FILE } from "./support.ts";

const CFG = "/etc/pve/storage.cfg";
const SECRETS = "/etc/pve/priv/storage/san.tnblock";
const MIGRATED = /^tnblock: san\n/m;

function pin(perl: PerlPlace): Trust {
  const { fingerprint } = perl.place.simulator.ready;
  return { kind: "pin", sha256: fingerprint.replaceAll(":", "").toLowerCase() };
}

async function migrate(perl: PerlPlace, world: MigrateWorld = perl.world()) {
  const prepared = await prepareMigration(world, "san", pin(perl));
  return await prepared.carryOut();
}

async function refused(work: Promise<unknown>): Promise<TnblockError> {
  const error = await assertRejects(() => work);
  assert(error instanceof TnblockError, String(error));
  return error;
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a storage is taken over with its running guests' disks, and given back`, async () => {
    await using perl = await PerlPlace.start(transport);
    const { place } = perl;
    const before = await perl.everything();
    const prepared = await prepareMigration(perl.world(), "san", pin(perl));
    assertEquals(await perl.everything(), before);
    assertStringIncludes(prepared.steps.join("\n"), "mark 3 volumes");

    const { attached } = await prepared.carryOut();
    const cfg = await perl.read(CFG) ?? "";
    assertEquals(sectionTexts(cfg).map(({ type, id }) => `${type} ${id}`), [
      "dir local",
      "tnblock san",
      "lvm z",
    ]);
    const key = place.simulator.ready.apiKey;
    assert(!cfg.includes(key));
    assertEquals(JSON.parse(await perl.read(SECRETS) ?? ""), { "tnb-api-key": key });
    // Each node has linked what its own guests have open, and nothing else.
    assertEquals(attached.map(({ node, linked, failed }) => [node, linked.length, failed]), [
      ["pve1", 2, []],
      ["pve2", 1, []],
      ["pve3", 0, []],
    ]);
    for (const volname of perl.volnames.slice(0, 2)) await Deno.stat(place.linkOf(volname, "pve1"));
    const section = sectionTexts(cfg).find(({ id }) => id === "san");
    const rows = await place.must("list_images", {}, { config: { ...section?.options } });
    assertEquals(
      rows.map((row: { volid: string }) => row.volid).sort(),
      perl.volnames.map((volname) => `san:${volname}`).sort(),
    );

    await (await prepareBack(perl.world(), "san")).carryOut();
    const back = sectionTexts(await perl.read(CFG) ?? "").find(({ id }) => id === "san");
    const [original] = sectionTexts(perl.perlSection());
    assertEquals([back?.type, back?.options], [original?.type, original?.options]);
    assertEquals(await perl.read(SECRETS), undefined);
    // And once more: the marks are there already.
    await migrate(perl);
    assert(MIGRATED.test(await perl.read(CFG) ?? ""));
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: sessions and controllers that the Perl plugin made are taken over as they are`, async () => {
    await using perl = await PerlPlace.start(transport);
    for (const node of ["pve1", "pve2"]) await perl.connectAsPerl(node);
    const before = await Promise.all(NODES.map((node) => perl.connections(node)));
    assert((before[0]?.length ?? 0) > 0);
    await migrate(perl);
    for (const [index, node] of (["pve1", "pve2"] as const).entries()) {
      assertEquals(await perl.connections(node), before[index]);
    }
    // The third node had none, and has what the storage needs now.
    assert((await perl.connections("pve3")).length > 0);
    for (const volname of perl.volnames.slice(0, 2)) {
      await Deno.stat(perl.place.linkOf(volname, "pve1"));
    }
  });
}

/** What may go wrong, and how it is made to after the look. */
interface Failure {
  readonly world?: (perl: PerlPlace) => MigrateWorld;
  readonly plant?: (perl: PerlPlace) => unknown;
}

function markFails(nth: number): Failure {
  const faults = [{ method: "pool.dataset.update", nth, do: "error", errno: 5 }];
  return { plant: (perl) => perl.place.faults(faults) };
}

const FAILURES: Readonly<Record<string, Failure>> = {
  "the copy cannot be written": { world: (perl) => withoutFile(perl, "migrate-san.json") },
  "the secrets cannot be written": { world: (perl) => withoutFile(perl, "san.tnblock") },
  "the dataset cannot be marked": markFails(1),
  "the first volume cannot be marked": markFails(2),
  "the last volume cannot be marked": markFails(4),
  "a task begins meanwhile": {
    plant: async (perl) => {
      const upid = "UPID:pve3:00001267:00000001:65000000:qmclone:100:root@pam:";
      await perl.write("pve3", "/var/log/pve/tasks/active", `${upid} 0\n`);
      await perl.write("pve3", `/proc/${0x1267}/stat`, `4711 (x) S${" 1".repeat(30)}`);
    },
  },
  "a node goes meanwhile": {
    plant: (perl) =>
      perl.onRun = (node) =>
        node === "pve3" ? { status: 255, stdout: "", stderr: "No route to host\n" } : undefined,
  },
  "storage.cfg is locked": {
    plant: (perl) =>
      Deno.mkdir(`${perl.place.directory}/etc/pve/priv/lock/file-storage_cfg`, { recursive: true }),
  },
  "Perl fails": {
    plant: (perl) =>
      perl.onRun = (_, [program]) =>
        program === "/usr/bin/perl" ? { status: 2, stdout: "", stderr: "planted\n" } : undefined,
  },
  "Perl dies after it has replaced the section": { plant: (perl) => perl.perlDies = true },
  "Proxmox VE writes the section in another order, and it fails then": {
    world: withTime,
    plant: (perl) => {
      perl.broken.add("pve2");
      perl.onRun = async (node, [program]) => {
        if (node !== "pve1" || program !== "/usr/sbin/pvesm") return undefined;
        const text = await perl.read(CFG) ?? "";
        const own = sectionTexts(text).find(({ id }) => id === "san")?.text ?? "";
        const [heading, ...lines] = own.trimEnd().split("\n");
        await perl.write(
          "pve1",
          CFG,
          text.replace(own, `${[heading, ...lines.sort()].join("\n")}\n`),
        );
        return undefined;
      };
    },
  },
  "another node does not get the storage active": {
    world: withTime,
    plant: (perl) => perl.broken.add("pve3"),
  },
  "this node does not get the storage active": {
    world: withTime,
    plant: (perl) => perl.broken.add("pve1"),
  },
};

function plainWorld(perl: PerlPlace): MigrateWorld {
  return perl.world();
}

function withoutFile(perl: PerlPlace, name: string): MigrateWorld {
  const host = perl.host("pve1");
  const replaceText: HostFiles["replaceText"] = async (path, ...rest) => {
    if (path.endsWith(name)) throw new HostError("ENOSPC", "planted");
    await host.files.replaceText(path, ...rest);
  };
  return perl.world({ host: { ...host, files: { ...host.files, replaceText } } });
}

/** Waiting for pvesm costs no time. */
function withTime(perl: PerlPlace): MigrateWorld {
  const host = perl.host("pve1");
  let leapt = 0;
  return perl.world({
    host: {
      ...host,
      monotonicMs: () => host.monotonicMs() + leapt,
      wait: async (ms, signal) => {
        if (ms !== 2_000) return await host.wait(ms, signal);
        leapt += ms;
      },
    },
  });
}

for (
  const [what, { world = plainWorld, plant = () => {} }] of Object.entries(FAILURES)
) {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: when ${what}, all is as before`, async () => {
      await using perl = await PerlPlace.start(transport);
      const before = await perl.everything();
      const prepared = await prepareMigration(world(perl), "san", pin(perl));
      await plant(perl);
      const error = await refused(prepared.carryOut());
      assert(!error.message.includes("still to be put back"), error.message);
      assertEquals(await perl.everything(), before);
    });
  }
}

Deno.test("who leaves in the middle gets all back", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const before = await perl.everything();
  const leaving = new AbortController();
  const tell = (line: string) => line.startsWith("replaced:") && leaving.abort(new Cancelled());
  const world = perl.world({ signal: leaving.signal, tell });
  perl.broken.add("pve1");
  const prepared = await prepareMigration(world, "san", pin(perl));
  assert(await assertRejects(() => prepared.carryOut()) instanceof Cancelled);
  assertEquals(await perl.everything(), before);
});

for (
  const [what, plant] of [
    ["another node does not get it active", (perl: PerlPlace) => perl.broken.add("pve2")],
    ["Perl dies after it has replaced the section", (perl: PerlPlace) => perl.perlDies = true],
  ] as const
) {
  Deno.test(`on the way back, when ${what}, the storage stays ours`, async () => {
    await using perl = await PerlPlace.start("nvme-tcp");
    await migrate(perl);
    const before = await perl.everything();
    const prepared = await prepareBack(withTime(perl), "san");
    plant(perl);
    await refused(prepared.carryOut());
    assertEquals(await perl.everything(), before);
  });
}

/** What a node may be like, and what is said of it. */
const NODE_STATES: Readonly<
  Record<string, readonly [plant: (perl: PerlPlace) => unknown, said: string]>
> = {
  "a node is offline": [(perl) => perl.offline.add("pve3"), "pve3: it is offline"],
  "a service was not reloaded since": [
    (perl) => perl.loadedAt = { pve2: "2026-03-01 11:59:57.900000" },
    "on pve2 pvedaemon was not reloaded since it got the plugin of tnblock",
  ],
  "a node has no plugin": [
    (perl) => Deno.remove(`${perl.place.node("pve2").directory}${SHIM_FILE}`),
    "pve2 has no plugin of tnblock",
  ],
  "a node has another plugin": [
    (perl) => perl.write("pve2", SHIM_FILE, "another\n"),
    "the plugin of tnblock on pve2 is another one",
  ],
  "a daemon is away": [
    (perl) => perl.daemonVersion = { pve3: undefined },
    "the daemon of tnblock does not answer on pve3",
  ],
  "a daemon is older": [
    (perl) => perl.daemonVersion = { pve3: "0.0.9" },
    "the daemon on pve3 is still that of tnblock 0.0.9",
  ],
  "ssh does not get there": [
    (perl) =>
      perl.onRun = (node, words) =>
        node === "pve2" && words.includes("--node-facts")
          ? { status: 255, stdout: "", stderr: "No route to host\n" }
          : undefined,
    "No route to host",
  ],
};

for (const [what, [plant, said]] of Object.entries(NODE_STATES)) {
  Deno.test(`when ${what}, nothing is begun, and it is said`, async () => {
    await using perl = await PerlPlace.start("nvme-tcp");
    await plant(perl);
    const before = await perl.everything();
    const error = await refused(migrate(perl));
    assertStringIncludes(error.message, said);
    assertEquals(await perl.everything(), before);
  });
}

Deno.test("a volume that a guest names and that may not be adopted stops all of it", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  await perl.place.array(async (nas) => {
    const [row] = await nas.namespaces.all();
    if (row !== undefined) await nas.namespaces.remove(row.id);
  });
  const before = await perl.everything();
  const error = await refused(migrate(perl));
  assertEquals(error.code, "in-use");
  assertStringIncludes(error.message, "nothing exports it");
  assertEquals(await perl.everything(), before);
});

Deno.test("another storage on the same dataset stops all of it", async () => {
  await using perl = await PerlPlace.start("iscsi");
  const other = perl.perlSection().replace("truenasplugin: san", "truenasplugin: other");
  await perl.write("pve1", CFG, `${perl.storageCfg()}${other}`);
  assertStringIncludes((await refused(migrate(perl))).message, 'storage "other" uses');
});

Deno.test("a run that was killed is run again, wherever it stood, and a third run changes nothing", async () => {
  for (const at of [SECRETS, "replaced:"]) {
    await using perl = await PerlPlace.start("nvme-tcp");
    // Nothing that is asked of the node comes back any more: as little is undone as by a dead process.
    let isDead = false;
    const host = perl.host("pve1");
    const dead = () => Promise.reject(new HostError("EIO", "dead"));
    const files = Object.fromEntries(
      Object.entries(host.files).map(([name, work]) => [
        name,
        // deno-lint-ignore no-explicit-any
        (...args: any[]) => isDead ? dead() : (work as any)(...args),
      ]),
    ) as unknown as HostFiles;
    const world = perl.world({
      host: {
        ...{ ...host, files },
        run: (...args) => isDead ? dead() : host.run(...args),
      },
      tell: (line) => {
        if (!line.includes(at)) return;
        isDead = true;
        throw new Error("dead");
      },
    });
    const prepared = await prepareMigration(world, "san", pin(perl));
    await assertRejects(() => prepared.carryOut());

    const { attached } = await migrate(perl);
    assertEquals(attached.map(({ linked }) => linked.length), [2, 1, 0]);
    const done = await perl.everything();
    assert(MIGRATED.test(done.storageCfg));
    const listed = await perl.place.must("list_images", {});
    assertEquals(listed.length, 3);
    await migrate(perl);
    assertEquals(await perl.everything(), done);
  }
});

for (const isBroken of [false, true]) {
  const then = isBroken ? "loses its mark when it comes to nothing" : "is adopted too";
  Deno.test(`a volume that the plugin makes in the last moment ${then}`, async () => {
    await using perl = await PerlPlace.start("iscsi");
    let isFirst = true;
    perl.onRun = async (_, [program]) => {
      if (program !== "/usr/bin/perl" || !isFirst) return undefined;
      isFirst = false;
      await plantLegacy(perl.place, { zvol: "vm-102-disk-0", number: 40, adopted: false });
      return undefined;
    };
    if (isBroken) perl.broken.add("pve2");
    const prepared = await prepareMigration(withTime(perl), "san", pin(perl));
    if (isBroken) await refused(prepared.carryOut());
    else await prepared.carryOut();
    const zvols = [...perl.place.simulator.world.zfs.datasets.values()]
      .filter((one) => /vm-\d+-disk-\d+$/.test(one.name));
    assertEquals(zvols.length, 4);
    for (const zvol of zvols) {
      assertEquals(
        JSON.stringify([...zvol.user]).includes("tnblock:storage"),
        !isBroken,
        zvol.name,
      );
    }
  });
}

Deno.test("another array may have a target of the same name", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const other = perl.perlSection().replace("truenasplugin: san", "truenasplugin: other")
    .replace(/tn_api_host .*/, "tn_api_host 10.9.9.9")
    .replace(/tn_discovery_portal .*/, "tn_discovery_portal 10.9.9.9:4420");
  await perl.write("pve1", CFG, `${perl.storageCfg()}${other}`);
  await migrate(perl);
  assert(MIGRATED.test(await perl.read(CFG) ?? ""));
});

Deno.test("what another person writes into the section meanwhile is not overwritten", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const prepared = await prepareMigration(perl.world(), "san", pin(perl));
  const changed = perl.storageCfg().replace("tn_prefer_ipv4 1", "tn_prefer_ipv4 0");
  await perl.write("pve1", CFG, changed);
  const error = await refused(prepared.carryOut());
  assertEquals(error.code, "busy");
  assertEquals(await perl.read(CFG), changed);
  assertEquals(await perl.read(SECRETS), undefined);
});

Deno.test("only a whole section that stands there once is replaced, under the lock", async () => {
  await using perl = await PerlPlace.start("nvme-tcp");
  const host = perl.host("pve1");
  const old = "lvm: z\n\tvgname pve\n";
  const cases: readonly (readonly [text: string, isDone: boolean])[] = [
    [`# ä\n${old}`, true],
    [`dir: a\n\tpath /x\n\n${old}\nlvm: y\n`, true],
    [`${old}dir: a\n\tpath /x\n`, true],
    [`${old}\tnodes a\n`, false],
    [`x${old}`, false],
    [`${old}\n${old}`, false],
    ["", false],
  ];
  for (const [text, isDone] of cases) {
    await perl.write("pve1", CFG, text);
    const work = swapSection(host, old, "dir: z\n\tpath /ö\n");
    if (isDone) {
      await work;
      assertEquals(await perl.read(CFG), text.replace(old, "dir: z\n\tpath /ö\n"));
    } else {
      assertEquals((await refused(work)).code, "busy");
      assertEquals(await perl.read(CFG), text);
    }
  }
});

Deno.test("systemd's time is read to the millisecond", () => {
  const at = parseTimestamp("Sun 2026-11-22 17:25:13.123456 UTC");
  assertEquals(at, Date.parse("2026-11-22T17:25:13.123Z"));
  for (const text of ["", "n/a", "Sun 2026-11-22 17:25:13 CET"]) {
    assertEquals(parseTimestamp(text), undefined);
  }
});
