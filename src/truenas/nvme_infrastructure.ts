/**
 * What `tnblock setup` makes on the array for NVMe/TCP after a yes: ports, subsystems, hosts, and the links
 * between them. No volume operation ever comes here (design decision 11). Each write causes one reload.
 */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { anything, read, rows, write } from "./request.ts";

const made = v.object({ id: v.number() });

/** Addresses of the array that a TCP port may listen on. */
export async function addressChoices(caller: Caller, wait?: Wait): Promise<string[]> {
  const choices = await read(
    caller,
    {
      method: "nvmet.port.transport_address_choices",
      params: ["TCP"],
      doing: "Cannot list the addresses of TrueNAS",
    },
    v.record(v.string(), v.unknown()),
    wait,
  );
  return Object.keys(choices);
}

/** A port of the service, whatever subsystem it shows. */
export interface NvmePort {
  readonly id: number;
  /** `TCP`, `RDMA` or `FC`. */
  readonly transport: string;
  readonly address: string;
  readonly port: number;
  readonly enabled: boolean;
}

/** Every port. */
export async function ports(caller: Caller, wait?: Wait): Promise<NvmePort[]> {
  const found = await read(
    caller,
    { method: "nvmet.port.query", params: [[], {}], doing: "Cannot list the NVMe-oF ports" },
    rows(v.object({
      id: v.number(),
      addr_trtype: v.string(),
      addr_traddr: v.nullish(v.string()),
      addr_trsvcid: v.nullish(v.union([v.number(), v.string()])),
      enabled: v.optional(v.boolean(), true),
    })),
    wait,
  );
  return found.map((row) => ({
    id: row.id,
    transport: row.addr_trtype,
    address: row.addr_traddr ?? "",
    port: Number(row.addr_trsvcid ?? 0),
    enabled: row.enabled,
  }));
}

/** A host that the array knows, for all subsystems together. */
export interface NvmeHost {
  readonly id: number;
  readonly nqn: string;
  /** Whether it must prove who it is (DH-HMAC-CHAP). */
  readonly hasKey: boolean;
}

/** Every host; no key is told. */
export async function hosts(caller: Caller, wait?: Wait): Promise<NvmeHost[]> {
  const found = await read(
    caller,
    { method: "nvmet.host.query", params: [[], {}], doing: "Cannot list the NVMe hosts" },
    rows(v.object({
      id: v.number(),
      hostnqn: v.string(),
      dhchap_key: v.nullish(v.string()),
    })),
    wait,
  );
  return found.map((row) => ({
    id: row.id,
    nqn: row.hostnqn,
    hasKey: (row.dhchap_key ?? "") !== "",
  }));
}

/** A link of a port or a host to a subsystem, by their ids. */
export interface SubsystemLink {
  readonly id: number;
  readonly end: number;
  readonly subsystem: number;
}

const ended = v.object({ id: v.number() });

/** Every link of a port to a subsystem. */
export async function portLinks(caller: Caller, wait?: Wait): Promise<SubsystemLink[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.port_subsys.query",
      params: [[], {}],
      doing: "Cannot list which ports show which NVMe subsystem",
    },
    rows(v.object({ id: v.number(), port: ended, subsys: ended })),
    wait,
  );
  return found.map(({ id, port, subsys }) => ({ id, end: port.id, subsystem: subsys.id }));
}

/** Every link of a host to a subsystem. */
export async function hostLinks(caller: Caller, wait?: Wait): Promise<SubsystemLink[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.host_subsys.query",
      params: [[], {}],
      doing: "Cannot list which hosts may use which NVMe subsystem",
    },
    rows(v.object({ id: v.number(), host: ended, subsys: ended })),
    wait,
  );
  return found.map(({ id, host, subsys }) => ({ id, end: host.id, subsystem: subsys.id }));
}

async function create(
  caller: Caller,
  method: string,
  fields: Readonly<Record<string, unknown>>,
  doing: string,
  wait: Wait | undefined,
): Promise<number> {
  return (await write(caller, { method, params: [fields], doing }, made, wait)).id;
}

