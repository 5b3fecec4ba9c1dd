/**
 * `deno task bench`: what tnblock costs, measured against the simulator with its `lan` latency
 * profile. Times of the array and of tnblock itself are told apart in one run; a ratio compares with
 * the bare API calls of the same run. Prints a table, or JSON with `-o json`. Asserts nothing.
 */
import { lineLog } from "../src/common/log.ts";
import { linuxHost } from "../src/host/linux.ts";
import { answer, type ArrayCall } from "../src/pve/hook.ts";
import { hostPlayer } from "../src/simulator/host_player/player.ts";
import { startSimulator } from "../src/simulator/simulator.ts";
import { connectTrueNas } from "../src/truenas/array.ts";
import { systemClock } from "../src/truenas/clock.ts";

const BINARY = new URL("../dist/tnblock", import.meta.url).pathname;

interface Row {
  readonly what: string;
  readonly figure: string;
  readonly note: string;
}

/** One array and node with one storage. */
class Bench implements AsyncDisposable {
  calls: ArrayCall[] = [];

  private constructor(
    readonly transport: "iscsi" | "nvme-tcp",
    readonly directory: string,
    readonly simulator: Awaited<ReturnType<typeof startSimulator>>,
    readonly player: Awaited<ReturnType<typeof hostPlayer>>,
  ) {}

  static async start(transport: "iscsi" | "nvme-tcp", volumes = 0): Promise<Bench> {
    const directory = await Deno.makeTempDir({ prefix: "tnblock-bench-" });
    const clusterId = crypto.randomUUID();
    const player = await hostPlayer({ directory, clusterId });
    const simulator = await startSimulator({
      latency: "lan",
      loginLimit: 0,
      volumes,
      clusterId,
      dataSide: () => player,
    });
    await Deno.writeTextFile(
      `${directory}/etc/pve/priv/storage/san.tnblock`,
      JSON.stringify({ "tnb-api-key": simulator.ready.apiKey }),
    );
    return new Bench(transport, directory, simulator, player);
  }

  /** One request; wall time in ms, and the calls that it made. */
  async ask(
    method: string,
    args: Record<string, unknown> = {},
  ): Promise<{ result: unknown; ms: number; arrayMs: number; writes: number; calls: number }> {
    const { ready } = this.simulator;
    const portals = this.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
    this.calls = [];
    const start = performance.now();
    const { reply, settled } = answer(
      JSON.stringify({
        protocol: 1,
        id: "b",
        method,
        storage: "san",
        config: {
          "tnb-api-host": ready.host,
          "tnb-api-port": ready.port,
          "tnb-api-user": ready.user,
          "tnb-tls-fingerprint": ready.fingerprint,
          "tnb-dataset": ready.dataset,
          "tnb-transport-mode": this.transport,
          "tnb-discovery-portal": portals[0],
          "tnb-portals": portals.join(","),
          ...(this.transport === "iscsi"
            ? { "tnb-target-iqn": ready.targetIqn }
            : { "tnb-subsystem-nqn": ready.subsystemNqn }),
        },
        args,
        deadlineMs: 60_000,
      }),
      {
        host: linuxHost({ root: this.directory }),
        log: lineLog(() => {}, () => 0),
        setDebugLevel: () => {},
        limitLogins: false,
        onArrayCall: (call) => this.calls.push(call),
      },
    );
    const parsed = JSON.parse((await reply).text);
    const ms = performance.now() - start;
    await settled;
    if (!parsed.ok) throw new Error(`${method}: ${parsed.error.message}`);
    const writes = this.calls.filter((call) =>
      /\.(create|update|delete|destroy|rename|clone|rollback)$/.test(call.method)
    );
    // Reads of one round run side by side: the longest is the round.
    const reads = this.calls.filter((call) => !writes.includes(call));
    const arrayMs = writes.reduce((sum, call) => sum + call.ms, 0) +
      Math.max(0, ...reads.map((call) => call.ms));
    const done = writes.filter((call) => call.done).length;
    return { result: parsed.result, ms, arrayMs, writes: done, calls: this.calls.length };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.simulator.stop();
    await this.player.close();
    await Deno.remove(this.directory, { recursive: true });
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

const ms = (value: number) => `${value.toFixed(1)} ms`;

async function startToExit(args: readonly string[], input: string | undefined): Promise<number> {
  const times: number[] = [];
  for (let run = 0; run < 15; run++) {
    const start = performance.now();
    const child = new Deno.Command(BINARY, {
      args: [...args],
      clearEnv: true,
      stdin: input === undefined ? "null" : "piped",
      stdout: "null",
    }).spawn();
    if (input !== undefined) {
      const writer = child.stdin.getWriter();
      await writer.write(new TextEncoder().encode(input));
      await writer.close().catch(() => {});
    }
    await child.status;
    times.push(performance.now() - start);
  }
  return median(times);
}

async function benchBinary(): Promise<Row[]> {
  const path =
    '{"protocol":1,"id":1,"method":"path","storage":"san","args":{"volname":"vol-vm-1-disk-0-lun1"}}\n';
  const size = (await Deno.stat(BINARY)).size;
  return [
    { what: "binary: size", figure: `${Math.round(size / 1e6)} MB`, note: "" },
    {
      what: "binary: start to exit of version",
      figure: ms(await startToExit(["version"], undefined)),
      note: "median of 15",
    },
    {
      what: "binary: start to exit of a hook request",
      figure: ms(await startToExit(["hook"], path)),
      note: "path; median of 15",
    },
  ];
}

async function benchLife(transport: "iscsi" | "nvme-tcp"): Promise<Row[]> {
  await using bench = await Bench.start(transport);
  // Over iSCSI it makes the target's weight volume, once for all.
  await bench.ask("validate_storage");
  await bench.ask("activate_storage");
  const allocs = [];
  for (let run = 0; run < 5; run++) {
    allocs.push(await bench.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 }));
  }
  const volname = allocs[0]?.result;
  const first = await bench.ask("activate_volume", { volname });
  const again = [];
  for (let run = 0; run < 5; run++) again.push(await bench.ask("activate_volume", { volname }));
  const free = await bench.ask("free_image", { volname, isBase: 0, finish: true });
  const share = median(allocs.map((one) => one.ms - one.arrayMs));
  return [
    { what: `${transport}: alloc, array writes`, figure: String(allocs[0]?.writes), note: "" },
    {
      what: `${transport}: alloc, wall time`,
      figure: ms(median(allocs.map((one) => one.ms))),
      note: `of it tnblock, login and waits ${ms(share)}; median of 5`,
    },
    { what: `${transport}: free, array writes`, figure: String(free.writes), note: ms(free.ms) },
    {
      what: `${transport}: first activate`,
      figure: ms(first.ms),
      note: `${first.calls} array calls`,
    },
    {
      what: `${transport}: activate what is active`,
      figure: ms(median(again.map((one) => one.ms))),
      note: `${again[0]?.calls} array calls; median of 5`,
    },
  ];
}

