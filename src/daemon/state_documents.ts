/** The parts of the daemon's state as they are told: each from what its owner reports. Pure. */
import type { Host } from "../host/host.ts";
import type { KeeperState } from "./keeper.ts";
import type { LinkState } from "./link_state.ts";
import type { MemoryReport } from "./memory.ts";
import type { RecoveryReport } from "./recovery.ts";
import {
  type DiskDocument,
  failureDocument,
  type LinkDocument,
  type State,
  type StorageState,
} from "./state.ts";

export function linkDocument(hosts: readonly string[], link: LinkState, host: Host): LinkDocument {
  /** Of the monotonic clock. */
  const timeOf = (ms: number) => isoOf(host.now() - host.monotonicMs() + ms);
  return {
    hosts: [...hosts],
    state: link.kind,
    since: timeOf(link.sinceMs),
    address: link.address ?? null,
    release: link.release ?? null,
    bootId: link.bootId ?? null,
    error: link.error === undefined ? null : failureDocument(link.error),
    nextTryAt: link.nextTryMs === undefined ? null : timeOf(link.nextTryMs),
    logins: link.logins,
    sessions: link.sessions,
    calls: link.calls,
    queued: { ...link.queued },
    writing: link.writing,
  };
}

export function memoryDocument(report: MemoryReport): NonNullable<StorageState["memory"]> {
  return {
    trust: report.trust,
    ageSeconds: report.ageMs === undefined ? null : report.ageMs / 1000,
    volumes: report.volumes,
    followed: report.followed,
    lastReadSeconds: report.lastReadMs === undefined ? null : report.lastReadMs / 1000,
    reads: report.reads,
    error: report.failure === undefined ? null : failureDocument(report.failure),
  };
}

export function spaceOf(report: MemoryReport | undefined): StorageState["space"] {
  if (report?.space === undefined) return null;
  const { available, used } = report.space;
  return { total: available + used, used, available };
}

export function poolOf(report: MemoryReport | undefined): StorageState["pool"] {
  return report?.pool === undefined ? null : { name: report.pool.name, status: report.pool.status };
}

export function keptDisks({ disks }: KeeperState): DiskDocument[] {
  return disks.map(({ zvol, inUse, idleSinceMs, paths }) => ({
    name: zvol,
    inUse,
    idleSince: idleSinceMs === undefined ? null : isoOf(idleSinceMs),
    pathsUp: paths.up,
    pathsConfigured: paths.configured,
  }));
}

export function journalDocument({ open, unread }: RecoveryReport): State["journal"] {
  return {
    open: open.map(({ id, op, storage, zvol, startedMs, failures, isGivenUp, why }) => ({
      ...{ id, op, storage, zvol, failures, isGivenUp },
      startedAt: isoOf(startedMs),
      why: why ?? null,
    })),
    unread: [...unread],
  };
}

export function isoOf(ms: number): string {
  return new Date(ms).toISOString();
}
