/** Makes what is missing on the array for NVMe/TCP, one object at a time. */
import { TnblockError } from "../common/error.ts";
import { formatPortal, samePortal } from "../common/portal.ts";
import * as nvme from "../truenas/nvme_infrastructure.ts";
import * as subsystems from "../truenas/subsystems.ts";
import type { Action } from "./plan.ts";
import { makeOne, type Work } from "./work.ts";

type NvmeAction = Extract<
  Action,
  { kind: "nvme-port" | "subsystem" | "show" | "host" | "allow" }
>;

/** Makes one of them. */
export async function makeNvme(work: Work, action: NvmeAction): Promise<void> {
  switch (action.kind) {
    case "nvme-port":
      return await makePort(work, action);
    case "subsystem":
      return await makeSubsystem(work, action.name);
    case "show":
      return await showSubsystem(work, action);
    case "host":
      return await makeHost(work, action);
    case "allow":
      return await allowHost(work, action);
  }
}

async function makePort(
  work: Work,
  { portal }: Extract<Action, { kind: "nvme-port" }>,
): Promise<void> {
  const before = work.draft.array.nvme?.ports.map(({ id }) => id) ?? [];
  const id = await makeOne(work, `NVMe/TCP port ${formatPortal(portal)}`, {
    find: async (array) =>
      (await nvme.ports(array)).find((one) =>
        !before.includes(one.id) && one.transport === "TCP" && samePortal(one, portal)
      )?.id,
    create: (array) => nvme.createPort(array, portal),
    remove: (array, port) => nvme.removePort(array, port),
  });
  work.made.set(`port ${formatPortal(portal)}`, id);
}

async function makeSubsystem(work: Work, name: string): Promise<void> {
  const before = work.draft.array.nvme?.subsystems.map(({ id }) => id) ?? [];
  const find = async (array: Parameters<typeof subsystems.all>[0]) =>
    (await subsystems.all(array)).find((one) => !before.includes(one.id) && one.name === name);
  const id = await makeOne(work, `NVMe subsystem ${name}`, {
    find: async (array) => (await find(array))?.id,
    create: async (array) => (await nvme.createSubsystem(array, { name })).id,
    // The array refuses one that holds namespaces.
    remove: (array, subsystem) => nvme.removeSubsystem(array, subsystem),
  });
  work.made.set("subsystem", id);
  work.targetName = (await find(await work.array()))?.nqn;
}

function subsystemOf({ made }: Work, given?: number): number {
  const id = given ?? made.get("subsystem");
  if (id === undefined) throw new TnblockError("internal", "Cannot go on without a subsystem");
  return id;
}

async function showSubsystem(
  work: Work,
  { portal, port: given }: Extract<Action, { kind: "show" }>,
): Promise<void> {
  const port = given ?? work.made.get(`port ${formatPortal(portal)}`);
  if (port === undefined) throw new TnblockError("internal", "Cannot go on without a port");
  const subsystem = subsystemOf(work);
  await makeOne(work, `subsystem at ${formatPortal(portal)}`, {
    find: async (array) =>
      (await nvme.portLinks(array)).find((one) => one.end === port && one.subsystem === subsystem)
        ?.id,
    create: (array) => nvme.linkPort(array, { port, subsystem }),
    remove: (array, id) => nvme.unlinkPort(array, id),
  });
}

async function makeHost(
  work: Work,
  { node, proof }: Extract<Action, { kind: "host" }>,
): Promise<void> {
  const nqn = nameOf(work, node);
  const before = work.draft.array.nvme?.hosts.map(({ id }) => id) ?? [];
  const key = work.secrets["tnb-dhchap-secret"];
  const controllerKey = work.secrets["tnb-dhchap-ctrl-secret"];
  const id = await makeOne(work, `NVMe host ${nqn}`, {
    find: async (array) =>
      (await nvme.hosts(array)).find((one) => !before.includes(one.id) && one.nqn === nqn)?.id,
    create: (array) =>
      nvme.createHost(array, {
        nqn,
        ...(proof === "none" || key === undefined ? {} : { key }),
        ...(proof === "mutual" && controllerKey !== undefined ? { controllerKey } : {}),
      }),
    remove: (array, host) => nvme.removeHost(array, host),
  });
  work.made.set(`host ${node}`, id);
}

async function allowHost(
  work: Work,
  { node, subsystem: given }: Extract<Action, { kind: "allow" }>,
): Promise<void> {
  const nqn = nameOf(work, node);
  const host = work.made.get(`host ${node}`) ??
    work.draft.array.nvme?.hosts.find((one) => one.nqn === nqn)?.id;
  if (host === undefined) throw new TnblockError("internal", "Cannot go on without a host");
  const subsystem = subsystemOf(work, given);
  await makeOne(work, `leave of ${node}`, {
    find: async (array) =>
      (await nvme.hostLinks(array)).find((one) => one.end === host && one.subsystem === subsystem)
        ?.id,
    create: (array) => nvme.linkHost(array, { host, subsystem }),
    remove: (array, id) => nvme.unlinkHost(array, id),
  });
}

function nameOf({ hostNames }: Work, node: string): string {
  const name = hostNames.get(node);
  if (name === undefined) {
    throw new TnblockError("host-fault", `Cannot let node ${node} in: it has no NVMe host name`);
  }
  return name;
}
