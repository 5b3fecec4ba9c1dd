/** The options of a `tnblock` section as those of a `truenasplugin` one: the way back. Pure. */
import type { Finding, Mapped } from "./findings.ts";
import { baseName, type Dialect, PERL_OPTIONS, perlName, PVE_OPTIONS } from "./perl_options.ts";

/** Ours that the plugin has nothing for, with what that means. */
const WITHOUT: Readonly<Record<string, string>> = {
  "tnb-api-user": "the key alone tells the array whose it is",
  "tnb-extent-blocksize": "the plugin decides itself; volumes that are there keep theirs",
  "tnb-force-free": "the plugin has no such guard",
};

/**
 * Maps a section.
 *
 * @param secrets what the secrets file holds; the plugin keeps them in storage.cfg, for all to read.
 * @param dialect of the plugin that is installed.
 * @param before the plugin's section as it was, when it is known: what has no meaning here is taken from it.
 */
export function toPerl(
  section: Readonly<Record<string, string>>,
  secrets: Readonly<Record<string, string>>,
  dialect: Dialect,
  before: Readonly<Record<string, string>> = {},
): Mapped {
  const config: Record<string, string> = {};
  const findings: Finding[] = [];
  const all = { ...section, ...secrets };
  const ours = new Map(
    Object.entries(PERL_OPTIONS).flatMap(([base, option]) =>
      option.ours === undefined ? [] : [[option.ours, { base, ...option }] as const]
    ),
  );
  const put = (option: string, base: string, value: string, words?: string) => {
    const becomes = perlName(base, dialect);
    config[becomes] = value;
    findings.push(
      words === undefined
        ? { kind: "carried", option, becomes }
        : { kind: "changed", option, becomes, words },
    );
  };
  for (const [name, value] of Object.entries(all)) {
    if (name === "type") continue;
    if (PVE_OPTIONS.includes(name)) {
      config[name] = value;
      continue;
    }
    const option = ours.get(name);
    const words = WITHOUT[name];
    if (words !== undefined) findings.push({ kind: "dropped", option: name, words });
    else if (name === "tnb-api-host") putHosts(value, put);
    else if (name === "tnb-ctrl-loss-tmo" && Number(value) > 3600) {
      findings.push({ kind: "refused", option: name, words: "the plugin takes 3600 s at most" });
    } else if (option?.isNew === true && dialect === "1.x") {
      findings.push({
        kind: "dropped",
        option: name,
        words: "this version of the plugin has none",
      });
    } else if (option !== undefined) {
      put(
        name,
        option.base,
        value,
        option.isSecret === true
          ? "it is in clear in /etc/pve/storage.cfg from now on, as the plugin wants it"
          : undefined,
      );
    } else if (name === "tnb-api-port") put(name, "api_port", value);
    else if (name === "tnb-chap-user") put(name, "chap_user", value);
    else if (name === "tnb-chap-password") {
      put(name, "chap_password", value, "it is in clear in /etc/pve/storage.cfg from now on");
    } else if (name === "tnb-api-transport") {
      if (value === "rest" && dialect === "1.x") put(name, "api_transport", value);
      else findings.push({ kind: "dropped", option: name, words: "the plugin has the WebSocket" });
    } else if (name === "tnb-tls-fingerprint") {
      put(name, "api_insecure", "1", "the plugin knows no pin: any certificate is accepted");
    } else if (name === "tnb-tls-ca") {
      findings.push({
        ...{ kind: "refused", option: name },
        words: "the plugin trusts the node's authorities only: put this one among them " +
          "(update-ca-certificates, on all nodes), and delete the option",
      });
    } else if (name === "tnb-chap-peer-user" || name === "tnb-chap-peer-password") {
      findings.push({
        ...{ kind: "refused", option: name },
        words: "the plugin has no mutual CHAP: take it away on the array, and delete the option",
      });
    } else findings.push({ kind: "dropped", option: name, words: "the plugin does not know it" });
  }
  for (const [name, value] of Object.entries(before)) {
    const base = baseName(name);
    const isMeaningless = base !== undefined && PERL_OPTIONS[base]?.why !== undefined;
    if (isMeaningless && perlName(base, dialect) === name) config[name] = value;
  }
  config["shared"] ??= "1";
  return { config, secrets: {}, findings };
}

function putHosts(
  value: string,
  put: (option: string, base: string, value: string, words?: string) => void,
): void {
  const [first = "", second] = value.split(/[\s,]+/).filter((host) => host !== "");
  const words = second === undefined
    ? undefined
    : `only ${first}: the plugin takes one address, ${second} is not tried any more`;
  put("tnb-api-host", "api_host", first, words);
}
