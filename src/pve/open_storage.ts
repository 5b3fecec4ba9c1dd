/** Builds the storage that a request works with: settings, transport, and the array on demand. */
import { hostname } from "node:os";
import { Deadline } from "../common/deadline.ts";
import { iscsiTransport } from "../transport/iscsi/transport.ts";
import { nvmeTransport } from "../transport/nvme/transport.ts";
import type { Storage } from "../volumes/storage.ts";
import { connectArray } from "./connect_array.ts";
import { clusterId } from "./cluster_id.ts";
import type { HookWorld } from "./hook.ts";
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
  request: HookRequest,
  world: HookWorld,
  deadline: Deadline,
): Promise<OpenStorage> {
  const { host, log } = world;
  const secrets = await readSecrets(host.files, request.storage, log);
  const settings = parseSettings(request.storage, request.config, secrets);
  world.setDebugLevel(settings.debug);
  const connection = connectArray(settings.id, settings.api, world, deadline);
  const parts = { host, log, storage: settings.id };
  return {
    settings,
    host,
    log,
    deadline,
    undoDeadline: () => {
      const undo = new Deadline(host, UNDO_MS);
      connection.useDeadline(undo);
      return undo;
    },
    clusterId: await clusterId(host, deadline.bounds()),
    node: request.node ?? hostname().split(".")[0] ?? "localhost",
    transport: settings.transport.kind === "iscsi"
      ? iscsiTransport(settings.transport, parts)
      : nvmeTransport(settings.transport, parts),
    array: () => connection.open(),
    close: () => connection.close(),
  };
}
