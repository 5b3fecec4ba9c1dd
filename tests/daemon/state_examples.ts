/** States as they may be told, for what is made of them. */
import type { DaemonState, LinkDocument, State, StorageState } from "../../src/daemon/state.ts";

/** When they were told. */
export const NOW = "2026-03-01T12:00:00.000Z";

export const LINK: LinkDocument = {
  hosts: ["nas.lan"],
  state: "up",
  since: "2026-03-01T08:48:00.000Z",
  address: "nas.lan:443",
  release: "TrueNAS-SCALE-25.10.1",
  bootId: null,
  error: null,
  nextTryAt: null,
  logins: 2,
  sessions: 1,
  calls: 100,
  queued: { iscsi: 0, nvmet: 3, zfs: 0, other: 0 },
  writing: 1,
};

/** A storage of which all is well. */
export function storage(change: Partial<StorageState> = {}): StorageState {
  return {
    id: "san",
    error: null,
    transport: "nvme-tcp",
    dataset: "tank/pve",
    array: LINK,
    memory: {
      trust: "good",
      ageSeconds: 2,
      volumes: 120,
      followed: true,
      lastReadSeconds: 0.2,
      reads: 40,
      error: null,
    },
    space: { total: 3 * 1024 ** 4, used: 1024 ** 4, available: 2 * 1024 ** 4 },
    pool: { name: "tank", status: "ONLINE" },
    volumeLimit: 1000,
    portals: [
      portal("10.0.20.11:4420"),
      portal("[fd00::11]:4420"),
    ],
    disks: [disk("vm-100-disk-0", true), disk("vm-101-disk-0", false)],
    ...change,
  };
}

export function portal(
  address: string,
  change: Partial<StorageState["portals"][number]> = {},
): StorageState["portals"][number] {
  return {
    address,
    state: "live",
    since: "2026-02-26T08:00:00.000Z",
    error: null,
    interface: "ens19",
    bytesPerSecond: 3_125_000_000,
    ...change,
  };
}

export function disk(
  name: string,
  inUse: boolean,
  change: Partial<StorageState["disks"][number]> = {},
): StorageState["disks"][number] {
  const idleSince = inUse ? null : "2026-03-01T11:59:30.000Z";
  return { name, inUse, idleSince, pathsUp: 2, pathsConfigured: 2, ...change };
}

export const DAEMON: DaemonState = {
  version: "1.2.3",
  pid: 812,
  startedAt: "2026-02-26T08:00:00.000Z",
  residentBytes: 70 * 1024 ** 2,
  cpuSeconds: 12.5,
  loopLagSeconds: 0.01,
  latencyBuckets: [0.001, 0.1],
  requests: {
    underWay: 2,
    total: 1234,
    failed: 12,
    byMethod: [
      {
        method: "list_images",
        count: 1000,
        failed: {},
        seconds: { sum: 4, buckets: [900, 1000, 1000] },
      },
      {
        method: "alloc_image",
        count: 234,
        failed: { busy: 2, "no-space": 10 },
        seconds: { sum: 200, buckets: [0, 4, 234] },
      },
    ],
  },
  arrayCalls: [{ method: "zfs.resource.query", count: 40, failed: 1, seconds: 8 }],
  errors: [],
  links: [LINK],
};

/** A node where all is well. */
export function state(change: Partial<State> = {}): State {
  return {
    schemaVersion: 1,
    node: "pve1",
    time: NOW,
    daemon: DAEMON,
    storages: [storage()],
    storagesError: null,
    journal: { open: [], unread: [] },
    ...change,
  };
}
