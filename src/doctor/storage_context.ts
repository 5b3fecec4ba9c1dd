/** What the checks of one storage of one node share. */
import { silentLog } from "../common/log.ts";
import type { TnblockError } from "../common/error.ts";
import type { Portal, StorageSettings } from "../common/storage_settings.ts";
import { PORTAL_PROBE_MS } from "../common/timing.ts";
import type { StorageState } from "../daemon/state.ts";
import { HostError } from "../host/host.ts";
import { iscsiTransport } from "../transport/iscsi/transport.ts";
import { nvmeTransport } from "../transport/nvme/transport.ts";
import type { PortalGlance, Transport } from "../transport/transport.ts";
import { Deadline } from "../common/deadline.ts";
import type { Storage } from "../volumes/storage.ts";
import { type Around, lookEverywhere } from "../volumes/tidy_look.ts";
import type { ArrayContext } from "./array_context.ts";
import type { NodeContext } from "./node_context.ts";
import { once } from "./once.ts";

/** A configured portal, and whether it takes a TCP connection from here. */
export interface PortalAnswer {
  readonly portal: Portal;
  /** Undefined when it answers, else what was in the way. */
  readonly error: string | undefined;
}

/** One storage. */
export interface StorageContext {
  readonly node: NodeContext;
  /** PVE's storage id. */
  readonly id: string;
  readonly settings: StorageSettings;
  readonly transport: Transport;
  /** The cluster's id; undefined when there is none yet. */
  readonly clusterId: string | undefined;
  /** The command that looks again at a check of this storage. */
  again(id: string): string;
  /** Every configured portal, asked. */
  portalAnswers(): Promise<readonly PortalAnswer[]>;
  /** Every configured portal, as sysfs has it. */
  portals(): Promise<readonly PortalGlance[]>;
  /** What this node holds of it. */
  around(): Promise<Around>;
  /** What the daemon says of it; undefined when it says nothing. */
  state(): Promise<StorageState | undefined>;
  /** The array, or why it cannot be asked. One session is shared by all checks. */
  array(): Promise<ArrayContext | TnblockError>;
  /** What the volumes' functions work with; there is no writing through it. */
  readonly storage: Storage;
}

/** What it is made of. */
export interface StorageParts {
  readonly node: NodeContext;
  readonly settings: StorageSettings;
  readonly clusterId: string | undefined;
  readonly array: (storage: StorageContext) => Promise<ArrayContext | TnblockError>;
}

/** For a look at the node, whatever hangs. */
const LOOK_MS = 15_000;

/** No cluster has it: without an id of its own nothing is this cluster's. */
const NO_CLUSTER = "00000000-0000-0000-0000-000000000000";

/** The context of one storage. */
export function storageContext({ node, settings, clusterId, array }: StorageParts): StorageContext {
  const { host } = node;
  const { id } = settings;
  const parts = { host, log: silentLog, storage: id };
  const transport = settings.transport.kind === "iscsi"
    ? iscsiTransport(settings.transport, parts)
    : nvmeTransport(settings.transport, parts);
  const refuse = () => Promise.reject(new Error("the doctor works on no volume"));
  const deadline = new Deadline(host, LOOK_MS);
  const storage: Storage = {
    settings,
    host,
    transport,
    log: silentLog,
    clusterId: clusterId ?? NO_CLUSTER,
    node: host.nodeName,
    deadline,
    undoDeadline: () => deadline,
    array: refuse,
    unknownWrites: () => 0,
  };
  const context: StorageContext = {
    node,
    id,
    settings,
    transport,
    clusterId,
    storage,
    again: (check) => node.again(check, id),
    portalAnswers: once(() =>
      Promise.all(settings.transport.portals.map((portal) => probe(context, portal)))
    ),
    portals: once(() => transport.portals()),
    around: once(() => lookEverywhere(storage)),
    state: async () => {
      const answer = await node.daemon();
      if (answer.kind !== "answered") return undefined;
      return answer.state.storages.find((one) => one.id === id);
    },
    array: once(() => array(context)),
  };
  return context;
}

async function probe({ node }: StorageContext, portal: Portal): Promise<PortalAnswer> {
  try {
    const nothing = new Uint8Array();
    const bounds = { deadlineMs: PORTAL_PROBE_MS };
    await node.host.exchangeTcp(portal.address, portal.port, nothing, 0, bounds);
    return { portal, error: undefined };
  } catch (error) {
    return { portal, error: error instanceof HostError ? error.code : String(error) };
  }
}
