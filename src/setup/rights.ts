/** What the user of the API key may do: what daily work needs, and what making things needs on top. */
import { TnblockError } from "../common/error.ts";
import { KEY_MENU } from "../truenas/key_menu.ts";
import type { Release } from "../truenas/dialect.ts";
import type { Privileges } from "../truenas/privileges.ts";

/** The least roles for daily work, as docs/truenas-roles.md tells them. */
export function leastRoles(
  transport: "iscsi" | "nvme-tcp",
  release: Pick<Release, "can">,
): string[] {
  const { nvmet, zfsResource, zfsResourceWrites } = release.can;
  return [
    ...["DATASET_WRITE", "SNAPSHOT_WRITE", "SNAPSHOT_DELETE", "SERVICE_READ"],
    ...(zfsResourceWrites ? ["ZFS_RESOURCE_DELETE"] : ["DATASET_DELETE"]),
    ...(zfsResource ? ["ZFS_RESOURCE_READ"] : []),
    ...(transport === "iscsi"
      ? [
        ...["SHARING_ISCSI_EXTENT_WRITE", "SHARING_ISCSI_TARGETEXTENT_WRITE"],
        ...["SHARING_ISCSI_TARGET_READ", "SHARING_ISCSI_PORTAL_READ", "SHARING_ISCSI_GLOBAL_READ"],
        ...(nvmet ? ["SHARING_NVME_TARGET_READ"] : []),
      ]
      : ["SHARING_NVME_TARGET_WRITE", "SHARING_ISCSI_EXTENT_READ"]),
  ];
}

/** Those of some roles that a session has not. */
export function lacking({ isFullAdmin, roles }: Privileges, wanted: readonly string[]): string[] {
  return isFullAdmin ? [] : wanted.filter((role) => !roles.has(role));
}

/** How a key with no more rights than needed is made. */
export function howToMakeKey(roles: readonly string[]): string {
  return [
    "In TrueNAS: Credentials > Groups > Privileges > Add, with a group of its own and the roles",
    `${roles.join(" ")};`,
    `then Credentials > Users > Add in that group, and its key in ${KEY_MENU}`,
  ].join(" ");
}

/** @throws TnblockError `denied` when daily work would fail. */
export function checkRights(
  privileges: Privileges,
  transport: "iscsi" | "nvme-tcp",
  release: Pick<Release, "can">,
): void {
  const wanted = leastRoles(transport, release);
  const missing = lacking(privileges, wanted);
  if (missing.length === 0) return;
  throw new TnblockError(
    "denied",
    `Cannot use the API key for ${transport}: its user lacks ${missing.join(", ")}`,
    { field: "--api-key-file", hint: howToMakeKey(wanted) },
  );
}
