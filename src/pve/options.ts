/**
 * The one schema of all `tnb-*` options: the source for validation, for the shim's properties and
 * options (a test compares them), and for the documentation.
 */
import * as v from "valibot";

/** What the schema says of an option beyond its type. */
export interface OptionTraits {
  /** Cannot be changed after the storage was added. */
  readonly fixed?: true;
  /** Lives in the secrets file, never in storage.cfg. */
  readonly secret?: true;
}

/** Scalars arrive as text, number or boolean: Perl does not tell them apart. */
const scalar = v.pipe(
  v.union([v.string(), v.number(), v.boolean()]),
  v.transform((value) => typeof value === "boolean" ? (value ? "1" : "0") : String(value)),
);

const text = v.pipe(
  scalar,
  v.trim(),
  v.nonEmpty("it is empty"),
  v.maxLength(1024, "it is longer than 1024 characters"),
);

const flag = v.pipe(
  scalar,
  v.trim(),
  v.toLowerCase(),
  v.picklist(["0", "1", "no", "yes", "off", "on", "false", "true"], "it is neither 0 nor 1"),
  v.transform((value) => ["1", "yes", "on", "true"].includes(value)),
);

function integer(min: number, max: number) {
  const message = `it is not an integer from ${min} to ${max}`;
  return v.pipe(
    scalar,
    v.trim(),
    v.regex(/^-?[0-9]{1,9}$/, message),
    v.transform(Number),
    v.minValue(min, message),
    v.maxValue(max, message),
  );
}

function decimal(min: number, max: number) {
  const message = `it is not a number from ${min} to ${max}`;
  return v.pipe(
    scalar,
    v.trim(),
    v.regex(/^[0-9]{1,6}(\.[0-9]{1,6})?$/, message),
    v.transform(Number),
    v.minValue(min, message),
    v.maxValue(max, message),
  );
}

function choice<const T extends readonly string[]>(values: T) {
  return v.pipe(scalar, v.trim(), v.picklist(values, `it is none of ${values.join(", ")}`));
}

/** `iqn.YYYY-MM.reverse.domain[:name]` (RFC 3720 section 3.2.6.3.1), or the eui. and naa. forms. */
const IQN =
  /^(iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[a-z0-9.:_-]+)?|eui\.[0-9a-f]{16}|naa\.[0-9a-f]{16}([0-9a-f]{16})?)$/;

/** `nqn.YYYY-MM.reverse.domain:name`, at most 223 bytes (NVMe base specification, NVMe qualified names). */
const NQN = /^nqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?:[^\s,\0]+$/;

const nqn = v.pipe(
  text,
  v.maxBytes(223, "an NQN has at most 223 bytes"),
  v.regex(NQN, "it is not an NQN of the form nqn.YYYY-MM.reverse.domain:name"),
);

/** ZFS: letters, digits and `_ - . :`, components joined by single slashes, none of them `.` or `..`. */
const DATASET = /^[A-Za-z][A-Za-z0-9_.:-]*(\/(?!\.{1,2}(\/|$))[A-Za-z0-9_.:-]+)*$/;

const BLOCK_SIZES = ["512", "1K", "2K", "4K", "8K", "16K", "32K", "64K", "128K"] as const;

const COMPRESSIONS = [
  "OFF",
  "LZ4",
  "GZIP",
  "GZIP-1",
  "GZIP-9",
  "ZSTD",
  "ZSTD-1",
  "ZSTD-3",
  "ZSTD-5",
  "ZSTD-7",
  "ZSTD-9",
  "ZLE",
  "LZJB",
] as const;

function option<S extends v.GenericSchema<unknown, unknown>>(
  schema: S,
  description: string,
  traits: OptionTraits = {},
) {
  return v.pipe(v.optional(schema), v.description(description), v.metadata({ ...traits }));
}

