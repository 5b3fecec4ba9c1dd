/**
 * The roles that each method asks for, of those that tnblock calls: any one of a list is enough, and
 * an empty list means that only a full administrator may (TrueNAS's own method definitions, `roles=`,
 * the same in every release that has the method; a test holds this against the API schemas).
 *
 * The role that docs/truenas-roles.md tells to give stands first.
 */
export const NEEDED_ROLES: Readonly<Record<string, readonly string[]>> = {
  "iscsi.auth.query": ["SHARING_ISCSI_AUTH_READ"],
  "iscsi.extent.create": ["SHARING_ISCSI_EXTENT_WRITE"],
  "iscsi.extent.delete": ["SHARING_ISCSI_EXTENT_WRITE"],
  "iscsi.extent.query": ["SHARING_ISCSI_EXTENT_READ"],
  "iscsi.extent.update": ["SHARING_ISCSI_EXTENT_WRITE"],
  "iscsi.global.config": ["SHARING_ISCSI_GLOBAL_READ"],
  "iscsi.global.sessions": ["SHARING_ISCSI_GLOBAL_READ"],
  "iscsi.initiator.query": ["SHARING_ISCSI_INITIATOR_READ"],
  "iscsi.portal.query": ["SHARING_ISCSI_PORTAL_READ"],
  "iscsi.target.query": ["SHARING_ISCSI_TARGET_READ"],
  "iscsi.targetextent.create": ["SHARING_ISCSI_TARGETEXTENT_WRITE"],
  "iscsi.targetextent.delete": ["SHARING_ISCSI_TARGETEXTENT_WRITE"],
  "iscsi.targetextent.query": ["SHARING_ISCSI_TARGETEXTENT_READ"],
  "iscsi.targetextent.update": ["SHARING_ISCSI_TARGETEXTENT_WRITE"],
  "nvmet.global.sessions": ["SHARING_NVME_TARGET_READ"],
  "nvmet.host_subsys.query": ["SHARING_NVME_TARGET_READ"],
  "nvmet.namespace.create": ["SHARING_NVME_TARGET_WRITE"],
  "nvmet.namespace.delete": ["SHARING_NVME_TARGET_WRITE"],
  "nvmet.namespace.query": ["SHARING_NVME_TARGET_READ"],
  "nvmet.namespace.update": ["SHARING_NVME_TARGET_WRITE"],
  "nvmet.port_subsys.query": ["SHARING_NVME_TARGET_READ"],
  "nvmet.subsys.query": ["SHARING_NVME_TARGET_READ"],
  "pool.dataset.create": ["DATASET_WRITE"],
  "pool.dataset.delete": ["DATASET_DELETE"],
  "pool.dataset.promote": ["DATASET_WRITE"],
  "pool.dataset.query": ["DATASET_READ"],
  "pool.dataset.rename": ["DATASET_WRITE"],
  "pool.dataset.update": ["DATASET_WRITE"],
  "pool.query": ["POOL_READ"],
  "pool.snapshot.clone": ["SNAPSHOT_WRITE", "DATASET_WRITE"],
  "pool.snapshot.create": ["SNAPSHOT_WRITE"],
  "pool.snapshot.delete": ["SNAPSHOT_DELETE"],
  "pool.snapshot.query": ["SNAPSHOT_READ"],
  "pool.snapshot.rename": ["SNAPSHOT_WRITE"],
  "pool.snapshot.rollback": ["SNAPSHOT_WRITE", "POOL_WRITE"],
  "pool.snapshot.update": ["SNAPSHOT_WRITE"],
  "service.query": ["SERVICE_READ"],
  "service.started": ["SERVICE_READ"],
  "zfs.resource.destroy": ["ZFS_RESOURCE_DELETE"],
  "zfs.resource.query": ["ZFS_RESOURCE_READ"],
  "zfs.resource.snapshot.query": ["SNAPSHOT_READ"],
  "zfs.snapshot.clone": [],
  "zfs.snapshot.create": ["SNAPSHOT_WRITE"],
  "zfs.snapshot.delete": ["SNAPSHOT_DELETE"],
  "zfs.snapshot.query": ["SNAPSHOT_READ"],
  "zfs.snapshot.rollback": [],
  "zfs.snapshot.update": ["SNAPSHOT_WRITE"],
};

/** What the administrator must do so that the key may call a method; undefined for one we do not know. */
export function rightsHint(method: string): string | undefined {
  const roles = Object.hasOwn(NEEDED_ROLES, method) ? NEEDED_ROLES[method] : undefined;
  if (roles === undefined) return undefined;
  if (roles[0] === undefined) {
    return `This release of TrueNAS allows "${method}" to a full administrator only: update to 25.10 or newer, or use such a user's API key`;
  }
  return `Give the user of the API key the role ${
    roles[0]
  }, which "${method}" needs (docs/truenas-roles.md)`;
}
