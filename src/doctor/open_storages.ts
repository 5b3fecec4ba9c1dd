/** Opens the storages of a node for looking: settings and secrets read, the array at the first question. */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { StorageSettings, TlsTrust } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import { readSecrets } from "../pve/secrets.ts";
import { parseSettings } from "../pve/settings.ts";
import type { StorageSection } from "../pve/storage_cfg.ts";
import { readArrayTime } from "../truenas/array_time.ts";
import type { Trust } from "../truenas/socket.ts";
import { type ArrayContext, arrayContext } from "./array_context.ts";
import { type ArraySessions, readOnlyCaller } from "./array_sessions.ts";
import type { NodeContext } from "./node_context.ts";
import { type StorageContext, storageContext } from "./storage_context.ts";

/** A storage of the node, or why it cannot be opened. */
export interface OpenedStorage {
  readonly id: string;
  readonly context: StorageContext | TnblockError;
}

/**
 * Opens the storages of a node, or the one that is wanted; nothing is connected yet.
 *
 * @throws TnblockError `not-found` for a storage that is not this node's.
 */
export async function openStorages(
  node: NodeContext,
  sessions: ArraySessions,
  only: string | undefined,
): Promise<OpenedStorage[]> {
  const sections = await node.sections().catch(() => []);
  const chosen = sections.filter(({ id }) => only === undefined || id === only);
  if (only !== undefined && chosen.length === 0) {
    throw new TnblockError("not-found", `Cannot look at the storage "${only}": there is none`, {
      hint: `Those of this node are ${sections.map(({ id }) => id).join(", ") || "none"}`,
    });
  }
  const clusterId = await readClusterId(node.host);
  return await Promise.all(chosen.map(async (section) => {
    const { id } = section;
    try {
      const settings = await readSettings(node.host, section);
      const array = (storage: StorageContext) => openArray(storage, sessions);
      return { id, context: storageContext({ node, settings, clusterId, array }) };
    } catch (error) {
      return { id, context: asTnblockError(error) };
    }
  }));
}

async function readSettings(host: Host, { id, config }: StorageSection): Promise<StorageSettings> {
  return parseSettings(id, config, await readSecrets(host.files, id));
}

async function openArray(
  storage: StorageContext,
  sessions: ArraySessions,
): Promise<ArrayContext | TnblockError> {
  const { api } = storage.settings;
  const { host } = storage.node;
  const session = await sessions.tryOpen(api);
  if (session instanceof TnblockError) return session;
  return arrayContext({
    storage,
    address: session.address,
    caller: readOnlyCaller(session),
    clockAheadMs: async () => {
      const trust = await trustOf(host, api.tls);
      if (trust === undefined) return undefined;
      const { address } = session;
      const start = host.now();
      const time = await readArrayTime({ address, trust, clock: host, deadlineMs: 5_000 });
      // It is told in whole seconds, and on the way for half of the time.
      return time === undefined ? undefined : time + 500 - (start + host.now()) / 2;
    },
  });
}

async function trustOf(host: Host, tls: TlsTrust): Promise<Trust | undefined> {
  if (tls.kind !== "ca") return tls;
  const pem = await host.files.readText(tls.file);
  return pem === undefined ? undefined : { kind: "ca", pem };
}

/** The cluster's id, which is not made here. */
async function readClusterId(host: Host): Promise<string | undefined> {
  const text = await host.files.readText("/etc/pve/priv/tnblock/cluster-id").catch(() => undefined);
  return text?.trim().toLowerCase();
}