/** Every option of the storage type, none of them required by the schema: what must be there depends on the transport. */
export const optionSchema = v.object({
  "tnb-api-host": option(
    text,
    "Host name or address of the TrueNAS API; up to two, separated by a comma.",
  ),
  "tnb-api-port": option(integer(1, 65535), "Port of the TrueNAS API (default 443)."),
  "tnb-api-user": option(
    v.pipe(text, v.regex(/^[A-Za-z0-9_.@\\-]{1,64}$/, "it is not a user name")),
    "User that the API key belongs to.",
  ),
  "tnb-api-key": option(
    v.pipe(
      text,
      v.regex(/^[0-9]+-[A-Za-z0-9]{16,128}$/, "it is not an API key of the form NUMBER-CHARACTERS"),
    ),
    "API key of the TrueNAS user.",
    { secret: true },
  ),
  "tnb-api-transport": option(
    choice(["ws", "rest"]),
    "How the API is spoken: ws, or rest (TrueNAS up to 25.10, iSCSI only, key of a full administrator; default ws).",
  ),
  "tnb-tls-fingerprint": option(
    v.pipe(
      text,
      v.toLowerCase(),
      v.transform((value) => value.replaceAll(":", "")),
      v.regex(/^[0-9a-f]{64}$/, "it is not a SHA-256 fingerprint of 64 hex digits"),
    ),
    "SHA-256 fingerprint of the certificate of TrueNAS; only this certificate is accepted then.",
  ),
  "tnb-tls-ca": option(
    v.pipe(text, v.regex(/^\/[^\0]*$/, "it is not an absolute path")),
    "PEM file with the certificate authority that signed the certificate of TrueNAS.",
  ),
  "tnb-api-retry-max": option(
    integer(0, 10),
    "How often a read is tried again after a failure of the network (default 3).",
  ),
  "tnb-api-retry-delay": option(
    decimal(0.1, 60),
    "Seconds before the first such try, doubled each time (default 1).",
  ),
  "tnb-dataset": option(
    v.pipe(
      text,
      v.maxLength(140, "it is longer than 140 characters"),
      v.regex(DATASET, "it is not a dataset path such as tank/pve"),
    ),
    "Dataset below which the volumes are made.",
    { fixed: true },
  ),
  "tnb-zvol-blocksize": option(
    v.pipe(
      scalar,
      v.trim(),
      v.toUpperCase(),
      v.transform((value) => value === "512B" ? "512" : value),
      v.picklist(BLOCK_SIZES, `it is none of ${BLOCK_SIZES.join(", ")}`),
    ),
    "Block size of new volumes (default 16K).",
  ),
  "tnb-sparse": option(flag, "Make thin volumes (default 1)."),
  "tnb-compression": option(
    v.pipe(
      scalar,
      v.trim(),
      v.toUpperCase(),
      v.picklist(COMPRESSIONS, "it is not a compression that TrueNAS knows"),
    ),
    "ZFS compression of new volumes (default: as the dataset).",
  ),
  "tnb-transport-mode": option(
    choice(["iscsi", "nvme-tcp"]),
    "How volumes reach the node (default iscsi).",
    { fixed: true },
  ),
  "tnb-target-iqn": option(
    v.pipe(
      text,
      v.toLowerCase(),
      v.maxLength(223, "an IQN has at most 223 characters"),
      v.regex(IQN, "it is not an IQN of the form iqn.YYYY-MM.reverse.domain:name"),
    ),
    "IQN of the iSCSI target that carries the volumes.",
    { fixed: true },
  ),
  "tnb-discovery-portal": option(text, "First portal, ADDR[:PORT], IPv6 in brackets."),
  "tnb-portals": option(text, "All portals, ADDR[:PORT] separated by commas."),
  "tnb-use-multipath": option(
    flag,
    "Use dm-multipath over all portals (iSCSI; default 1 with more than one portal).",
  ),
  "tnb-chap-user": option(text, "CHAP user (iSCSI)."),
  "tnb-chap-password": option(
    v.pipe(text, v.regex(/^[^#]{12,16}$/, "TrueNAS takes 12 to 16 characters without #")),
    "CHAP secret (iSCSI).",
    { secret: true },
  ),
  "tnb-chap-peer-user": option(text, "User that the target must present (mutual CHAP)."),
  "tnb-chap-peer-password": option(
    v.pipe(text, v.regex(/^[^#]{12,16}$/, "TrueNAS takes 12 to 16 characters without #")),
    "Secret that the target must present (mutual CHAP).",
    { secret: true },
  ),
  "tnb-subsystem-nqn": option(nqn, "NQN of the NVMe-oF subsystem that carries the volumes.", {
    fixed: true,
  }),
  "tnb-hostnqn": option(
    nqn,
    "NQN that the array must know this node by (default: the node's own).",
  ),
  "tnb-dhchap-secret": option(
    v.pipe(
      text,
      v.regex(/^DHHC-1:0[0-3]:[A-Za-z0-9+/=]+:$/, "it is not a key of the form DHHC-1:0x:...:"),
    ),
    "DH-HMAC-CHAP key of the host (NVMe).",
    { secret: true },
  ),
  "tnb-dhchap-ctrl-secret": option(
    v.pipe(
      text,
      v.regex(/^DHHC-1:0[0-3]:[A-Za-z0-9+/=]+:$/, "it is not a key of the form DHHC-1:0x:...:"),
    ),
    "DH-HMAC-CHAP key of the controller (NVMe, two-way).",
    { secret: true },
  ),
  "tnb-nr-io-queues": option(
    integer(1, 256),
    "I/O queues of each NVMe connection (default: one for each CPU).",
  ),
  "tnb-ctrl-loss-tmo": option(
    integer(-1, 86400),
    "Seconds until a lost NVMe controller is given up; -1 never (default -1).",
  ),
  "tnb-reconnect-delay": option(integer(1, 3600), "Seconds between two tries to reconnect (NVMe)."),
  "tnb-keep-alive-tmo": option(integer(1, 3600), "Keep-alive seconds (NVMe)."),
  "tnb-extent-blocksize": option(
    choice(["512", "4096"]),
    "Logical block size of new iSCSI extents (default 512).",
    { fixed: true },
  ),
  "tnb-force-free": option(
    flag,
    "Free a volume although a guest elsewhere that names it runs or may run (default 0).",
  ),
  "tnb-lock-timeout": option(
    integer(10, 600),
    "Seconds to wait for the storage lock of PVE (default 120).",
  ),
  "tnb-debug": option(integer(0, 2), "How much is logged: 0 to 2 (default 0)."),
});

/** The options of one storage, checked one by one. */
export type Options = v.InferOutput<typeof optionSchema>;

/** The names of the options that live in the secrets file. */
export const SECRET_OPTIONS: readonly string[] = Object.entries(optionSchema.entries)
  .filter(([, schema]) => (v.getMetadata(schema) as OptionTraits).secret === true)
  .map(([name]) => name);
