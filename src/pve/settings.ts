/**
 * The settings of a storage: from the section that PVE parsed plus the secrets file to checked
 * {@link StorageSettings}.
 */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { formatPortal, isIpv4, isIpv6, parsePortals } from "../common/portal.ts";
import type {
  ChapSettings,
  IscsiSettings,
  NvmeSettings,
  StorageSettings,
  TlsTrust,
} from "../common/storage_settings.ts";
import { type Options, optionSchema, SECRET_OPTIONS } from "./options.ts";

function refuse(option: string, reason: string, hint?: string): TnblockError {
  return new TnblockError("config", `Cannot use ${option}: ${reason}`, {
    field: option,
    ...(hint === undefined ? {} : { hint }),
  });
}

/** PVE's own keys may be anything; ours must be known, and secrets stay out of the section. */
function checkKeys(
  config: Readonly<Record<string, unknown>>,
  secrets: Readonly<Record<string, unknown>>,
): void {
  for (const name of Object.keys(config)) {
    if (!name.startsWith("tnb-")) continue;
    if (!(name in optionSchema.entries)) {
      throw refuse(name, "there is no such option", closest(name));
    }
    if (SECRET_OPTIONS.includes(name)) {
      throw refuse(
        name,
        "a secret does not belong in storage.cfg",
        `Run: pvesm set STORAGE --${name} VALUE`,
      );
    }
  }
  for (const name of Object.keys(secrets)) {
    if (!SECRET_OPTIONS.includes(name)) throw refuse(name, "the secrets file may not hold it");
  }
}

