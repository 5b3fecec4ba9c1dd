/** The flags of setup's answers; apart from the command, so that building the tree of commands loads nothing of it. */

/** Name, what stands for the value in the help, and what it says. */
export const SETUP_ANSWERS: readonly (readonly [name: string, value: string, about: string])[] = [
  ["api-port", "port", "port of the TrueNAS API (443)"],
  ["api-host", "address", "name or address of TrueNAS, two with a comma"],
  [
    "trust",
    "how",
    "verified, the certificate's SHA-256 fingerprint, or a PEM file of its authority",
  ],
  ["api-user", "name", "user that the API key belongs to"],
  ["api-key-file", "path", "file with the API key; - for standard input"],
  ["dataset", "pool/name", "dataset for the volumes; made when it is not there"],
  ["transport", "kind", "nvme-tcp or iscsi"],
  ["portals", "list", "addresses of the data path, ADDR[:PORT] with commas"],
  ["target", "name", "IQN or NQN of the target or subsystem, or new:NAME"],
  ["allow-hosts", "yes|no", "let the nodes of this cluster use it"],
  ["proof", "kind", "secrets made here: none, one-way or mutual"],
  [
    "secrets-file",
    "path",
    "JSON file with the CHAP or DH-HMAC-CHAP secrets that are there already",
  ],
  ["extent-blocksize", "bytes", "sectors of the disks (iSCSI): 512 or 4096"],
  ["zvol-blocksize", "size", "block size of new volumes (16K)"],
  ["thin", "yes|no", "thin volumes (yes)"],
  ["nodes", "list", "nodes that use the storage, or all"],
  ["content", "list", "images, rootdir, or both"],
  ["storage", "id", "the storage's name in Proxmox VE"],
];
