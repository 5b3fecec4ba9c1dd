/** Faults of the array, and of the way to it. */
import type { Healthy } from "./healthy.ts";
import type { Plant } from "./planted.ts";

const nvme = { transport: "nvme-tcp", severity: "error" } as const;
const iscsi = { transport: "iscsi", severity: "error" } as const;
const both = [nvme, iscsi];

const GIB = 1024 ** 3;

/** A key with fewer rights: the array tells so, and goes on doing everything for it. */
async function withoutRoles(healthy: Healthy, lacking: readonly string[]): Promise<void> {
  const result = await meWithout(healthy, lacking);
  await healthy.place.faults([{ method: "auth.me", do: "result", result }]);
}

/** What the array says of a key with these roles less. */
export async function meWithout(healthy: Healthy, lacking: readonly string[]) {
  // deno-lint-ignore no-explicit-any
  const me = await healthy.administer("auth.me") as any;
  const roles = LEAST.filter((role) => !lacking.includes(role));
  return { ...me, privilege: { ...me.privilege, roles: { $set: roles }, allowlist: [] } };
}

/** As the login budget names its file. */
async function sha256Of(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")
    .slice(0, 16);
}

/** What docs/truenas-roles.md tells to give, with what each includes. */
const LEAST = [
  ...["DATASET_WRITE", "DATASET_READ", "DATASET_DELETE", "SNAPSHOT_WRITE", "SNAPSHOT_READ"],
  ...["SNAPSHOT_DELETE", "SERVICE_READ", "ZFS_RESOURCE_READ", "POOL_READ"],
  ...["SHARING_ISCSI_EXTENT_WRITE", "SHARING_ISCSI_EXTENT_READ"],
  ...["SHARING_ISCSI_TARGETEXTENT_WRITE", "SHARING_ISCSI_TARGETEXTENT_READ"],
  ...["SHARING_ISCSI_TARGET_READ", "SHARING_ISCSI_PORTAL_READ", "SHARING_ISCSI_GLOBAL_READ"],
  ...["SHARING_NVME_TARGET_WRITE", "SHARING_NVME_TARGET_READ"],
];

const pool = [{ name: "tank", status: "DEGRADED", healthy: false }];

async function setOwner(healthy: Healthy, value: string | undefined): Promise<void> {
  const key = "tnblock:owner";
  const update = value === undefined ? { key, remove: true } : { key, value };
  await healthy.administer("pool.dataset.update", "tank/pve", { user_properties_update: [update] });
}

