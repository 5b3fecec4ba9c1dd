/** The size of a disk on the node, over paths that answer, fall silent and come back. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { TnblockError } from "../../src/common/error.ts";
import { lineLog } from "../../src/common/log.ts";
import type { IscsiSettings, NvmeSettings } from "../../src/common/storage_settings.ts";
import { type Host, HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { Exports } from "../../src/simulator/exports.ts";
import type { HostPlayerOptions } from "../../src/simulator/host_player/player.ts";
import { iscsiTransport } from "../../src/transport/iscsi/transport.ts";
import { nvmeTransport } from "../../src/transport/nvme/transport.ts";
import type { DiskIdentity, Transport } from "../../src/transport/transport.ts";
import {
  IQN,
  iscsi,
  lun,
  MIB,
  namespace,
  NQN,
  nvme,
  PORTALS,
  type TestNode,
  until,
  withNode,
} from "../simulator/host_player/support.ts";

const [FIRST, SECOND] = PORTALS;

/** A node with one storage's transport on it. */
interface Bench {
  readonly node: TestNode;
  readonly transport: Transport;
  readonly host: Host;
  readonly log: string[];
  /** Called after each write to a control file, with its path. */
  onControl: (path: string) => Promise<void>;
  /** Whether multipathd refuses to take a path, asked each time. */
  refusesPath: () => boolean;
  deadline(ms?: number): Deadline;
  /** Offers the volume with this size; on the way there nobody on the node hears of it by itself, but NVMe. */
  offer(size: number): Promise<void>;
  readonly identity: DiskIdentity;
  /** The portal takes TCP connections or does not; nothing else about it. */
  answers(address: string, does: boolean): void;
}

const LUN = lun(5);
const NAMESPACE = namespace(7);

async function bench(
  kind: "iscsi" | "nvme-tcp",
  work: (bench: Bench) => Promise<void>,
  options: Partial<HostPlayerOptions> & {
    readonly useMultipath?: boolean;
    readonly portals?: readonly string[];
    /** How many times faster than the real one the node's clock runs. */
    readonly haste?: number;
  } = {},
): Promise<void> {
  const { useMultipath = true, portals: addresses = PORTALS, haste = 1, ...player } = options;
  await withNode(async (node) => {
    const dead = new Set<string>();
    const log: string[] = [];
    const response = Uint8Array.from({ length: 128 }, (_, at) => [1, 0, 128, 0, 128][at] ?? 0);
    const real = linuxHost({ root: node.player.directory });
    const host: Host = {
      ...real,
      files: {
        ...real.files,
        writeControl: async (path, text, bounds) => {
          await real.files.writeControl(path, text, bounds);
          await made.onControl(path);
        },
      },
      monotonicMs: () => real.monotonicMs() * haste,
      wait: (ms, signal) => real.wait(ms / haste, signal),
      run: (program, args, options) =>
        args.join(" ").includes("add path") && made.refusesPath()
          ? Promise.resolve({ status: 1, stdout: "fail\n", stderr: "" })
          : real.run(program, args, options),
      // Nobody listens on these addresses here.
      exchangeTcp: (address, _port, _send, expect) =>
        dead.has(address)
          ? Promise.reject(new HostError("ETIMEDOUT", "no answer"))
          : Promise.resolve(response.slice(0, expect)),
    };
    const parts = { host, log: lineLog((line) => log.push(line), () => 2), storage: "san" };
    const portals = addresses.map((address) => ({
      address,
      port: kind === "iscsi" ? 3260 : 4420,
    }));
    const transport = kind === "iscsi"
      ? iscsiTransport({ ...ISCSI, portals, useMultipath }, parts)
      : nvmeTransport({ ...NVME, portals }, parts);
    const offered = (size: number): Exports =>
      kind === "iscsi" ? iscsi([{ ...LUN, size }]) : nvme([{ ...NAMESPACE, size }]);
    const made: Bench = {
      node,
      transport,
      host,
      log,
      onControl: () => Promise.resolve(),
      refusesPath: () => false,
      deadline: (ms = 20_000) => new Deadline(host, ms),
      offer: (size) => node.player.apply(offered(size)),
      identity: kind === "iscsi"
        ? { kind, lun: LUN.lun, naa: LUN.naa }
        : { kind, nsid: NAMESPACE.nsid, uuid: NAMESPACE.uuid },
      answers: (address, does) => void (does ? dead.delete(address) : dead.add(address)),
    };
    await made.offer(8 * MIB);
    await transport.connect(made.deadline());
    await work(made);
  }, player);
}

const ISCSI: IscsiSettings = {
  kind: "iscsi",
  targetIqn: IQN,
  portals: [],
  useMultipath: true,
  chap: undefined,
  blockSize: 512,
};

const NVME: NvmeSettings = {
  kind: "nvme-tcp",
  subsystemNqn: NQN,
  portals: [],
  hostNqn: undefined,
  dhchapSecret: undefined,
  dhchapCtrlSecret: undefined,
  nrIoQueues: undefined,
  ctrlLossTmo: -1,
  reconnectDelay: undefined,
  keepAliveTmo: undefined,
};

