/**
 * Taking out of a text what nobody else should know, so that it can be pasted anywhere: secrets, names of hosts,
 * addresses, names and serials of initiators, targets and disks. Equal things stay equal: each gets a number of its
 * own, by which it can be followed through the report.
 */
import type { Host } from "../host/host.ts";
import { readCluster } from "../pve/cluster.ts";
import { readSecrets } from "../pve/secrets.ts";
import { parseStorageCfg, STORAGE_CFG } from "../pve/storage_cfg.ts";
import { canonicalAddress, isIpv4, isIpv6 } from "../common/portal.ts";

/** What is known to be nobody else's business. */
export interface Confidential {
  readonly secrets: readonly string[];
  /** Names of nodes, arrays and whatever else configurations name; users too. */
  readonly hosts: readonly string[];
  readonly users: readonly string[];
}

/** Replaces what must not be told. */
export type Mask = (text: string) => string;

/** What is recognised by its form, in this order: what comes first may contain what comes later. */
const FORMS: readonly (readonly [kind: string, pattern: RegExp])[] = [
  // Keys of TrueNAS, DH-HMAC-CHAP secrets, private keys.
  ["secret", /\b[0-9]+-[A-Za-z0-9]{64}\b/g],
  ["secret", /DHHC-1:[0-9]{2}:[A-Za-z0-9+/=]+:?/g],
  ["secret", /-----BEGIN [A-Z ]+-----[\s\S]*?-----END [A-Z ]+-----/g],
  ["nqn", /nqn\.[0-9]{4}-[0-9]{2}\.[^\s,"'()\\;]*[^\s,"'()\\;.:]/gi],
  ["iqn", /\biqn\.[0-9]{4}-[0-9]{2}\.[^\s,"'()\\;]*[^\s,"'()\\;.:]/gi],
  ["fingerprint", /\b[0-9a-f]{64}\b|\b(?:[0-9a-f]{2}:){31}[0-9a-f]{2}\b/gi],
  // In the name of a volume it stands right behind letters.
  ["uuid", /[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f])/gi],
  ["mac", /\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b/gi],
];

/** NAA numbers, with the 3 that multipath-tools and udev put before them. */
const NAA = /(?<![0-9a-f])(3?)([0-9a-f]{32})(?![0-9a-f])/gi;

/** Serial numbers: 15 hex digits of an extent, 20 of a subsystem; a number without a letter is a size. */
const SERIAL = /(?<![0-9a-z])(?=[0-9]*[a-f])[0-9a-f]{14,31}(?![0-9a-z])/gi;

const IPV4 = /(?<![\w.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9])/g;

/** Whatever may be an IPv6 address; what is one is told by reading it. */
const IPV6 = /(?<![\w:.])[0-9a-f]{0,4}(?::[0-9a-f]{0,4}){2,7}(?![\w:])/gi;

/**
 * Makes a mask. It remembers what it replaced: use one for a whole report.
 */
export function createMask({ secrets, hosts, users }: Confidential): Mask {
  const numbers = new Map<string, number>();
  const counts = new Map<string, number>();
  const alias = (kind: string, value: string): string => {
    const key = `${kind} ${value.toLowerCase()}`;
    const known = numbers.get(key);
    if (known !== undefined) return `<${kind}-${known}>`;
    const next = (counts.get(kind) ?? 0) + 1;
    counts.set(kind, next);
    numbers.set(key, next);
    return `<${kind}-${next}>`;
  };
  const words = (kind: string, values: readonly string[]) => {
    const known = [...new Set(values)].filter((value) => value !== "")
      // The longest first: a name may be the beginning of another one.
      .sort((a, b) => b.length - a.length);
    return known.length === 0
      ? undefined
      : { kind, pattern: new RegExp(known.map(escaped).join("|"), "g") };
  };
  // A secret is taken out wherever it stands; a name only where it is a word.
  const secret = words("secret", secrets);
  const host = wholeWords(hosts);
  const inDomain = wholeWords(domainsOf(hosts), "(?:[a-z0-9-]+\\.)*");
  const user = wholeWords(users);
  const steps: ((text: string) => string)[] = [
    (text) =>
      secret === undefined ? text : text.replace(secret.pattern, (one) => alias("secret", one)),
    ...FORMS.map(([kind, pattern]) => (text: string) =>
      text.replace(pattern, (one) => alias(kind, one))
    ),
    (text) => text.replace(NAA, (_, before: string, naa: string) => before + alias("serial", naa)),
    (text) => text.replace(SERIAL, (one) => alias("serial", one)),
    (text) =>
      text.replace(IPV6, (one) => isIpv6(one) ? alias("address", canonicalAddress(one)) : one),
    (text) => text.replace(IPV4, (one) => isIpv4(one) ? alias("address", one) : one),
    (text) => inDomain === undefined ? text : text.replace(inDomain, (one) => alias("host", one)),
    (text) => host === undefined ? text : text.replace(host, (one) => alias("host", one)),
    (text) => user === undefined ? text : text.replace(user, (one) => alias("user", one)),
  ];
  return (text) => outside(text, steps);

  function wholeWords(values: readonly string[], before = ""): RegExp | undefined {
    const known = [...new Set(values)].filter((value) => value !== "")
      .sort((a, b) => b.length - a.length);
    if (known.length === 0) return undefined;
    const names = known.map(escaped).join("|");
    return new RegExp(`(?<![A-Za-z0-9_-])${before}(?:${names})(?![A-Za-z0-9_-])`, "gi");
  }
}

/** The domains that named hosts are in: whatever else is in them is a host too. */
function domainsOf(hosts: readonly string[]): string[] {
  return hosts.flatMap((host) => {
    const domain = host.slice(host.indexOf(".") + 1);
    return host.includes(".") && domain.includes(".") ? [domain] : [];
  });
}

/** Applies the steps one after the other, and none of them to what an earlier one has put in. */
function outside(text: string, steps: readonly ((text: string) => string)[]): string {
  return steps.reduce(
    (done, step) =>
      done.split(/(<[a-z]+-[0-9]+>)/).map((part, index) => index % 2 === 1 ? part : step(part))
        .join(""),
    text,
  );
}

function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\/]/g, "\\$&");
}

