/** Builds the storage that a request works with: settings, transport, and the array on demand. */
import { hostname } from "node:os";
import { Deadline } from "../common/deadline.ts";
import type { StorageSettings } from "../common/storage_settings.ts";
import { iscsiTransport } from "../transport/iscsi/transport.ts";
import { nvmeTransport } from "../transport/nvme/transport.ts";
import type { Transport } from "../transport/transport.ts";
import type { Storage } from "../volumes/storage.ts";
import { connectArray } from "./connect_array.ts";
import { clusterId } from "./cluster_id.ts";
import type { HookWorld, MemorizedStorage } from "./hook.ts";
import type { HookRequest } from "./request.ts";
import { readSecrets } from "./secrets.ts";
import { parseSettings } from "./settings.ts";

/** Time for taking back or finishing what was begun, when the caller has gone: longer than any reload. */
const UNDO_MS = 150_000;

/** A storage that must be closed. */
export interface OpenStorage extends Storage {
  close(): Promise<void>;
}

/** Opens the storage of a request; nothing is connected yet. */
export async function openStorage(
  request: Pick<HookRequest, "storage" | "config"> & Partial<Pick<HookRequest, "node">>,
  world: HookWorld,
  deadline: Deadline,
): Promise<OpenStorage> {
  const { host, log } = world;
  const secrets = await readSecrets(host.files, request.storage, log);
  const settings = parseSettings(request.storage, request.config, secrets);
  world.setDebugLevel(settings.debug);
  return open(
    {
      settings,
      host,
      log,
      clusterId: await clusterId(host, deadline.bounds()),
      node: request.node ?? hostname().split(".")[0] ?? "localhost",
      transport: transportOf(settings, world),
    },
    world,
    deadline,
  );
}

/** Opens a storage that has been opened before, with the world's log; nothing of its settings is read again. */
export function reopenStorage(
  storage: MemorizedStorage,
  world: HookWorld,
  deadline: Deadline,
): OpenStorage {
  const { host, log } = world;
  return open(
    { ...storage, host, log, transport: transportOf(storage.settings, world) },
    world,
    deadline,
  );
}

function transportOf(
  { id, transport }: StorageSettings,
  { host, log }: Pick<HookWorld, "host" | "log">,
): Transport {
  const parts = { host, log, storage: id };
  return transport.kind === "iscsi"
    ? iscsiTransport(transport, parts)
    : nvmeTransport(transport, parts);
}

function open(kept: MemorizedStorage, world: HookWorld, deadline: Deadline): OpenStorage {
  const { settings, host } = kept;
  const memory = world.memoryOf?.(kept);
  const upkeep = world.upkeepOf?.(kept);
  const written = new Set<string>();
  let unknown = 0;
  const connection = connectArray(settings.id, settings.api, world, deadline, {
    onSend: (params) => {
      for (const zvol of zvolsIn(settings.dataset, params)) written.add(zvol);
    },
    onUnknown: () => unknown++,
  });
  return {
    ...kept,
    ...(memory === undefined ? {} : { memory }),
    ...(upkeep === undefined ? {} : { upkeep }),
    deadline,
    unknownWrites: () => unknown,
    undoDeadline: () => {
      const undo = new Deadline(host, UNDO_MS);
      connection.useDeadline(undo);
      return undo;
    },
    array: () => connection.open(),
    arrayAway: async () => await world.sessions?.away?.(settings.api),
    close: async () => {
      if (written.size > 0) memory?.changed([...written]);
      await connection.close();
    },
  };
}

/** Names of the volumes below `dataset` that a call's parameters speak of, by any kind of path. */
export function zvolsIn(dataset: string, params: unknown): string[] {
  if (typeof params === "string") {
    const path = params.startsWith("zvol/") ? params.slice("zvol/".length) : params;
    if (!path.startsWith(`${dataset}/`)) return [];
    const name = path.slice(dataset.length + 1).split(/[/@]/)[0];
    return name === undefined || name === "" ? [] : [name];
  }
  if (typeof params !== "object" || params === null) return [];
  return Object.values(params).flatMap((value) => zvolsIn(dataset, value));
}