/** What the map has below it. */
function slaves({ node }: Bench): string[] {
  return node.list("/sys/block/dm-0/slaves");
}

for (const kind of ["iscsi", "nvme-tcp"] as const) {
  Deno.test(`${kind}: a disk that grew is attached with its new size, on every path`, async () => {
    await bench(kind, async (b) => {
      await b.transport.attach(b.identity, 8 * MIB, b.deadline());
      await b.offer(12 * MIB);
      const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
      assertEquals([disk.size, disk.paths], [12 * MIB, 2]);
      const seen = await b.transport.attached(b.identity, 12 * MIB, true, b.deadline());
      assertEquals([seen?.device, seen?.size], [disk.device, 12 * MIB]);
    });
  });

  Deno.test(`${kind}: with a least size a larger disk is the right one, and a smaller is not`, async () => {
    await bench(kind, async (b) => {
      await b.transport.attach(b.identity, 8 * MIB, b.deadline());
      await b.offer(12 * MIB);
      const disk = await b.transport.attach(b.identity, { atLeast: 8 * MIB }, b.deadline());
      assertEquals(disk.size, 12 * MIB);
      const look = (atLeast: number) =>
        b.transport.attached(b.identity, { atLeast }, true, b.deadline());
      assertEquals((await look(8 * MIB))?.size, 12 * MIB);
      assertEquals(await look(13 * MIB), undefined);
      assertEquals(
        await b.transport.attached(b.identity, 8 * MIB, true, b.deadline()),
        undefined,
      );
      const error = await assertRejects(() =>
        b.transport.attach(b.identity, { atLeast: 13 * MIB }, b.deadline(1500))
      );
      assertInstanceOf(error, TnblockError);
      assertEquals(error.code, "host-fault");
      assert(error.message.includes(`at least ${13 * MIB}`), error.message);
    });
  });

  Deno.test(`${kind}: dropping caches flushes the disk and lets it shrink`, async () => {
    await bench(kind, async (b) => {
      const { device } = await b.transport.attach(b.identity, 8 * MIB, b.deadline());
      await b.offer(4 * MIB);
      await b.transport.dropCaches(b.identity, b.deadline());
      const flushed = [...b.node.player.flushed].sort();
      assertEquals(flushed, kind === "iscsi" ? ["/dev/dm-0", "/dev/sda", "/dev/sdb"] : [device]);
      assertEquals(b.node.value(`/sys/block/${device.slice(5)}/size`), String(4 * MIB / 512));
      assert(await b.transport.attached(b.identity, 4 * MIB, true, b.deadline()) !== undefined);
    });
  });

  Deno.test(`${kind}: dropping caches of what is not here is fine`, async () => {
    await bench(kind, async (b) => {
      await b.transport.detach(b.identity, b.deadline());
      const other: DiskIdentity = kind === "iscsi"
        ? { kind, lun: 9, naa: lun(9).naa }
        : { kind, nsid: 9, uuid: namespace(9).uuid };
      await b.transport.dropCaches(other, b.deadline());
      assertEquals(b.node.player.flushed, []);
    });
  });
}

Deno.test("nvme-tcp: with one controller that hears nothing the disk grows over the other", async () => {
  await bench("nvme-tcp", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await b.node.player.setPortalSilent(SECOND, 4420, true);
    await b.offer(12 * MIB);
    assertEquals(
      (await b.transport.attach(b.identity, 12 * MIB, b.deadline())).size,
      12 * MIB,
    );
  });
});

Deno.test("iscsi: a disk on one path without multipathd grows", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await b.offer(12 * MIB);
    const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([disk.device, disk.size, disk.paths], ["/dev/sda", 12 * MIB, 1]);
    assertEquals(b.node.value("/sys/block/sda/size"), String(12 * MIB / 512));
  }, { multipathd: false, useMultipath: false, portals: [FIRST] });
});

Deno.test("iscsi: a map that multipathd makes although it is not wanted is resized with its path", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await until("the map is there", () => b.node.has("/dev/disk/by-id/dm-uuid-mpath-3" + LUN.naa));
    await b.offer(12 * MIB);
    const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([disk.device, disk.size], ["/dev/dm-0", 12 * MIB]);
    assertEquals(b.node.value("/sys/block/dm-0/size"), String(12 * MIB / 512));
  }, { useMultipath: false, portals: [FIRST] });
});

/** Takes the second path out of the map, as a multipathd that has not heard of it. */
async function dropSecondPath(b: Bench): Promise<void> {
  assertEquals(slaves(b), ["sda", "sdb"]);
  await b.host.run("/usr/sbin/multipathd", ["del", "path", "sdb"], { deadlineMs: 5_000 });
  assertEquals(slaves(b), ["sda"]);
}

Deno.test("iscsi: a path that multipathd refuses for a moment is in the map when attach returns", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await dropSecondPath(b);
    let refusals = 1;
    b.refusesPath = () => refusals-- > 0;
    const disk = await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    assertEquals([disk.paths, slaves(b)], [2, ["sda", "sdb"]]);
  });
});

