/** The flags of `tnblock simulate`, and which data side they ask for. */
import { randomUUID } from "node:crypto";
import { TnblockError } from "../common/error.ts";
import type { DataSide } from "../simulator/exports.ts";
import type { SimulatorOptions } from "../simulator/simulator.ts";
import type { CommandContext } from "./framework.ts";
import { runSimulate } from "./simulate.ts";

/** As the parser gives them. */
export interface SimulateFlags {
  readonly listen: string;
  readonly truenas: "25.04" | "25.10.0" | "25.10" | "26";
  readonly latency: string;
  readonly host?: string | undefined;
  readonly volumes?: string | undefined;
  readonly loginLimit?: string | undefined;
  readonly empty?: true | undefined;
  readonly kernel?: true | undefined;
  readonly data?: string | undefined;
  readonly netns?: string | undefined;
  readonly portals?: string | undefined;
}

/** The ports that TrueNAS uses unless told otherwise. */
const ISCSI_PORT = 3260;
const NVME_PORT = 4420;

/** Taking real targets back takes the kernel longer than a simulated one. */
const KERNEL_STOP_MS = 30_000;

/** Runs the simulator until it is asked to stop. */
export async function runSimulateCommand(
  context: CommandContext,
  flags: SimulateFlags,
): Promise<number> {
  const clusterId = randomUUID();
  return await runSimulate({
    listen: parseListen(flags.listen),
    release: flags.truenas,
    latency: flags.latency,
    clusterId,
    ...count("volumes", flags.volumes),
    ...count("loginLimit", flags.loginLimit),
    ...(flags.empty === undefined ? {} : { empty: true }),
    ...await dataSideOf(flags, clusterId),
  }, {
    print: (line) => context.out(`${line}\n`),
    untilStopped: context.stopped(),
    ...(flags.kernel === undefined ? {} : { stopMs: KERNEL_STOP_MS }),
  });
}

function usage(message: string): TnblockError {
  return new TnblockError("invalid", `Cannot start the simulator: ${message}`);
}

function parseListen(text: string): { address: string; port: number } {
  const match = /^(\[[0-9a-fA-F:]+\]|[0-9.]+|localhost):([0-9]{1,5})$/.exec(text);
  if (match === null || Number(match[2]) > 65535) throw usage(`"${text}" is not ADDRESS:PORT`);
  return { address: (match[1] ?? "").replace(/^\[|\]$/g, ""), port: Number(match[2]) };
}

function count<K extends "volumes" | "loginLimit">(
  name: K,
  text: string | undefined,
): Partial<Record<K, number>> {
  if (text === undefined) return {};
  if (!/^[0-9]{1,6}$/.test(text)) throw usage(`"${text}" is not a number`);
  return { [name]: Number(text) } as Record<K, number>;
}

type DataOptions = Pick<SimulatorOptions, "dataSide" | "network">;

async function dataSideOf(flags: SimulateFlags, clusterId: string): Promise<DataOptions> {
  if (flags.kernel === undefined) {
    for (const name of ["data", "netns", "portals"] as const) {
      if (flags[name] !== undefined) throw usage(`--${name} goes with --kernel`);
    }
    if (flags.host === undefined) return {};
    const { hostPlayer } = await import("../simulator/host_player/player.ts");
    const player: DataSide = await hostPlayer({ directory: flags.host, clusterId });
    return { dataSide: () => player };
  }
  const { data, netns } = flags;
  if (flags.host !== undefined) throw usage("--host and --kernel exclude each other");
  if (data === undefined) throw usage("--kernel needs --data");
  const addresses = (flags.portals ?? "").split(",").filter((address) => address !== "");
  if (addresses.length === 0) throw usage("--kernel needs --portals");
  const { kernelDataSide } = await import("../simulator/kernel/kernel_data_side.ts");
  return {
    dataSide: () => kernelDataSide({ directory: data, ...(netns === undefined ? {} : { netns }) }),
    network: {
      iscsiPortals: addresses,
      iscsiPort: ISCSI_PORT,
      nvmePorts: addresses.map((address) => ({ address, port: NVME_PORT })),
    },
  };
}