/** See {@link Plant}. */
export const ARRAY_PLANTS: readonly Plant[] = [
  ...both.flatMap((on): Plant[] => [
    {
      ...on,
      check: "api-reach",
      what: "an API that does not answer",
      plant: (healthy) => healthy.writeCfg({ "tnb-api-port": 1 }),
    },
    {
      ...on,
      check: "certificate",
      what: "a certificate that is not the trusted one",
      plant: (healthy) => healthy.writeCfg({ "tnb-tls-fingerprint": "ab".repeat(32) }),
    },
    {
      ...on,
      check: "api-key",
      what: "a key that is refused",
      plant: (healthy) => healthy.place.writeSecrets({ "tnb-api-key": `1-${"x".repeat(64)}` }),
    },
    {
      ...on,
      check: "api-rights",
      what: "a key without the right to delete snapshots",
      plant: (healthy) => withoutRoles(healthy, ["SNAPSHOT_DELETE"]),
    },
    {
      ...on,
      check: "release",
      what: "a release that is newer than known",
      severity: "warning",
      place: { release: "26" },
      plant: (healthy) =>
        healthy.place.faults([{ method: "system.version", do: "result", result: "27.0.0" }]),
    },
    {
      ...on,
      check: "session",
      what: "a daemon that cannot log in while others can",
      plant: (healthy) => {
        const since = new Date(Date.now() - 600_000).toISOString();
        const link = healthy.daemonState.storages[0]!.array!;
        healthy.daemonState.storages[0]!.array = { ...link, state: "down", since };
      },
    },
    {
      ...on,
      check: "clock",
      what: "a clock that is an hour ahead",
      how: (healthy) => {
        const { host } = healthy;
        return { host: { ...host, now: () => host.now() + 3_600_000 } };
      },
      plant: (healthy) => healthy.tellPve(Date.now() / 1000 + 3600),
    },
    {
      ...on,
      check: "service",
      what: "a service that does not run",
      plant: (healthy) => healthy.place.stopService(on === nvme ? "nvmet" : "iscsitarget"),
    },
    {
      ...on,
      check: "service",
      what: "a service that does not start at boot",
      severity: "warning",
      plant: (healthy) =>
        healthy.administer("service.update", on === nvme ? "nvmet" : "iscsitarget", {
          enable: false,
        }),
    },
    {
      ...on,
      check: "dataset",
      what: "a dataset that is not there",
      plant: (healthy) => healthy.writeCfg({ "tnb-dataset": "tank/other" }),
    },
    {
      ...on,
      check: "dataset",
      what: "a dataset that is a zvol",
      plant: async (healthy) => {
        await healthy.administer("pool.dataset.create", {
          name: "tank/zvol",
          type: "VOLUME",
          volsize: GIB,
        });
        await healthy.writeCfg({ "tnb-dataset": "tank/zvol" });
      },
    },
    {
      ...on,
      check: "dataset",
      what: "a dataset of another cluster",
      plant: (healthy) => setOwner(healthy, `${crypto.randomUUID()}/san`),
    },
    {
      ...on,
      check: "dataset",
      what: "a dataset without an owner",
      severity: "warning",
      plant: (healthy) => setOwner(healthy, undefined),
    },
    {
      ...on,
      check: "space",
      what: "a dataset with little room",
      severity: "warning",
      plant: (healthy) =>
        healthy.administer("pool.dataset.create", {
          name: "tank/pve/large",
          type: "VOLUME",
          volsize: 95 * 1024 * GIB,
          force_size: true,
        }),
    },
    {
      ...on,
      check: "pool",
      what: "a pool that is degraded",
      severity: "warning",
      plant: (healthy) =>
        healthy.place.faults([{ method: "pool.query", do: "result", result: pool }]),
    },
    {
      ...on,
      check: "target",
      what: on === nvme ? "a subsystem that is not there" : "a target that is not there",
      plant: (healthy) =>
        healthy.writeCfg(
          on === nvme
            ? { "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:uuid:other:none" }
            : { "tnb-target-iqn": "iqn.2005-10.org.freenas.ctl:none" },
        ),
    },
    {
      ...on,
      check: "portals",
      what: "a portal that the array does not offer",
      severity: "warning",
      plant: (healthy) => {
        const { portals } = healthy.place.simulator.ready;
        const right = on === nvme ? portals.nvme : portals.iscsi;
        const port = right[0]?.split(":").at(-1);
        return healthy.writeCfg({ "tnb-portals": [...right, `127.9.9.9:${port}`].join(",") });
      },
    },
    {
      ...on,
      check: "orphans",
      what: "a volume that no guest names",
      severity: "warning",
      place: { now: () => Date.now() - 48 * 3_600_000 },
      plant: (healthy) => healthy.writeGuest("scsi1: other:vol-vm-100-disk-0-lun1,size=1G\n"),
    },
  ]),
  {
    ...iscsi,
    check: "api-rights",
    what: "a key that may not even read extents",
    plant: async (healthy) => {
      const lacking = ["SHARING_ISCSI_EXTENT_WRITE", "SHARING_ISCSI_EXTENT_READ"];
      const me = await meWithout(healthy, lacking);
      await healthy.place.faults([
        { method: "auth.me", do: "result", result: me },
        { method: "iscsi.extent.query", do: "error", errno: 13, message: "Not authorized" },
      ]);
    },
  },
  {
    ...iscsi,
    check: "target",
    what: "NVMe/TCP on a release without it",
    place: { release: "25.04" },
    plant: (healthy) =>
      healthy.writeCfg({
        "tnb-transport-mode": "nvme-tcp",
        "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:uuid:none:pve",
      }),
  },
  {
    ...nvme,
    check: "release",
    what: "a release with a fault that bites",
    severity: "warning",
    place: { release: "26" },
    plant: (healthy) =>
      healthy.place.faults([
        { method: "system.version", do: "result", result: "26.0.0-BETA.1" },
      ]),
  },
  {
    ...nvme,
    check: "api-key",
    what: "a node that has used up its logins",
    severity: "warning",
    how: () => ({ limitLogins: true }),
    plant: async (healthy) => {
      const { host, port } = healthy.place.simulator.ready;
      const name = await sha256Of(`${host}:${port}`);
      const state = { left: 0, at: Date.now() };
      await healthy.write(`/run/tnblock/logins-${name}.json`, JSON.stringify(state));
    },
  },
  {
    ...iscsi,
    check: "api-rights",
    what: "a key that may not clone on 25.04",
    severity: "warning",
    place: { release: "25.04" },
    plant: (healthy) => withoutRoles(healthy, []),
  },
  {
    ...nvme,
    check: "hosts-allowed",
    what: "a subsystem that lets everybody in, and names some",
    plant: (healthy) => healthy.administer("nvmet.subsys.update", 1, { allow_any_host: true }),
  },
  {
    ...nvme,
    check: "hosts-allowed",
    what: "a subsystem that lets everybody in",
    severity: "warning",
    plant: async (healthy) => {
      await healthy.administer("nvmet.host_subsys.delete", 1);
      await healthy.administer("nvmet.subsys.update", 1, { allow_any_host: true });
    },
  },
  {
    ...nvme,
    check: "hosts-allowed",
    what: "a subsystem that does not name this node",
    plant: (healthy) => healthy.administer("nvmet.host_subsys.delete", 1),
  },
  {
    ...iscsi,
    check: "hosts-allowed",
    what: "a target that does not name this node",
    plant: (healthy) =>
      healthy.administer("iscsi.initiator.update", 1, { initiators: ["iqn.2001-01.org:other"] }),
  },
  {
    ...iscsi,
    check: "hosts-allowed",
    what: "a target that lets everybody in",
    severity: "warning",
    plant: (healthy) => healthy.administer("iscsi.initiator.update", 1, { initiators: [] }),
  },
  {
    ...iscsi,
    check: "weight",
    what: "a target without a weight",
    severity: "warning",
    plant: async (healthy) => {
      const { extents, mappings } = await healthy.place.objects({ weight: true });
      const weight = extents?.find((row) => /tnb-weight/.test(row.disk ?? row.path));
      const mapping = mappings?.find((row) => row.extent === weight.id);
      await healthy.administer("iscsi.targetextent.delete", mapping.id, true);
    },
  },
  {
    ...nvme,
    check: "exports-seen",
    what: "a namespace that the array's kernel does not have",
    plant: async (healthy) => {
      const name = "tank/pve/unseen";
      await healthy.administer("pool.dataset.create", { name, type: "VOLUME", volsize: GIB });
      await healthy.place.faults([{ method: "reload.nvmet", do: "error", errno: 202 }]);
      await healthy.administer("nvmet.namespace.create", {
        subsys_id: 1,
        nsid: 900,
        device_type: "ZVOL",
        device_path: `zvol/${name}`,
        enabled: true,
      }).catch(() => {});
    },
  },
  {
    ...iscsi,
    check: "exports-seen",
    what: "a disk whose export is gone",
    plant: async (healthy) => {
      const { mappings, extents } = await healthy.place.objects();
      await healthy.administer("iscsi.targetextent.delete", mappings?.[0].id, true);
      await healthy.administer("iscsi.extent.delete", extents?.[0].id, false, true);
    },
  },
  {
    ...nvme,
    check: "old-subsystems",
    what: "a volume with a subsystem of its own",
    severity: "warning",
    plant: async (healthy) => {
      const name = "tank/pve/pvc-1";
      await healthy.administer("pool.dataset.create", { name, type: "VOLUME", volsize: GIB });
      const made = await healthy.administer("nvmet.subsys.create", { name: "pvc-1" });
      await healthy.administer("nvmet.namespace.create", {
        subsys_id: (made as { id: number }).id,
        device_type: "ZVOL",
        device_path: `zvol/${name}`,
      });
    },
  },
  {
    ...nvme,
    check: "limits",
    what: "a subsystem that is nearly full",
    severity: "warning",
    plant: async (healthy) => {
      // 900 of them would take the simulator half a minute.
      // deno-lint-ignore no-explicit-any
      const rows = await healthy.administer("nvmet.namespace.query", [], {}) as any[];
      const more = Array.from({ length: 900 }, (_, index) => ({
        ...rows[0],
        id: 1000 + index,
        nsid: 100 + index,
        device_path: `zvol/tank/else/vm-${index}`,
        device_uuid: crypto.randomUUID(),
        device_nguid: crypto.randomUUID(),
      }));
      const result = [...rows, ...more];
      await healthy.place.faults([{ method: "nvmet.namespace.query", do: "result", result }]);
    },
  },
];
