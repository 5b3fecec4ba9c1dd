/** `tnblock list`: the volumes of this node's storages, from the daemon's memory, or by one login with each array. */
import { TnblockError } from "../common/error.ts";
import { silentLog } from "../common/log.ts";
import { DAEMON_SOCKET } from "../daemon/serve.ts";
import type { DiskDocument, State, StorageState } from "../daemon/state.ts";
import { StateSource } from "../daemon/state_source.ts";
import { VOLUMES_METHOD } from "../daemon/volumes_document.ts";
import { askDaemon as askForState } from "../doctor/daemon_answer.ts";
import { type GuestName, guestNames } from "../host/guest_names.ts";
import type { Host } from "../host/host.ts";
import {
  type Inventory,
  inventoryOf,
  type InventoryVolume,
  parseInventories,
  readInventory,
} from "../pve/inventory.ts";
import { readSections, STORAGE_CFG } from "../pve/storage_cfg.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { renderList } from "./list_view.ts";
import { printable } from "./table.ts";
import { reportError } from "./report_error.ts";
import { withStorage } from "./with_storage.ts";

/** A daemon that lives takes a request at once; its memory may be at a read. */
const TAKEN_MS = 2_000;
const ASK_MS = 10_000;
/** Bytes; ten thousand volumes fit. */
const MAX_ANSWER = 16 * 1024 * 1024;
/** For one array; counting snapshots is a call a volume. */
const READ_MS = 60_000;
const COUNT_MS = 300_000;

/** What the user says. */
export interface ListFlags {
  /** Only this storage. */
  readonly storage: string | undefined;
  readonly output: "text" | "json" | "name";
  /** Text without its head, cells apart by one tab. */
  readonly header: boolean;
  readonly snapshots: boolean;
  /** Asks the array although a daemon knows. */
  readonly fresh: boolean;
  /** Of the terminal; undefined when it is none. */
  readonly columns: number | undefined;
}

/** A volume with what the node knows of it. */
export interface ListedRow extends InventoryVolume {
  readonly storage: string;
  readonly transport: StorageState["transport"];
  /** Undefined when no guest of its number is there. */
  readonly guest: GuestName | undefined;
  /** The disk on this node, while it is attached here. */
  readonly here: DiskDocument | undefined;
}

/** The rows of one storage. */
export interface ListedStorage {
  readonly id: string;
  /** Seconds since this was so; null when the array was asked just now, undefined when it is not known. */
  readonly ageSeconds: number | null | undefined;
  readonly error: Inventory["error"];
  readonly rows: readonly ListedRow[];
}

/**
 * Prints them. Changes nothing.
 *
 * @returns the exit status: 8 when some of several storages could not be listed, that of the failure when none could.
 * @throws TnblockError `not-found` when there is no such storage on this node.
 */
export async function runList(
  context: Pick<CommandContext, "out" | "err" | "env">,
  host: Host,
  flags: ListFlags,
): Promise<number> {
  const ids = (await readSections(host.files, host.nodeName)).map(({ id }) => id)
    .filter((id) => flags.storage === undefined || flags.storage === id);
  if (flags.storage !== undefined && ids.length === 0) {
    throw new TnblockError(
      "not-found",
      `Cannot find the storage "${flags.storage}": ${STORAGE_CFG} has no such section of type tnblock for this node`,
      { hint: "Look at: tnblock status" },
    );
  }
  const storages = await listStorages(context, host, flags, ids);
  print(context, flags, storages);
  const failed = storages.filter(({ error }) => error !== null);
  let status: number = EXIT.done;
  for (const { error } of failed) {
    if (error === null) continue;
    const { code, message, hint } = error;
    const thrown = new TnblockError(
      code as TnblockError["code"],
      message,
      hint === null ? {} : { hint },
    );
    status = reportError(thrown, context);
  }
  return failed.length > 0 && failed.length < storages.length ? EXIT.partly : status;
}

