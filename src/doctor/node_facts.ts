/** What a node tells of itself to the doctor of another one: `tnblock doctor --node-facts`. Nothing in it is secret. */
import * as v from "valibot";
import type { CheckResult } from "./check.ts";
import type { Doctor } from "./doctor.ts";
import { type NodeContext, sha256 } from "./node_context.ts";

/** Changes when a field changes its meaning or goes. */
const FACTS_VERSION = 1;

const unknown = <T extends v.GenericSchema>(schema: T) => v.nullable(schema);

const findingSchema = v.object({
  severity: v.picklist(["error", "warning"]),
  text: v.string(),
  guide: v.strictTuple([v.string(), v.string(), v.string(), v.string(), v.string()]),
  check: v.string(),
  node: v.string(),
  storage: unknown(v.string()),
});

const resultSchema: v.GenericSchema<unknown, CheckResult> = v.object({
  id: v.string(),
  title: v.string(),
  node: v.string(),
  storage: unknown(v.string()),
  outcome: v.picklist(["ok", "found", "skipped", "broken"]),
  note: unknown(v.string()),
  milliseconds: v.number(),
  findings: v.array(findingSchema),
});

const factsSchema = v.object({
  schemaVersion: v.literal(FACTS_VERSION),
  node: v.string(),
  /** Of the program. */
  version: v.string(),
  /** SHA-256 of the shim that is installed. */
  shim: unknown(v.string()),
  /** The node's storage API. */
  pveApi: unknown(v.number()),
  /** Of the daemon that answers. */
  daemon: unknown(v.string()),
  hostNqn: unknown(v.string()),
  hostId: unknown(v.string()),
  initiator: unknown(v.string()),
  storages: v.array(v.object({
    id: v.string(),
    /** SHA-256 of the section as this node reads it. */
    section: v.string(),
    /** Configured portals that are connected, `ADDR:PORT`. */
    live: v.array(v.string()),
  })),
  /** What its own checks found, those of the arrays' objects left out. */
  results: v.array(resultSchema),
  /** Milliseconds since the epoch, when all this was told. */
  timeMs: v.number(),
});

/** What a node tells. */
export type NodeFacts = v.InferOutput<typeof factsSchema>;

/** Gathers what this node tells. It logs in to its arrays; what they hold the doctor that asks reads itself. */
export async function gatherFacts(doctor: Doctor): Promise<NodeFacts> {
  const { results } = await doctor.look({ arrays: false });
  return await factsOf(doctor.node(), results);
}

/** What a node tells, with these results. */
export async function factsOf(
  node: NodeContext,
  results: readonly CheckResult[],
): Promise<NodeFacts> {
  const [shim, pveApi, daemon, identity, sections] = await Promise.all([
    node.installedShim(),
    node.pveApi(),
    node.daemon(),
    node.identity(),
    node.sections().catch(() => []),
  ]);
  const state = daemon.kind === "answered" ? daemon.state : undefined;
  return {
    schemaVersion: FACTS_VERSION,
    node: node.host.nodeName,
    version: node.version,
    shim: shim ?? null,
    pveApi: pveApi?.version ?? null,
    daemon: state?.daemon?.version ?? null,
    hostNqn: identity.hostNqn ?? null,
    hostId: identity.hostId ?? null,
    initiator: identity.initiator ?? null,
    storages: sections.map(({ id, config }) => ({
      id,
      section: sha256(JSON.stringify(Object.entries(config).sort())),
      live: liveOf(state?.storages.find((one) => one.id === id)),
    })),
    results: [...results],
    timeMs: node.host.now(),
  };
}

function liveOf(
  storage:
    | { readonly portals: readonly { readonly address: string; readonly state: string }[] }
    | undefined,
): string[] {
  return (storage?.portals ?? []).filter(({ state }) => state === "live").map(({ address }) =>
    address
  ).sort();
}

/** Reads what another node printed; undefined for something else. */
export function parseFacts(text: string): NodeFacts | undefined {
  try {
    const parsed = v.safeParse(factsSchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}