Deno.test("iscsi: a path that multipathd does not take keeps no disk from being attached", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await dropSecondPath(b);
    b.refusesPath = () => true;
    const disk = await b.transport.attach(b.identity, 8 * MIB, b.deadline(60_000));
    assertEquals([disk.device, slaves(b)], ["/dev/dm-0", ["sda"]]);
    assert(b.log.some((line) => line.includes("does not take sdb")), b.log.join("\n"));
  }, { haste: 20 });
});

Deno.test("iscsi: with one silent session the map grows over the other path, and gets the second back", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    assertEquals(slaves(b), ["sda", "sdb"]);
    await b.node.player.setPortalSilent(SECOND, 3260, true);
    b.answers(SECOND, false);
    await b.offer(12 * MIB);
    const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([disk.size, disk.paths], [12 * MIB, 1]);
    assertEquals(slaves(b).length, 1);
    assert(b.log.some((line) => line.includes("taken out of the map")), b.log.join("\n"));
    // One live path is enough for a second look, and not for calling the disk whole.
    const look = (whole: boolean) =>
      b.transport.attached(b.identity, 12 * MIB, whole, b.deadline());
    assertEquals((await look(false))?.device, disk.device);
    assertEquals(await look(true), undefined);

    await b.node.player.setPortalSilent(SECOND, 3260, false);
    b.answers(SECOND, true);
    const again = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([again.device, again.paths], [disk.device, 2]);
    assertEquals(slaves(b), ["sda", "sdb"]);
    assert(await look(true) !== undefined);
  });
});

Deno.test("iscsi: a path whose rescan ends without an answer has the old size, and is left out", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await b.node.player.setPortalSilent(SECOND, 3260, true);
    await b.offer(12 * MIB);
    // Its portal still takes connections, so the rescan is sent, and hangs until the kernel gives up.
    const attaching = b.transport.attach(b.identity, 12 * MIB, b.deadline());
    const session = b.node.list("/sys/class/iscsi_session").find((name) =>
      b.node.value(
        `/sys/class/iscsi_connection/${name.replace("session", "connection")}:0/address`,
      ) ===
        SECOND
    );
    const disk = slaves(b).find((name) =>
      Deno.realPathSync(b.node.at(`/sys/block/${name}`)).includes(`/${session}/`)
    );
    await until("the rescan hangs", () => b.node.read(`/sys/block/${disk}/device/rescan`) !== "");
    Deno.writeTextFileSync(b.node.at(`/sys/class/iscsi_session/${session}/recovery_tmo`), "0\n");
    await b.node.player.setPortalSilent(SECOND, 3260, false);
    await b.node.player.setPortalUp(SECOND, 3260, false);
    const found = await attaching;
    assertEquals([found.size, found.paths], [12 * MIB, 1]);
    assertEquals(b.node.value("/sys/block/dm-0/size"), String(12 * MIB / 512));
  });
});

Deno.test("iscsi: a map with only an old path takes no new one before it has its size", async () => {
  await bench("iscsi", async (b) => {
    // The second portal is away while the map is made, and comes after the volume grew.
    await b.node.player.setPortalUp(SECOND, 3260, false);
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    assertEquals(slaves(b), ["sda"]);
    await b.offer(12 * MIB);
    await b.node.player.setPortalUp(SECOND, 3260, true);
    await b.transport.connect(b.deadline());
    const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([disk.size, disk.paths], [12 * MIB, 2]);
    assertEquals(slaves(b), ["sda", "sdb"]);
  });
});

Deno.test("iscsi: with the only path below the map silent, growing fails and says which path", async () => {
  await bench("iscsi", async (b) => {
    await b.node.player.setPortalUp(SECOND, 3260, false);
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    await b.node.player.setPortalUp(SECOND, 3260, true);
    await b.transport.connect(b.deadline());
    await b.node.player.setPortalSilent(FIRST, 3260, true);
    b.answers(FIRST, false);
    await b.offer(12 * MIB);
    const error = await assertRejects(() => b.transport.attach(b.identity, 12 * MIB, b.deadline()));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
    assert(error.message.includes("sda"), error.message);
    assertEquals(slaves(b), ["sda"]);
  });
});

Deno.test("iscsi: where no session answers nothing is waited for", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    for (const address of PORTALS) b.answers(address, false);
    const error = await assertRejects(() => b.transport.attach(b.identity, 8 * MIB, b.deadline()));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "unreachable");
  });
});

Deno.test("iscsi: a rescan that came a moment before the array had the new size is repeated", async () => {
  await bench("iscsi", async (b) => {
    await b.transport.attach(b.identity, 8 * MIB, b.deadline());
    b.onControl = (path) => path.endsWith("/rescan") ? b.offer(12 * MIB) : Promise.resolve();
    const disk = await b.transport.attach(b.identity, 12 * MIB, b.deadline());
    assertEquals([disk.size, disk.paths], [12 * MIB, 2]);
  });
});
