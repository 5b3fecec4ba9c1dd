/** NVMe subsystems with their ports and hosts, which are the administrator's: read only (25.10+). */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** A subsystem. */
export interface Subsystem {
  readonly id: number;
  readonly name: string;
  readonly nqn: string;
  readonly serial: string;
  /** When set, the list of hosts is not looked at. */
  readonly allowAnyHost: boolean;
}

/** Where a subsystem can be reached. */
export interface SubsystemPort {
  readonly id: number;
  /** `TCP`, `RDMA` or `FC`. */
  readonly transport: string;
  /** Numeric address. */
  readonly address: string;
  readonly port: number;
  readonly enabled: boolean;
}

const subsystemRow = v.object({
  id: v.number(),
  name: v.string(),
  subnqn: v.string(),
  serial: v.string(),
  allow_any_host: v.boolean(),
});

function subsystemOf(row: v.InferOutput<typeof subsystemRow>): Subsystem {
  return {
    id: row.id,
    name: row.name,
    nqn: row.subnqn,
    serial: row.serial,
    allowAnyHost: row.allow_any_host,
  };
}

/** Every subsystem. */
export async function all(caller: Caller, wait?: Wait): Promise<Subsystem[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.subsys.query",
      params: [[], {}],
      doing: "Cannot list the NVMe subsystems",
    },
    rows(subsystemRow),
    wait,
  );
  return found.map(subsystemOf);
}

/** The subsystem with this NQN, or undefined. */
export async function byNqn(
  caller: Caller,
  nqn: string,
  wait?: Wait,
): Promise<Subsystem | undefined> {
  const found = await read(
    caller,
    {
      method: "nvmet.subsys.query",
      params: [[["subnqn", "=", nqn]], {}],
      doing: `Cannot look for NVMe subsystem "${nqn}"`,
    },
    rows(subsystemRow),
    wait,
  );
  return found[0] === undefined ? undefined : subsystemOf(found[0]);
}

const portRow = v.object({
  port: v.object({
    id: v.number(),
    addr_trtype: v.string(),
    addr_traddr: v.nullish(v.string()),
    addr_trsvcid: v.nullish(v.union([v.number(), v.string()])),
    enabled: v.optional(v.boolean(), true),
  }),
});

async function queryPorts(
  caller: Caller,
  filter: readonly unknown[],
  subsystem: string,
  wait: Wait | undefined,
): Promise<SubsystemPort[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.port_subsys.query",
      params: [[filter], {}],
      doing: `Cannot list the ports of NVMe subsystem ${subsystem}`,
    },
    rows(portRow),
    wait,
  );
  return found.map(({ port }) => ({
    id: port.id,
    transport: port.addr_trtype,
    address: port.addr_traddr ?? "",
    port: Number(port.addr_trsvcid ?? 0),
    enabled: port.enabled,
  }));
}

/** The ports of one subsystem. */
export async function ports(
  caller: Caller,
  subsystem: number,
  wait?: Wait,
): Promise<SubsystemPort[]> {
  return await queryPorts(caller, ["subsys.id", "=", subsystem], String(subsystem), wait);
}

/** The same by the subsystem's NQN: no look-up of its id is needed first. */
export async function portsByNqn(
  caller: Caller,
  nqn: string,
  wait?: Wait,
): Promise<SubsystemPort[]> {
  return await queryPorts(caller, ["subsys.subnqn", "=", nqn], `"${nqn}"`, wait);
}

/** The keys that stand beside it are left out. */
const hostRow = v.object({ host: v.object({ hostnqn: v.string() }) });

/** The NQNs of the hosts that may connect to one subsystem; without meaning when any host may. */
export async function hosts(caller: Caller, subsystem: number, wait?: Wait): Promise<string[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.host_subsys.query",
      params: [[["subsys.id", "=", subsystem]], { select: ["host"] }],
      doing: `Cannot list the hosts of NVMe subsystem ${subsystem}`,
    },
    rows(hostRow),
    wait,
  );
  return found.map((row) => row.host.hostnqn);
}