async function remove(
  caller: Caller,
  method: string,
  id: number,
  doing: string,
  wait: Wait | undefined,
): Promise<void> {
  await write(caller, { method, params: [id], doing }, anything, wait);
}

/** Makes a TCP port. */
export async function createPort(
  caller: Caller,
  { address, port }: { readonly address: string; readonly port: number },
  wait?: Wait,
): Promise<number> {
  const fields = { addr_trtype: "TCP", addr_traddr: address, addr_trsvcid: port, enabled: true };
  const doing = `Cannot make an NVMe/TCP port on ${address}`;
  return await create(caller, "nvmet.port.create", fields, doing, wait);
}

/** Removes a port that shows no subsystem any more. */
export async function removePort(caller: Caller, id: number, wait?: Wait): Promise<void> {
  await remove(caller, "nvmet.port.delete", id, `Cannot remove NVMe-oF port ${id}`, wait);
}

/** Makes a subsystem that only listed hosts may use. */
export async function createSubsystem(
  caller: Caller,
  subsystem: { readonly name: string; readonly nqn?: string },
  wait?: Wait,
): Promise<{ readonly id: number; readonly nqn: string }> {
  const row = await write(
    caller,
    {
      method: "nvmet.subsys.create",
      params: [{
        name: subsystem.name,
        allow_any_host: false,
        ...(subsystem.nqn === undefined ? {} : { subnqn: subsystem.nqn }),
      }],
      doing: `Cannot make NVMe subsystem "${subsystem.name}"`,
    },
    v.object({ id: v.number(), subnqn: v.string() }),
    wait,
  );
  return { id: row.id, nqn: row.subnqn };
}

/** Removes a subsystem; the array refuses one that holds namespaces or is shown by a port. */
export async function removeSubsystem(caller: Caller, id: number, wait?: Wait): Promise<void> {
  await remove(caller, "nvmet.subsys.delete", id, `Cannot remove NVMe subsystem ${id}`, wait);
}

/** Makes a host known, with the keys that it must know when there are any. */
export async function createHost(
  caller: Caller,
  host: { readonly nqn: string; readonly key?: string; readonly controllerKey?: string },
  wait?: Wait,
): Promise<number> {
  const fields = {
    hostnqn: host.nqn,
    ...(host.key === undefined ? {} : { dhchap_key: host.key, dhchap_hash: "SHA-256" }),
    ...(host.controllerKey === undefined ? {} : { dhchap_ctrl_key: host.controllerKey }),
  };
  return await create(
    caller,
    "nvmet.host.create",
    fields,
    `Cannot add NVMe host "${host.nqn}"`,
    wait,
  );
}

/** Removes a host that may use no subsystem any more. */
export async function removeHost(caller: Caller, id: number, wait?: Wait): Promise<void> {
  await remove(caller, "nvmet.host.delete", id, `Cannot remove NVMe host ${id}`, wait);
}

/** Shows a subsystem on a port. */
export async function linkPort(
  caller: Caller,
  { port, subsystem }: { readonly port: number; readonly subsystem: number },
  wait?: Wait,
): Promise<number> {
  const doing = `Cannot show NVMe subsystem ${subsystem} on port ${port}`;
  const fields = { port_id: port, subsys_id: subsystem };
  return await create(caller, "nvmet.port_subsys.create", fields, doing, wait);
}

/** Takes a subsystem off a port. */
export async function unlinkPort(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = "Cannot take an NVMe subsystem off a port";
  await remove(caller, "nvmet.port_subsys.delete", id, doing, wait);
}

/** Lets a host use a subsystem. */
export async function linkHost(
  caller: Caller,
  { host, subsystem }: { readonly host: number; readonly subsystem: number },
  wait?: Wait,
): Promise<number> {
  const doing = `Cannot let NVMe host ${host} use subsystem ${subsystem}`;
  const fields = { host_id: host, subsys_id: subsystem };
  return await create(caller, "nvmet.host_subsys.create", fields, doing, wait);
}

/** Takes that back. */
export async function unlinkHost(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = "Cannot take an NVMe subsystem from a host";
  await remove(caller, "nvmet.host_subsys.delete", id, doing, wait);
}