/** "Did you mean": the option that differs in the fewest characters, when that is few. */
function closest(name: string): string | undefined {
  const ranked = Object.keys(optionSchema.entries)
    .map((known) => ({ known, distance: editDistance(name, known) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked[0];
  return best !== undefined && best.distance <= 4 ? `Did you mean ${best.known}?` : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

function parseOptions(values: Readonly<Record<string, unknown>>): Options {
  const known = Object.fromEntries(
    Object.entries(values).filter(([name, value]) =>
      name in optionSchema.entries && value !== null
    ),
  );
  const result = v.safeParse(optionSchema, known, { abortPipeEarly: true });
  if (result.success) return result.output;
  const issue = result.issues[0];
  const option = String(issue.path?.[0]?.key ?? "the configuration");
  // A wrong type has valibot's own words; a value that is a secret is never repeated.
  const reason = issue.kind === "schema" && issue.type === "union"
    ? "it is not a single value"
    : issue.message;
  throw refuse(option, reason);
}

function required<K extends keyof Options>(
  options: Options,
  name: K,
  why = "it is missing",
): NonNullable<Options[K]> {
  const value = options[name];
  if (value === undefined) throw refuse(name, why);
  return value as NonNullable<Options[K]>;
}

/** An API address: host name, IPv4, or IPv6 with or without brackets. */
function checkHost(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, "$1");
  if (isIpv6(bare)) return true;
  if (/^[0-9.]+$/.test(host)) return isIpv4(host);
  return host.length <= 253 &&
    /^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*\.?$/.test(
      host,
    );
}

function parseHosts(value: string): string[] {
  if (/^(ws|http):\/\//i.test(value)) {
    throw refuse(
      "tnb-api-host",
      "plain ws is never used: TrueNAS revokes an API key that it sees in clear",
      "Give the bare host name or address; TLS is always used",
    );
  }
  const hosts = value.split(/[\s,]+/).filter((host) => host !== "");
  if (hosts.length < 1 || hosts.length > 2) {
    throw refuse("tnb-api-host", "it takes one or two addresses");
  }
  for (const host of hosts) {
    if (!checkHost(host)) {
      throw refuse(
        "tnb-api-host",
        `"${host}" is not a host name or address`,
        "Give it without scheme, port and path; the port is tnb-api-port",
      );
    }
  }
  return hosts.map((host) => host.replace(/^\[(.*)\]$/, "$1"));
}

function parseTls(options: Options): TlsTrust {
  const sha256 = options["tnb-tls-fingerprint"];
  const file = options["tnb-tls-ca"];
  if (sha256 !== undefined && file !== undefined) {
    throw refuse("tnb-tls-ca", "give either it or tnb-tls-fingerprint");
  }
  if (sha256 !== undefined) return { kind: "fingerprint", sha256 };
  return file === undefined ? { kind: "verified" } : { kind: "ca", file };
}

function parseChap(options: Options): ChapSettings | undefined {
  const user = options["tnb-chap-user"];
  const password = options["tnb-chap-password"];
  const peerUser = options["tnb-chap-peer-user"];
  const peerPassword = options["tnb-chap-peer-password"];
  if ((user === undefined) !== (password === undefined)) {
    throw refuse(
      user === undefined ? "tnb-chap-user" : "tnb-chap-password",
      "CHAP needs both a user and a secret",
    );
  }
  if ((peerUser === undefined) !== (peerPassword === undefined)) {
    throw refuse(
      peerUser === undefined ? "tnb-chap-peer-user" : "tnb-chap-peer-password",
      "mutual CHAP needs both a user and a secret",
    );
  }
  if (user === undefined || password === undefined) {
    if (peerUser !== undefined) {
      throw refuse("tnb-chap-peer-user", "mutual CHAP needs tnb-chap-user too");
    }
    return undefined;
  }
  if (peerPassword === password) {
    throw refuse("tnb-chap-peer-password", "it must differ from tnb-chap-password");
  }
  return {
    user,
    password,
    peer: peerUser === undefined || peerPassword === undefined
      ? undefined
      : { user: peerUser, password: peerPassword },
  };
}

function parseIscsi(options: Options): IscsiSettings {
  const portals = portalsOf(options, 3260);
  if (portals.length === 0) {
    throw refuse("tnb-discovery-portal", "an iSCSI storage needs at least one portal");
  }
  return {
    kind: "iscsi",
    targetIqn: required(options, "tnb-target-iqn", "an iSCSI storage needs it"),
    portals,
    useMultipath: options["tnb-use-multipath"] ?? portals.length > 1,
    chap: parseChap(options),
    blockSize: options["tnb-extent-blocksize"] === "4096" ? 4096 : 512,
  };
}

function parseNvme(options: Options): NvmeSettings {
  const portals = portalsOf(options, 4420);
  if (portals.length === 0) {
    throw refuse("tnb-portals", "an NVMe/TCP storage needs at least one portal");
  }
  if (options["tnb-ctrl-loss-tmo"] === 0) {
    throw refuse(
      "tnb-ctrl-loss-tmo",
      "0 would fail every disk at the first lost connection",
      "Take -1 (never give up) or a number of seconds",
    );
  }
  if (
    options["tnb-dhchap-ctrl-secret"] !== undefined && options["tnb-dhchap-secret"] === undefined
  ) {
    throw refuse("tnb-dhchap-ctrl-secret", "it needs tnb-dhchap-secret too");
  }
  return {
    kind: "nvme-tcp",
    subsystemNqn: required(options, "tnb-subsystem-nqn", "an NVMe/TCP storage needs it"),
    portals,
    hostNqn: options["tnb-hostnqn"],
    dhchapSecret: options["tnb-dhchap-secret"],
    dhchapCtrlSecret: options["tnb-dhchap-ctrl-secret"],
    nrIoQueues: options["tnb-nr-io-queues"],
    ctrlLossTmo: options["tnb-ctrl-loss-tmo"] ?? -1,
    reconnectDelay: options["tnb-reconnect-delay"],
    keepAliveTmo: options["tnb-keep-alive-tmo"],
  };
}

function portalsOf(options: Options, defaultPort: number) {
  const first = parsePortals(
    [options["tnb-discovery-portal"] ?? ""],
    defaultPort,
    "tnb-discovery-portal",
  );
  if (first.length > 1) {
    throw refuse("tnb-discovery-portal", "it takes one portal; more go into tnb-portals");
  }
  return parsePortals(
    [...first.map(formatPortal), options["tnb-portals"] ?? ""],
    defaultPort,
    "tnb-portals",
  );
}

/** How the API is spoken. NVMe/TCP came to TrueNAS in 25.10, the last release with REST. */
function parseApiTransport(options: Options, mode: "iscsi" | "nvme-tcp"): "ws" | "rest" {
  const transport = options["tnb-api-transport"] ?? "ws";
  if (transport === "rest" && mode === "nvme-tcp") {
    throw refuse(
      "tnb-api-transport",
      "rest is for iSCSI only, NVMe/TCP needs the WebSocket API",
      "Set tnb-api-transport ws",
    );
  }
  return transport;
}

/** Bytes of a block size such as `16K`. */
function blockSizeBytes(value: string): number {
  return value.endsWith("K") ? Number(value.slice(0, -1)) * 1024 : Number(value);
}

/** PVE's rule for storage ids. */
const STORAGE_ID = /^[A-Za-z][A-Za-z0-9._-]*[A-Za-z0-9]$/;

/** The storage's id, checked: it becomes part of file names. */
export function parseStorageId(id: unknown): string {
  if (typeof id === "string" && id.length <= 100 && STORAGE_ID.test(id)) return id;
  throw new TnblockError("invalid", "Cannot use the storage id: it is not one of PVE", {
    field: "storage",
  });
}

/**
 * Checks a storage's configuration.
 *
 * @param id PVE's storage id.
 * @param config the section as PVE parsed it; keys that do not begin with `tnb-` are PVE's.
 * @param secrets what the secrets file holds, by option name.
 * @throws TnblockError `config` that names the option.
 */
export function parseSettings(
  id: string,
  config: Readonly<Record<string, unknown>>,
  secrets: Readonly<Record<string, unknown>>,
): StorageSettings {
  checkKeys(config, secrets);
  const options = parseOptions({ ...config, ...secrets });
  const mode = options["tnb-transport-mode"] ?? "iscsi";
  return {
    id: parseStorageId(id),
    api: {
      transport: parseApiTransport(options, mode),
      hosts: parseHosts(required(options, "tnb-api-host")),
      port: options["tnb-api-port"] ?? 443,
      user: options["tnb-api-user"],
      key: required(options, "tnb-api-key", `it is not in /etc/pve/priv/storage/${id}.tnblock`),
      tls: parseTls(options),
      retryMax: options["tnb-api-retry-max"] ?? 3,
      retryDelayMs: Math.round((options["tnb-api-retry-delay"] ?? 1) * 1000),
    },
    dataset: required(options, "tnb-dataset"),
    zvolBlockSize: blockSizeBytes(options["tnb-zvol-blocksize"] ?? "16K"),
    sparse: options["tnb-sparse"] ?? true,
    compression: options["tnb-compression"],
    transport: mode === "iscsi" ? parseIscsi(options) : parseNvme(options),
    forceFree: options["tnb-force-free"] ?? false,
    debug: options["tnb-debug"] ?? 0,
  };
}