/** Masks every text in a document, names of fields that are data included. */
export function maskDocument<T>(document: T, mask: Mask): T {
  if (typeof document === "string") return mask(document) as T;
  if (Array.isArray(document)) return document.map((one) => maskDocument(one, mask)) as T;
  if (typeof document !== "object" || document === null) return document;
  return Object.fromEntries(
    Object.entries(document).map(([key, value]) => [mask(key), maskDocument(value, mask)]),
  ) as T;
}

/** Options of any storage type whose value is a host, and users of ours. */
const HOST_OPTION =
  /^\s+(?:server2?|portal|monhost|host|tnb-api-host|(?:tn_|truenas_)?(?:api_)?host|tnb-portals|tnb-discovery-portal)\s+(.+)$/gm;

/** Values that are everybody's, and would make a report unreadable. */
const EVERYBODYS = ["localhost", "ip6-localhost", "ip6-loopback", "ip6-allnodes", "ip6-allrouters"];

/** Gathers what this node knows and others should not. Never rejects: what cannot be read names nothing. */
export async function confidential(host: Host): Promise<Confidential> {
  const text = async (path: string) => await host.files.readText(path).catch(() => undefined) ?? "";
  const cfg = await text(STORAGE_CFG);
  const sections = parseStorageCfg(cfg);
  const folder = "/etc/pve/priv/storage";
  const files = await host.files.list(folder).catch(() => undefined) ?? [];
  // Those of storages that are gone as well.
  const ids = files.flatMap((file) => /^(.+)\.tnblock$/.exec(file)?.[1] ?? []);
  const [held, raw, cluster, hostsFile, resolv, name] = await Promise.all([
    Promise.all(ids.map((id) => readSecrets(host.files, id).catch(() => ({})))),
    // Those of other types: a line each.
    Promise.all(
      files.filter((file) => !file.endsWith(".tnblock")).map((file) => text(`${folder}/${file}`)),
    ),
    readCluster(host).catch(() => undefined),
    text("/etc/hosts"),
    text("/etc/resolv.conf"),
    text("/etc/hostname"),
  ]);
  const domains = [...resolv.matchAll(/^(?:search|domain)\s+(.+)$/gm)].flatMap(([, list]) =>
    (list ?? "").split(/\s+/)
  );
  const nodes = [host.nodeName, name.trim(), ...cluster?.nodes.map((node) => node.name) ?? []];
  const aliases = hostsFile.split("\n").flatMap((line) =>
    line.replace(/#.*/, "").trim().split(/\s+/).slice(1)
  );
  const configured = [...cfg.matchAll(HOST_OPTION)].flatMap(([, list]) =>
    (list ?? "").split(/[\s,;]+/).map((one) => one.replace(/:[0-9]+$/, ""))
  );
  const hosts = [
    ...nodes,
    ...(cluster?.name === undefined ? [] : [cluster.name]),
    ...aliases,
    ...configured,
    ...domains,
  ];
  const isAddress = (one: string) => isIpv4(one) || isIpv6(one.replace(/^\[(.*)\]$/, "$1"));
  return {
    secrets: [
      ...held.flatMap((one) => Object.values(one).filter((value) => typeof value === "string")),
      ...raw.flatMap((one) => one.split("\n").map((line) => line.trim())).filter((line) =>
        line.length >= 6
      ),
    ],
    hosts: hosts.filter((one) => one !== "" && !EVERYBODYS.includes(one) && !isAddress(one)),
    users: sections.flatMap(({ config }) => [
      config["tnb-api-user"] ?? "",
      config["tnb-chap-user"] ?? "",
      config["tnb-chap-peer-user"] ?? "",
    ]).filter((one) => one !== "" && one !== "root" && one !== "tnblock"),
  };
}