async function listStorages(
  context: Pick<CommandContext, "err" | "env">,
  host: Host,
  flags: ListFlags,
  ids: readonly string[],
): Promise<ListedStorage[]> {
  const remembered = flags.fresh || flags.snapshots ? undefined : await askDaemon(host, context);
  // After it: the age is then that of what was told. Who is attached here is told by the node as well.
  const state = await stateOf(host).catch(() => undefined);
  const found = await Promise.all(ids.map(async (id) => {
    const known = remembered?.find(({ storage }) => storage === id);
    const about = state?.storages.find((storage) => storage.id === id);
    if (known !== undefined && known.error === null) {
      return { about, inventory: known, ageSeconds: about?.memory?.ageSeconds ?? undefined };
    }
    const read = () =>
      withStorage(
        context,
        host,
        id,
        flags.snapshots ? COUNT_MS : READ_MS,
        (storage) => readInventory(storage, { snapshots: flags.snapshots }),
      );
    return { about, inventory: await inventoryOf(id, read), ageSeconds: null };
  }));
  const vmids = found.flatMap(({ inventory }) => inventory.volumes.map(({ vmid }) => vmid));
  const guests = await guestNames(host, new Set(vmids.filter((vmid) => vmid !== null)));
  return found.map(({ about, inventory: { storage, error, volumes }, ageSeconds }) => ({
    ...{ id: storage, ageSeconds, error },
    rows: volumes.map((volume) => ({
      ...{ ...volume, storage, transport: about?.transport ?? null },
      guest: volume.vmid === null ? undefined : guests.get(volume.vmid),
      here: about?.disks.find(({ name }) => name === volume.zvol),
    })),
  }));
}

/** Of the daemon; where there is none, of the node alone. */
async function stateOf(host: Host): Promise<State> {
  const told = await askForState(host);
  if (told.kind === "answered") return told.state;
  const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: true };
  return await new StateSource(world).state();
}

/** Undefined when nobody answers from memory; why is said unless it is that no daemon runs. */
async function askDaemon(
  host: Host,
  context: Pick<CommandContext, "err">,
): Promise<Inventory[] | undefined> {
  const request = { protocol: 1, id: VOLUMES_METHOD, method: VOLUMES_METHOD, deadlineMs: ASK_MS };
  let text: string;
  try {
    text = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      ...{ takenMs: TAKEN_MS, deadlineMs: ASK_MS, maxLine: MAX_ANSWER },
    });
  } catch (error) {
    const code = (error as { code?: unknown }).code;
    if (code === "EACCES") {
      throw new TnblockError("denied", "Cannot ask the daemon: only root may", {
        hint: "Run it as root",
      });
    }
    if (code !== "ENOENT" && code !== "ECONNREFUSED") {
      context.err(`note: the daemon does not answer (${String(code)}); the array is asked\n`);
    }
    return undefined;
  }
  try {
    const answer = JSON.parse(text);
    if (answer?.ok === true) return parseInventories(answer.result);
    context.err("note: the daemon is of a version that tells no volumes; the array is asked\n");
  } catch {
    context.err("note: the daemon's answer cannot be read; the array is asked\n");
  }
  return undefined;
}

function print(
  { out, err }: Pick<CommandContext, "out" | "err">,
  flags: ListFlags,
  storages: readonly ListedStorage[],
): void {
  if (flags.output === "json") {
    out(`${JSON.stringify(documentOf(storages), null, 2)}\n`);
    return;
  }
  const rows = storages.flatMap(({ rows }) => rows);
  if (flags.output === "name") {
    for (const { volid } of rows) if (volid !== null) out(`${printable(volid)}\n`);
    return;
  }
  if (rows.length === 0 && flags.header) {
    if (storages.length === 0) err("No storage of type tnblock is configured for this node.\n");
    else if (storages.every(({ error }) => error === null)) err("No volumes.\n");
    return;
  }
  out(renderList(rows, flags));
  if (!flags.header) return;
  for (const { id, ageSeconds, error } of storages) {
    if (ageSeconds === null || error !== null) continue;
    const age = ageSeconds === undefined ? "of unknown age" : `${ageSeconds.toFixed(0)} s old`;
    err(`${printable(id)}: from the daemon's memory, ${age}. Ask the array: --fresh\n`);
  }
}

function documentOf(storages: readonly ListedStorage[]): Record<string, unknown> {
  return {
    schemaVersion: 1,
    storages: storages.map(({ id, ageSeconds, error, rows }) => ({
      ...{ id, ageSeconds: ageSeconds ?? null, source: ageSeconds === null ? "array" : "daemon" },
      error,
      volumes: rows.map(({ storage: _, transport, guest, here, ...volume }) => ({
        ...volume,
        transport,
        guest: guest === undefined ? null : { ...guest, name: guest.name ?? null },
        attachedHere: here === undefined ? null : {
          ...{ inUse: here.inUse, pathsUp: here.pathsUp, pathsConfigured: here.pathsConfigured },
        },
      })),
    })),
  };
}
