/**
 * What a node tells of a storage to the clean-up that another one runs: `tnblock cleanup-orphans STORAGE
 * --node-facts`, with the disks that are asked about on standard input. Changes nothing.
 */
import * as v from "valibot";
import type { Host } from "../host/host.ts";
import { scanNvmeControllers } from "../host/scan/nvme.ts";
import type { DiskIdentity } from "../transport/transport.ts";
import { readJournal } from "../volumes/journal.ts";
import type { Storage } from "../volumes/storage.ts";
import { lookEverywhere } from "../volumes/tidy_look.ts";
import { runningTasks } from "../pve/running_tasks.ts";

/** Changes when a field changes its meaning or goes. */
const FACTS_VERSION = 1;

const identitySchema = v.variant("kind", [
  v.object({ kind: v.literal("iscsi"), lun: v.number(), naa: v.string() }),
  v.object({ kind: v.literal("nvme-tcp"), nsid: v.number(), uuid: v.string() }),
]);

const factsSchema = v.object({
  schemaVersion: v.literal(FACTS_VERSION),
  node: v.string(),
  /** What the array knows it by: its initiator name, and the host NQNs that it has or uses. */
  names: v.array(v.string()),
  /** What is attached there: names of links, `vm-100-disk-0` or `vm-100-disk-0@before`, and the disks behind them. */
  attached: v.array(v.object({ name: v.string(), disk: v.nullable(v.string()) })),
  /** Who uses the disks that were asked about, by naa or uuid; those that nobody uses are left out. */
  users: v.record(v.string(), v.array(v.string())),
  /** Operations that its journal has open, of any storage. */
  journal: v.array(v.object({ storage: v.string(), op: v.string(), names: v.array(v.string()) })),
  /** Files of the journal that cannot be read. */
  unreadJournal: v.array(v.string()),
  tasks: v.array(v.object({ type: v.string(), id: v.string() })),
});

/** What a node tells. */
export type NodeFacts = v.InferOutput<typeof factsSchema>;

const questionSchema = v.object({
  schemaVersion: v.literal(FACTS_VERSION),
  disks: v.array(identitySchema),
});

/** naa or uuid. */
export function diskId(identity: DiskIdentity): string {
  return identity.kind === "iscsi" ? identity.naa : identity.uuid;
}

/** What goes to the node's standard input. */
export function questionText(disks: readonly DiskIdentity[]): string {
  return `${JSON.stringify({ schemaVersion: FACTS_VERSION, disks })}\n`;
}

/** Reads {@link questionText}; undefined for something else. */
export function parseQuestion(text: string): readonly DiskIdentity[] | undefined {
  return parsed(questionSchema, text)?.disks;
}

/** Reads what another node printed; undefined for something else, as of another version. */
export function parseFacts(text: string): NodeFacts | undefined {
  return parsed(factsSchema, text);
}

function parsed<T>(schema: v.GenericSchema<unknown, T>, text: string): T | undefined {
  try {
    const result = v.safeParse(schema, JSON.parse(text));
    return result.success ? result.output : undefined;
  } catch {
    return undefined;
  }
}

async function namesOf(host: Host, { settings }: Storage): Promise<string[]> {
  const [initiator, hostNqn, controllers] = await Promise.all([
    host.files.readText("/etc/iscsi/initiatorname.iscsi"),
    host.files.readText("/etc/nvme/hostnqn"),
    scanNvmeControllers(host.files),
  ]);
  const { transport } = settings;
  const all = [
    /^\s*InitiatorName\s*=\s*(\S+)/m.exec(initiator ?? "")?.[1],
    hostNqn?.trim(),
    transport.kind === "nvme-tcp" ? transport.hostNqn : undefined,
    ...controllers.map((one) => one.hostNqn),
  ];
  return [...new Set(all.filter((name) => name !== undefined && name !== ""))] as string[];
}

/** Looks at this node; the array is not asked. */
export async function gatherFacts(
  host: Host,
  storage: Storage,
  disks: readonly DiskIdentity[],
): Promise<NodeFacts> {
  const [names, { held }, journal, tasks] = await Promise.all([
    namesOf(host, storage),
    lookEverywhere(storage),
    readJournal(host),
    runningTasks(host),
  ]);
  const users: Record<string, string[]> = {};
  for (const disk of disks) {
    const found = await storage.transport.users(disk);
    if (found.length > 0) users[diskId(disk)] = [...found];
  }
  return {
    schemaVersion: FACTS_VERSION,
    node: host.nodeName,
    names,
    attached: held.filter(({ isLinked }) => isLinked).map(({ name, linked, known }) => {
      const identity = linked ?? known?.identity;
      return { name, disk: identity === undefined ? null : diskId(identity) };
    }),
    users,
    journal: journal.entries.map(({ storage, zvol, details }) => ({
      storage,
      op: details.op,
      names: "from" in details && typeof details.from === "string" ? [zvol, details.from] : [zvol],
    })),
    unreadJournal: [...journal.unread],
    tasks,
  };
}
