/** The options of a `truenasplugin` section as those of a `tnblock` one. Pure. */
import { asTnblockError } from "../common/error.ts";
import { parseSettings } from "../pve/settings.ts";
import type { Finding, Mapped } from "./findings.ts";
import { baseName, PERL_OPTIONS, PVE_OPTIONS } from "./perl_options.ts";

/** How the certificate is trusted from now on: by the node's authorities, or this one alone (SHA-256, hex). */
export type Trust = { readonly kind: "verified" } | {
  readonly kind: "pin";
  readonly sha256: string;
};

/** Whether a section says that any certificate is right: then somebody must say which one is. */
export function isInsecure(section: Readonly<Record<string, string>>): boolean {
  return isOn(valuesOf(section).get("api_insecure")?.value);
}

/** Where the API of a section is, TLS assumed. */
export function apiOf(
  section: Readonly<Record<string, string>>,
): { readonly host: string; readonly port: number } {
  const values = valuesOf(section);
  const port = securePort(values.get("api_scheme")?.value, values.get("api_port")?.value);
  return { host: values.get("api_host")?.value ?? "", port: Number(port ?? 443) };
}

/**
 * Maps a section.
 *
 * @param id the storage's, which stays.
 * @param trust of its certificate; any that was insecure needs one.
 */
export function toTnblock(
  id: string,
  section: Readonly<Record<string, string>>,
  trust: Trust,
): Mapped {
  const config: Record<string, string> = {};
  const secrets: Record<string, string> = {};
  const findings: Finding[] = [];
  const values = valuesOf(section);
  const came = new Map<string, string>();
  for (const [name, value] of Object.entries(section)) {
    if (name === "type") continue;
    if (PVE_OPTIONS.includes(name)) {
      config[name] = value;
      continue;
    }
    const base = baseName(name);
    const option = base === undefined ? undefined : PERL_OPTIONS[base];
    if (base === undefined || option === undefined) {
      findings.push({ kind: "dropped", option: name, words: "tnblock does not know it" });
    } else if (values.get(base)?.option !== name) {
      findings.push({ kind: "dropped", option: name, words: `tn_${base} stands beside it` });
    } else if (option.ours !== undefined) {
      (option.isSecret === true ? secrets : config)[option.ours] = value;
      came.set(option.ours, name);
      findings.push({ kind: "carried", option: name, becomes: option.ours });
    } else if (option.why !== undefined) {
      findings.push({ kind: "dropped", option: name, words: option.why });
    }
  }
  config["content"] ??= "images";
  mapApi(values, trust, config, findings);
  mapChap(values, config, secrets, findings);
  came.set("tnb-api-port", values.get("api_port")?.option ?? "");
  came.set("tnb-chap-user", values.get("chap_user")?.option ?? "");
  came.set("tnb-chap-password", values.get("chap_password")?.option ?? "");
  const isNvme = config["tnb-transport-mode"] === "nvme-tcp";
  if (isNvme && config["tnb-ctrl-loss-tmo"] === undefined) {
    findings.push({
      ...{ kind: "changed", option: "tn_nvme_ctrl_loss_tmo", becomes: "tnb-ctrl-loss-tmo" },
      words:
        "it was not set: from now on a lost controller is never given up, where it was after 600 s",
    });
  }
  try {
    parseSettings(id, config, secrets);
  } catch (error) {
    const { message, field = "the section" } = asTnblockError(error);
    const option = came.get(field) || field;
    findings.push({ kind: "refused", option, words: message });
  }
  return { config, secrets, findings };
}

interface Value {
  readonly option: string;
  readonly value: string;
}

/** By base name; of two names the one of 2.x counts, as 2.x takes it. */
function valuesOf(section: Readonly<Record<string, string>>): Map<string, Value> {
  const values = new Map<string, Value>();
  for (const [option, value] of Object.entries(section)) {
    const base = baseName(option);
    if (base === undefined || (values.has(base) && !option.startsWith("tn_"))) continue;
    values.set(base, { option, value });
  }
  return values;
}

/** As the plugin's schema reads flags. */
function isOn(value: string | undefined): boolean {
  return ["1", "yes", "on", "true"].includes(value?.toLowerCase() ?? "");
}

function isPlain(scheme: string | undefined): boolean {
  return ["ws", "http"].includes(scheme?.toLowerCase() ?? "");
}

/** The port with TLS: the one that plain ws had by default is none. */
function securePort(scheme: string | undefined, port: string | undefined): string | undefined {
  return isPlain(scheme) && port === "80" ? undefined : port;
}

function mapApi(
  values: ReadonlyMap<string, Value>,
  trust: Trust,
  config: Record<string, string>,
  findings: Finding[],
): void {
  const scheme = values.get("api_scheme");
  const port = values.get("api_port");
  const transport = values.get("api_transport");
  const insecure = values.get("api_insecure");
  const kept = securePort(scheme?.value, port?.value);
  if (kept !== undefined) config["tnb-api-port"] = kept;
  if (port !== undefined) {
    findings.push(
      kept === undefined
        ? { kind: "changed", option: port.option, words: "443 instead of 80, for TLS" }
        : { kind: "carried", option: port.option, becomes: "tnb-api-port" },
    );
  }
  if (scheme !== undefined) {
    findings.push(
      isPlain(scheme.value)
        ? {
          ...{ kind: "changed", option: scheme.option },
          words: `${scheme.value} becomes wss: TrueNAS revokes a key that it sees in clear. ` +
            "It may have revoked this one already; then make a new one",
        }
        : { kind: "dropped", option: scheme.option, words: "TLS is always used" },
    );
  }
  if (transport !== undefined) {
    const isRest = transport.value.toLowerCase() === "rest" && !transport.option.startsWith("tn_");
    if (isRest) config["tnb-api-transport"] = "rest";
    findings.push(
      isRest ? { kind: "carried", option: transport.option, becomes: "tnb-api-transport" } : {
        ...{ kind: "dropped", option: transport.option },
        words: "the WebSocket API is what both take",
      },
    );
  }
  if (trust.kind === "pin") config["tnb-tls-fingerprint"] = trust.sha256.toLowerCase();
  if (insecure === undefined) return;
  if (!isOn(insecure.value)) {
    findings.push({ kind: "dropped", option: insecure.option, words: "certificates are checked" });
  } else {
    findings.push({
      ...{ kind: "changed", option: insecure.option },
      ...(trust.kind === "pin"
        ? {
          becomes: "tnb-tls-fingerprint",
          words: `only the certificate ${trust.sha256.toLowerCase()} is accepted from now on`,
        }
        : {
          words: "from now on the certificate is checked: this node's authorities vouch for it",
        }),
    });
  }
}

/** CHAP counts when there are both, to the plugin as to us. */
function mapChap(
  values: ReadonlyMap<string, Value>,
  config: Record<string, string>,
  secrets: Record<string, string>,
  findings: Finding[],
): void {
  const user = values.get("chap_user");
  const password = values.get("chap_password");
  if (user !== undefined && password !== undefined) {
    config["tnb-chap-user"] = user.value;
    secrets["tnb-chap-password"] = password.value;
    findings.push({
      ...{ kind: "changed", option: user.option, becomes: "tnb-chap-user" },
      words: "new sessions present it, which those of older plugins never did: " +
        "the array must know the same user and secret",
    }, { kind: "carried", option: password.option, becomes: "tnb-chap-password" });
    return;
  }
  for (const { option } of [user, password].filter((one) => one !== undefined)) {
    findings.push({ kind: "dropped", option, words: "CHAP needs both a user and a secret" });
  }
}
