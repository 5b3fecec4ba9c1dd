/**
 * Rollbacks that are under way, as all nodes see it: a node may lose its power, with its journal, while the array is
 * at its call, which then comes under the guest that another node has rolled back and started. So a rollback
 * after another node's puts a fence on the volume (`rollback_fence.ts`).
 */
import * as v from "valibot";
import { LONGEST_WRITE_MS } from "../truenas/caller.ts";
import { SKEW_MS } from "./doomed_names.ts";
import type { Storage } from "./storage.ts";

const schema = v.object({
  node: v.string(),
  /** Milliseconds since the epoch, by that node's clock. */
  sinceMs: v.number(),
});

function fileOf({ settings }: Storage, zvol: string): string {
  return `/etc/pve/priv/tnblock/rolling-back/${settings.id}/${zvol}`;
}

/**
 * Keeps that this node is about to roll a volume back. Without a quorum nothing can be kept: it goes on then.
 *
 * @returns whether a rollback of another node may come yet.
 */
export async function noteRollback(storage: Storage, zvol: string): Promise<boolean> {
  const { host, log, node } = storage;
  const before = await readNote(storage, zvol);
  try {
    const text = JSON.stringify({ node, sinceMs: host.now() }) + "\n";
    await host.files.replaceText(fileOf(storage, zvol), text, 0o600);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    log.warning(`that "${zvol}" is being rolled back is not kept: ${reason}`);
  }
  return before !== undefined && before.node !== node &&
    Math.abs(host.now() - before.sinceMs) < LONGEST_WRITE_MS + SKEW_MS;
}

/** No rollback of this node can come any more. Never throws. */
export async function forgetRollback(storage: Storage, zvol: string): Promise<void> {
  try {
    if ((await readNote(storage, zvol))?.node !== storage.node) return;
    await storage.host.files.remove(fileOf(storage, zvol));
  } catch {
    // It says nothing after some minutes.
  }
}

async function readNote(
  storage: Storage,
  zvol: string,
): Promise<v.InferOutput<typeof schema> | undefined> {
  try {
    const text = await storage.host.files.readText(fileOf(storage, zvol));
    return text === undefined ? undefined : v.parse(schema, JSON.parse(text));
  } catch {
    return undefined;
  }
}
