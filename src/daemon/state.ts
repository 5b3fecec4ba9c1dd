/**
 * What the daemon says of itself and its storages: the answer to `daemon_status`, which `tnblock status` prints
 * and the metrics are made from. Sizes are in bytes, times ISO 8601 in UTC, durations in seconds; what is not known
 * is null. Nothing in it is secret.
 */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";

/** The method of the socket that answers it. PVE does not know it. */
export const STATUS_METHOD = "daemon_status";

/** Changes when a field changes its meaning or goes; new ones may come at any time. */
export const STATE_VERSION = 1;

const unknown = <T extends v.GenericSchema>(schema: T) => v.nullable(schema);
const time = v.string();

const failure = v.object({ code: v.string(), message: v.string(), hint: unknown(v.string()) });

const linkSchema = v.object({
  /** The addresses that it is configured with. */
  hosts: v.array(v.string()),
  state: v.picklist(["idle", "connecting", "up", "down"]),
  /** Since when it has been up, or since when it has not been. */
  since: time,
  /** Where it is connected to, or was last. */
  address: unknown(v.string()),
  release: unknown(v.string()),
  bootId: unknown(v.string()),
  /** Why there is no session. */
  error: unknown(failure),
  nextTryAt: unknown(time),
  /** Since the daemon's start: logins tried, sessions opened, calls sent. */
  logins: v.number(),
  sessions: v.number(),
  calls: v.number(),
  /** Writes that wait, by service of the array; and those that the array is at work on. */
  queued: v.record(v.string(), v.number()),
  writing: v.number(),
});

const memorySchema = v.object({
  /** `good`: as on the array; `kept`: from before the daemon's start; `none`: nothing is answered from it. */
  trust: v.picklist(["good", "kept", "none"]),
  ageSeconds: unknown(v.number()),
  /** What the array exports for the storage; of iSCSI that is one more than there are volumes (`weight.ts`). */
  volumes: v.number(),
  /** Whether the array tells of changes; without that they are found by the next full read. */
  followed: v.boolean(),
  lastReadSeconds: unknown(v.number()),
  /** Reads of the array since the daemon's start. */
  reads: unknown(v.number()),
  /** What kept the last read from succeeding. */
  error: unknown(failure),
});

const portalSchema = v.object({
  /** `ADDR:PORT`, IPv6 in brackets. */
  address: v.string(),
  /** `unseen`: not connected, and the daemon has only just begun to look. */
  state: v.picklist(["live", "recovering", "missing", "unseen"]),
  since: unknown(time),
  error: unknown(v.string()),
  /** The node's own interface that leads to it, and how fast that is. */
  interface: unknown(v.string()),
  bytesPerSecond: unknown(v.number()),
});

const diskSchema = v.object({
  /** The zvol, or `<zvol>@<snapshot>`. */
  name: v.string(),
  /** Whether somebody on this node has it open. */
  inUse: unknown(v.boolean()),
  idleSince: unknown(time),
  /** Paths that carry it, of all that could. */
  pathsUp: v.number(),
  pathsConfigured: v.number(),
});

const storageSchema = v.object({
  id: v.string(),
  /** Why its section of the configuration cannot be used; then all else is unknown. */
  error: unknown(failure),
  transport: unknown(v.picklist(["iscsi", "nvme-tcp"])),
  dataset: unknown(v.string()),
  /** The session with its array; storages of one array share one. Null without a daemon. */
  array: unknown(linkSchema),
  memory: unknown(memorySchema),
  space: unknown(v.object({ total: v.number(), used: v.number(), available: v.number() })),
  pool: unknown(v.object({ name: v.string(), status: v.string() })),
  /** The most volumes that it can hold. */
  volumeLimit: unknown(v.number()),
  portals: v.array(portalSchema),
  /** What is attached to this node. */
  disks: v.array(diskSchema),
});

const journalSchema = v.object({
  open: v.array(v.object({
    id: v.string(),
    op: v.string(),
    storage: v.string(),
    zvol: v.string(),
    startedAt: time,
    /** Looks at it that came to nothing; and whether it is not looked at any more. */
    failures: v.number(),
    isGivenUp: v.boolean(),
    why: unknown(v.string()),
  })),
  /** Files that cannot be read. */
  unread: v.array(v.string()),
});

/** Cumulative counts for the daemon's `latencyBuckets`, as Prometheus has them; the last is all. */
const latencySchema = v.object({ sum: v.number(), buckets: v.array(v.number()) });

const daemonSchema = v.object({
  version: v.string(),
  pid: v.number(),
  startedAt: time,
  residentBytes: v.number(),
  cpuSeconds: v.number(),
  /** The longest that anything has waited for the program itself in the last quarter of a minute. */
  loopLagSeconds: v.number(),
  /** Upper bounds in seconds; the bucket without a bound follows them. */
  latencyBuckets: v.array(v.number()),
  requests: v.object({
    underWay: v.number(),
    total: v.number(),
    failed: v.number(),
    byMethod: v.array(v.object({
      method: v.string(),
      count: v.number(),
      /** Failures by code. */
      failed: v.record(v.string(), v.number()),
      seconds: latencySchema,
    })),
  }),
  arrayCalls: v.array(v.object({
    method: v.string(),
    count: v.number(),
    failed: v.number(),
    seconds: v.number(),
  })),
  /** The newest last; the same failure again is counted, not repeated. */
  errors: v.array(v.object({
    at: time,
    method: v.string(),
    storage: v.string(),
    code: v.string(),
    message: v.string(),
    hint: unknown(v.string()),
    count: v.number(),
  })),
  links: v.array(linkSchema),
});

const stateSchema = v.object({
  schemaVersion: v.literal(STATE_VERSION),
  node: v.string(),
  /** When all this was so. */
  time,
  /** Null when it is the node alone that tells. */
  daemon: unknown(daemonSchema),
  storages: v.array(storageSchema),
  /** Why the storages could not be read. */
  storagesError: unknown(failure),
  journal: journalSchema,
});

/** All of it. */
export type State = v.InferOutput<typeof stateSchema>;
/** The daemon's own part. */
export type DaemonState = NonNullable<State["daemon"]>;
/** One storage. */
export type StorageState = State["storages"][number];
/** The session with an array. */
export type LinkDocument = v.InferOutput<typeof linkSchema>;
/** A portal of the data path. */
export type PortalDocument = v.InferOutput<typeof portalSchema>;
/** A disk on this node. */
export type DiskDocument = v.InferOutput<typeof diskSchema>;
/** A failure in a few words. */
export type FailureDocument = v.InferOutput<typeof failure>;

/**
 * Reads a state that came over the socket.
 *
 * @throws TnblockError `unsupported` when a daemon of another version says something else.
 */
export function parseState(value: unknown): State {
  const parsed = v.safeParse(stateSchema, value);
  if (parsed.success) return parsed.output;
  const issue = parsed.issues[0];
  throw new TnblockError(
    "unsupported",
    `Cannot read what the daemon says of itself: ${v.getDotPath(issue) ?? "all of it"} is not as ` +
      `this tnblock knows it`,
    {
      hint: "Daemon and program may be of different versions: run systemctl restart tnblock",
    },
  );
}

/** Longest text of a failure that is told. */
const LONGEST = 600;

/** A failure as it is told: nothing of its cause, which may hold anything. */
export function failureDocument(
  error: { readonly code: string; readonly message: string; readonly hint?: string | undefined },
): FailureDocument {
  return {
    code: error.code,
    message: error.message.slice(0, LONGEST),
    hint: error.hint?.slice(0, LONGEST) ?? null,
  };
}
