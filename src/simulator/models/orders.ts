/**
 * The order in which the fields of a model are declared, where it is not the alphabetical one of the
 * tables: the real validator reports in this order. Fields that are not named keep their place after.
 */

const DATASET_BASE = [
  "name",
  "comments",
  "sync",
  "snapdev",
  "compression",
  "exec",
  "managedby",
  "quota_warning",
  "quota_critical",
  "refquota_warning",
  "refquota_critical",
  "reservation",
  "refreservation",
  "special_small_block_size",
  "copies",
  "snapdir",
  "deduplication",
  "checksum",
  "readonly",
  "share_type",
  "encryption_options",
  "encryption",
  "inherit_encryption",
  "user_properties",
  "create_ancestors",
];

export const FIELD_ORDERS: Readonly<Record<string, readonly string[]>> = {
  AuthApiKeyPlain: ["mechanism", "username", "api_key", "login_options"],
  AuthPasswordPlain: ["mechanism", "username", "password", "login_options"],
  AuthTokenPlain: ["mechanism", "token", "login_options"],
  AuthOTPToken: ["mechanism", "otp_token", "login_options"],
  PoolDatasetCreateFilesystem: [...DATASET_BASE, "type", "aclmode", "acltype"],
  PoolDatasetCreateVolume: [
    ...DATASET_BASE,
    "type",
    "force_size",
    "sparse",
    "volsize",
    "volblocksize",
  ],
  PoolSnapshotCreateWithName: ["dataset", "recursive", "vmware_sync", "properties", "exclude"],
  PoolSnapshotCreateWithSchema: ["dataset", "recursive", "vmware_sync", "properties", "exclude"],
  NVMetNamespaceCreate: ["nsid", "device_type", "device_path", "filesize", "enabled", "subsys_id"],
  IscsiExtentCreate: ["name", "type", "disk", "serial", "path", "filesize", "blocksize"],
  IscsiTargetToExtentCreate: ["target", "lunid", "extent"],
  IscsiAuthCreate: ["tag", "user", "secret", "peeruser", "peersecret", "discovery_auth"],
};

/** The Python enumeration behind a field, where the texts show its members. */
export const ENUM_NAMES: Readonly<Record<string, string>> = { mechanism: "AuthMech" };