/** The verbs that change a volume: what each costs the array, and how long it takes in all. */
async function benchVerbs(transport: "iscsi" | "nvme-tcp"): Promise<Row[]> {
  await using bench = await Bench.start(transport);
  await bench.ask("validate_storage");
  await bench.ask("activate_storage");
  const rows: Row[] = [];
  const verb = async (name: string, method: string, args: Record<string, unknown>) => {
    const { result, ms: wall, writes } = await bench.ask(method, args);
    rows.push({ what: `${transport}: ${name}, array writes`, figure: `${writes}`, note: ms(wall) });
    return result;
  };
  const { result: volname } = await bench.ask("alloc_image", {
    vmid: 100,
    format: "raw",
    sizeKiB: 65536,
  });
  await bench.ask("activate_volume", { volname });
  const snapshot = "before";
  await verb("take a snapshot", "volume_snapshot", { volname, snapshot });
  await verb("read a snapshot", "activate_volume", { volname, snapshot });
  await verb("stop reading it", "deactivate_volume", { volname, snapshot });
  await verb("roll back", "volume_snapshot_rollback", { volname, snapshot });
  await verb("delete a snapshot", "volume_snapshot_delete", { volname, snapshot });
  await verb("grow while attached", "volume_resize", { volname, size: 128 << 20, running: 1 });
  await bench.ask("deactivate_volume", { volname });
  const renamed = await verb("rename", "rename_volume", { volname, targetVmid: 101 });
  const base = await verb("make a template", "create_base", { volname: renamed });
  await verb("clone", "clone_image", { volname: base, vmid: 102 });
  return rows;
}

async function benchList(transport: "iscsi" | "nvme-tcp", volumes: number): Promise<Row[]> {
  await using bench = await Bench.start(transport, volumes);
  const { ready } = bench.simulator;
  const connect = () =>
    connectTrueNas({
      addresses: [ready.host],
      port: ready.port,
      user: ready.user,
      apiKey: ready.apiKey,
      trust: { kind: "fingerprint", sha256: ready.fingerprint },
      clock: systemClock,
    });
  const raw: number[] = [];
  const ours: number[] = [];
  let calls = 0;
  let rows = 0;
  for (let run = 0; run < 5; run++) {
    const start = performance.now();
    const nas = await connect();
    await Promise.all(
      transport === "iscsi"
        ? [
          nas.session.call("zfs.resource.query", [{
            paths: [ready.dataset],
            get_children: true,
            get_user_properties: true,
            properties: ["volsize", "used", "creation", "origin"],
          }]),
          nas.session.call("iscsi.extent.query", [[], { extra: { retrieve_locked_info: false } }]),
          nas.session.call("iscsi.targetextent.query", [[], {}]),
        ]
        : [
          nas.session.call("zfs.resource.query", [{
            paths: [ready.dataset],
            get_children: true,
            get_user_properties: true,
            properties: ["volsize", "used", "creation", "origin"],
          }]),
          nas.session.call("nvmet.namespace.query", [[], {
            extra: { retrieve_locked_info: false },
          }]),
        ],
    );
    nas.session.close();
    raw.push(performance.now() - start);
    const listed = await bench.ask("list_images");
    ours.push(listed.ms);
    calls = listed.calls;
    rows = (listed.result as unknown[]).length;
  }
  const ratio = median(ours) / median(raw);
  return [{
    what: `${transport}: list ${rows} volumes, cold`,
    figure: `${ratio.toFixed(2)} x the bare queries`,
    note: `${ms(median(ours))} against ${
      ms(median(raw))
    }, login included; ${calls} array calls; median of 5`,
  }];
}

async function main(args: readonly string[]): Promise<void> {
  const rows = [
    ...await benchBinary(),
    ...await benchLife("nvme-tcp"),
    ...await benchLife("iscsi"),
    ...await benchVerbs("nvme-tcp"),
    ...await benchVerbs("iscsi"),
    ...await benchList("nvme-tcp", 800),
    ...await benchList("iscsi", 1000),
  ];
  if (args.join(" ") === "-o json") {
    console.log(JSON.stringify({ schemaVersion: 1, rows }, null, 2));
    return;
  }
  const width = Math.max(...rows.map((row) => row.what.length));
  for (const row of rows) {
    console.log(
      `${row.what.padEnd(width)}  ${row.figure}${row.note === "" ? "" : `  (${row.note})`}`,
    );
  }
}

if (import.meta.main) await main(Deno.args);
