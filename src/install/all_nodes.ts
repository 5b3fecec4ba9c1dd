/**
 * The same on every node of the cluster: this one first, then the others one by one, each by its own run of the
 * same program, which was copied there and whose checksum was compared.
 */
import * as v from "valibot";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { type ClusterNode, readCluster } from "../pve/cluster.ts";
import { copyToNode, runOnNode } from "../pve/remote.ts";
import { LOOK_MS, PROGRAM } from "./places.ts";
import type { InstallWorld } from "./world.ts";

/** Milliseconds for the program, some 120 MB, over a network of 10 MB/s. */
const COPY_MS = 300_000;
/** Milliseconds for a node's whole installation. */
const NODE_MS = 900_000;
/** As often is a node tried. */
const TRIES = 2;

/** What became of one node. */
export interface NodeResult {
  readonly node: string;
  readonly result: "installed" | "already" | "removed" | "failed" | "offline" | "not-tried";
  /** What is installed there afterwards; undefined: nothing, or it is not known. */
  readonly version?: string | undefined;
  /** What would have been done and could not, with the reason; nothing else hangs on it. */
  readonly notDone?: readonly string[];
  /** Why it failed. */
  readonly error?: { readonly code: string; readonly message: string; readonly hint?: string };
}

const resultSchema = v.object({
  node: v.string(),
  result: v.picklist(["installed", "already", "removed", "failed"]),
  version: v.optional(v.nullable(v.string())),
  notDone: v.optional(v.array(v.string())),
  error: v.optional(
    v.object({ code: v.string(), message: v.string(), hint: v.optional(v.string()) }),
  ),
});

/** What is to be done on the others. */
export interface Everywhere {
  /** The words after the program's name, e.g. `install --yes`. */
  readonly words: readonly string[];
  /** Whether the others run a copy of the program that runs here; else what is installed there. */
  readonly withCopy: boolean;
  /** Does it on this node; what it throws ends everything. */
  readonly here: () => Promise<NodeResult>;
}

/** The result of each node, this one first; nothing is tried on the others when this one fails. */
export async function onAllNodes(
  world: InstallWorld,
  { words, withCopy, here }: Everywhere,
): Promise<NodeResult[]> {
  const { nodes } = await readCluster(world.host);
  const own = await here();
  const results = [own];
  for (const node of nodes.filter(({ isThis }) => !isThis)) {
    if (own.result === "failed" || world.signal?.aborted === true) {
      results.push({ node: node.name, result: "not-tried" });
    } else if (!node.isOnline) {
      world.tell(`${node.name} is offline: run the same again when it is back`);
      results.push({ node: node.name, result: "offline" });
    } else results.push(await onNode(world, node, words, withCopy));
  }
  return results;
}

async function onNode(
  world: InstallWorld,
  node: ClusterNode,
  words: readonly string[],
  withCopy: boolean,
): Promise<NodeResult> {
  for (let left = TRIES - 1;; left--) {
    world.tell(`${node.name} …`);
    const result = await once(world, node, words, withCopy);
    world.tell(`${node.name}: ${result.error?.message ?? result.result}`);
    if (result.result !== "failed" || left === 0 || world.signal?.aborted === true) return result;
  }
}

async function once(
  world: InstallWorld,
  node: ClusterNode,
  words: readonly string[],
  withCopy: boolean,
): Promise<NodeResult> {
  try {
    if (!withCopy) return await run(world, node, PROGRAM, words);
    await checkMachine(world, node);
    const digest = await world.programs.digest(PROGRAM);
    if (digest === undefined) {
      throw new TnblockError("internal", `Cannot copy ${PROGRAM}: it is not there`);
    }
    if (await digestOn(world, node, PROGRAM) === digest) {
      return await run(world, node, PROGRAM, words);
    }
    const copy = `${PROGRAM.slice(0, PROGRAM.lastIndexOf("/"))}/.tnblock-${digest.slice(0, 16)}`;
    try {
      await copyToNode(world.host, node, PROGRAM, copy, { deadlineMs: COPY_MS });
      const arrived = await digestOn(world, node, copy);
      if (arrived !== digest) {
        throw new TnblockError(
          "host-fault",
          `Cannot install on ${node.name}: the copy of the program arrived with another checksum`,
        );
      }
      await runOnNode(world.host, node, ["chmod", "755", copy], { deadlineMs: LOOK_MS });
      return await run(world, node, copy, words);
    } finally {
      // A node that cannot be reached keeps it; the next run overwrites and removes it.
      await runOnNode(world.host, node, ["rm", "-f", copy], { deadlineMs: LOOK_MS }).catch(
        () => {},
      );
    }
  } catch (error) {
    const { code, message, hint } = asTnblockError(error);
    const details = hint === undefined ? { code, message } : { code, message, hint };
    return { node: node.name, result: "failed", error: details };
  }
}

async function run(
  { host }: InstallWorld,
  node: ClusterNode,
  program: string,
  words: readonly string[],
): Promise<NodeResult> {
  const args = [program, ...words, "-o", "json"];
  const { status, stdout, stderr } = await runOnNode(host, node, args, { deadlineMs: NODE_MS });
  const parsed = v.safeParse(resultSchema, jsonOf(stdout));
  if (!parsed.success) {
    const said = stderr.trim().split("\n").at(-1) ?? "";
    throw new TnblockError(
      "host-fault",
      `Cannot tell what became of ${node.name}: ${said || `status ${status}`}`,
      status === 132 ? { hint: "Its processor is too old: SSE4.2 and POPCNT are needed" } : {},
    );
  }
  const { result, version, notDone, error } = parsed.output;
  return {
    ...{ node: node.name, result, version: version ?? undefined },
    ...(notDone === undefined ? {} : { notDone }),
    ...(error === undefined ? {} : {
      error: {
        ...{ code: error.code, message: error.message },
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      },
    }),
  };
}

async function checkMachine({ host }: InstallWorld, node: ClusterNode): Promise<void> {
  const [here, there] = await Promise.all([
    attempt(
      "Cannot tell this machine's kind",
      () => host.run("/usr/bin/uname", ["-m"], { deadlineMs: LOOK_MS }),
    ),
    runOnNode(host, node, ["uname", "-m"], { deadlineMs: LOOK_MS }),
  ]);
  if (there.status !== 0 || here.stdout.trim() !== there.stdout.trim()) {
    throw new TnblockError(
      "unsupported",
      `Cannot install on ${node.name}: it is ${
        there.stdout.trim() || "unknown"
      }, and this program is for ${here.stdout.trim()}`,
    );
  }
}

/** SHA-256 of a file on another node; undefined when it is not there. */
async function digestOn(
  { host }: InstallWorld,
  node: ClusterNode,
  path: string,
): Promise<string | undefined> {
  const { stdout } = await runOnNode(host, node, ["sha256sum", path], { deadlineMs: LOOK_MS });
  // 5891b5b5…  /usr/local/bin/tnblock
  return /^\\?([0-9a-f]{64})\s/.exec(stdout)?.[1];
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
