/** What is to be made, in its order, from what was answered and what is there. Decides only; nothing is done here. */
import { TnblockError } from "../common/error.ts";
import type { Portal } from "../common/storage_settings.ts";
import { secretsPath } from "../pve/secrets.ts";
import { apiOf, type Draft, type Proof } from "./draft.ts";
import type { ClusterFacts } from "./node_facts.ts";
import { iscsiSteps } from "./plan_iscsi.ts";
import { nvmeSteps } from "./plan_nvme.ts";
import { portalTexts } from "./portal_choice.ts";
import { chosenExport } from "./questions_target.ts";
import { lacking } from "./rights.ts";

/** One thing to make. */
export type Action =
  | { readonly kind: "identity"; readonly node: string }
  | { readonly kind: "dataset"; readonly name: string }
  | {
    readonly kind: "iscsi-portal";
    readonly addresses: readonly string[];
    readonly comment: string;
  }
  | { readonly kind: "initiators"; readonly nodes: readonly string[]; readonly comment: string }
  | {
    readonly kind: "more-initiators";
    readonly group: number;
    /** Whose they are, for the summary. */
    readonly nodes: readonly string[];
  }
  | { readonly kind: "chap-user"; readonly tag: number; readonly isMutual: boolean }
  | {
    readonly kind: "target";
    readonly name: string;
    /** Ids of portals that are there; one that is made is added. */
    readonly portals: readonly number[];
    readonly proof: Proof;
    readonly tag: number | undefined;
  }
  | { readonly kind: "nvme-port"; readonly portal: Portal }
  | { readonly kind: "subsystem"; readonly name: string }
  | { readonly kind: "show"; readonly portal: Portal; readonly port: number | undefined }
  | { readonly kind: "host"; readonly node: string; readonly proof: Proof }
  | { readonly kind: "allow"; readonly node: string; readonly subsystem: number | undefined }
  | { readonly kind: "secrets"; readonly path: string; readonly names: readonly string[] }
  | {
    readonly kind: "storage";
    readonly id: string;
    readonly options: Readonly<Record<string, string>>;
  }
  | {
    readonly kind: "change";
    readonly id: string;
    readonly set: Readonly<Record<string, string>>;
    readonly drop: readonly string[];
    /** The section as it is. */
    readonly before: Readonly<Record<string, string>>;
  }
  | { readonly kind: "try"; readonly id: string };

/** A thing to make, in words. */
export interface Step {
  readonly action: Action;
  readonly about: string;
  /** The array's method, or the command that does it. */
  readonly how: string;
}

/** All that will be done. */
export interface Plan {
  readonly steps: readonly Step[];
  /** What the user should know before saying yes. */
  readonly notes: readonly string[];
}

/** The role that each thing on the array needs (TrueNAS's own method definitions, `roles=`). */
const ROLES: Partial<Record<Action["kind"], string>> = {
  "dataset": "DATASET_WRITE",
  "iscsi-portal": "SHARING_ISCSI_PORTAL_WRITE",
  "initiators": "SHARING_ISCSI_INITIATOR_WRITE",
  "more-initiators": "SHARING_ISCSI_INITIATOR_WRITE",
  "chap-user": "SHARING_ISCSI_AUTH_WRITE",
  "target": "SHARING_ISCSI_TARGET_WRITE",
  "nvme-port": "SHARING_NVME_TARGET_WRITE",
  "subsystem": "SHARING_NVME_TARGET_WRITE",
  "show": "SHARING_NVME_TARGET_WRITE",
  "host": "SHARING_NVME_TARGET_WRITE",
  "allow": "SHARING_NVME_TARGET_WRITE",
};

/**
 * Plans a new storage.
 *
 * @throws TnblockError `denied` when the key may not make something of it; `config` when nodes cannot be told apart.
 */
export function planStorage(draft: Draft, cluster: ClusterFacts): Plan {
  checkNodes(draft, cluster);
  const steps = [
    ...identitySteps(draft, cluster),
    ...(draft.dataset.isNew ? [datasetStep(draft.dataset.name)] : []),
    ...(draft.transport === "iscsi" ? iscsiSteps(draft, cluster) : nvmeSteps(draft, cluster)),
    secretsStep(draft),
    storageStep(draft),
    {
      action: { kind: "try", id: draft.id } as const,
      about: "Try it: a volume of 64 MiB is made, attached, written, read and freed",
      how: "on this node",
    },
  ];
  const roles = steps.flatMap(({ action }) => ROLES[action.kind] ?? []);
  const missing = lacking(draft.array.privileges, [...new Set(roles)]);
  if (missing.length > 0) {
    throw new TnblockError(
      "denied",
      `Cannot make what is missing on TrueNAS: the key's user lacks ${missing.join(", ")}`,
      {
        hint:
          "Make it by hand in TrueNAS and choose it, or give the user these roles until setup is done",
      },
    );
  }
  return { steps, notes: notesOf(draft, cluster) };
}

/** Two nodes with one name are one to the array: both could write to one disk. */
function checkNodes({ transport }: Draft, { asked }: ClusterFacts): void {
  const seen = new Map<string, string>();
  for (const { node, facts } of asked) {
    if (facts instanceof TnblockError) continue;
    const name = transport === "iscsi" ? facts.initiator : facts.hostNqn;
    if (transport === "iscsi" && name === null) {
      throw new TnblockError(
        "config",
        `Cannot use iSCSI: node ${node.name} has no initiator name`,
        {
          hint: "Install open-iscsi on every node: apt install open-iscsi",
        },
      );
    }
    if (name === null) continue;
    const other = seen.get(name);
    if (other !== undefined) {
      throw new TnblockError(
        "config",
        `Cannot use nodes ${other} and ${node.name}: both are ${name} to TrueNAS`,
        {
          hint: "Run tnblock doctor --cluster; it tells how to give one of them a name of its own",
        },
      );
    }
    seen.set(name, node.name);
  }
}

function identitySteps({ transport }: Draft, { asked }: ClusterFacts): Step[] {
  if (transport === "iscsi") return [];
  return asked.flatMap(({ node, facts }) =>
    facts instanceof TnblockError || facts.hostNqn !== null ? [] : [{
      action: { kind: "identity", node: node.name } as const,
      about: `Give node ${node.name} an NVMe host name`,
      how: "/etc/nvme/hostnqn, /etc/nvme/hostid",
    }]
  );
}

function datasetStep(name: string): Step {
  return {
    action: { kind: "dataset", name },
    about: `Make dataset ${name}`,
    how: "pool.dataset.create",
  };
}

/** Writing the secrets file. */
export function secretsStep(draft: Draft): Step {
  const path = secretsPath(draft.id);
  const names = ["tnb-api-key", ...secretNames(draft)];
  return {
    action: { kind: "secrets", path, names },
    about: `Write the secrets (${names.join(", ")})`,
    how: `${path}, mode 600`,
  };
}

function secretNames({ transport, proof, givenSecrets }: Draft): string[] {
  if (Object.keys(givenSecrets ?? {}).length > 0) {
    return Object.keys(givenSecrets).filter((name) => !name.endsWith("-user"));
  }
  const [first, second] = transport === "iscsi"
    ? ["tnb-chap-password", "tnb-chap-peer-password"]
    : ["tnb-dhchap-secret", "tnb-dhchap-ctrl-secret"];
  return proof === "mutual"
    ? [first ?? "", second ?? ""]
    : proof === "one-way"
    ? [first ?? ""]
    : [];
}

/** Changing the section. */
export function changeStep(
  id: string,
  before: Readonly<Record<string, string>>,
  set: Readonly<Record<string, string>>,
  drop: readonly string[],
): Step {
  return {
    action: { kind: "change", id, set, drop, before },
    about: `Change storage ${id}`,
    how: `pvesm ${setWords(id, set, drop).join(" ")}`,
  };
}

/** The words of `pvesm set`. */
export function setWords(
  id: string,
  set: Readonly<Record<string, string>>,
  drop: readonly string[],
): string[] {
  return [
    ...["set", id],
    ...Object.entries(set).flatMap(([name, value]) => [`--${name}`, value]),
    ...(drop.length === 0 ? [] : ["--delete", drop.join(",")]),
  ];
}

/** Letting nodes use a target or subsystem that is there. */
export function hostSteps(draft: Draft, { cluster }: { readonly cluster: ClusterFacts }): Step[] {
  checkNodes(draft, cluster);
  return [
    ...identitySteps(draft, cluster),
    ...(draft.transport === "iscsi" ? iscsiSteps(draft, cluster) : nvmeSteps(draft, cluster)),
  ];
}

/** Who CHAP says that it is. */
export const CHAP_USER = { host: "tnblock", array: "truenas" } as const;

function storageStep(draft: Draft): Step {
  const options = storageOptions(draft);
  const words = Object.entries(options).map(([name, value]) => `--${name} ${value}`);
  return {
    action: { kind: "storage", id: draft.id, options },
    about: `Add storage ${draft.id}; the dataset is marked as its own`,
    how: `pvesm add tnblock ${draft.id} ${words.join(" ")}`,
  };
}

/** The section, but for the target's name where it is made first. */
export function storageOptions(draft: Draft): Record<string, string> {
  const { hosts, port, user, tls } = apiOf(draft);
  const chap = draft.transport !== "iscsi"
    ? {}
    : draft.proof === "none" || draft.proof === undefined
    ? Object.fromEntries(
      Object.entries(draft.givenSecrets ?? {}).filter(([name]) => name.endsWith("-user")),
    )
    : {
      "tnb-chap-user": CHAP_USER.host,
      ...(draft.proof === "mutual" ? { "tnb-chap-peer-user": CHAP_USER.array } : {}),
    };
  const name = draft.transport === "iscsi" ? "tnb-target-iqn" : "tnb-subsystem-nqn";
  return {
    "tnb-api-host": hosts.join(","),
    ...(port === 443 ? {} : { "tnb-api-port": String(port) }),
    ...(user === undefined ? {} : { "tnb-api-user": user }),
    ...(tls.kind === "fingerprint"
      ? { "tnb-tls-fingerprint": tls.sha256 }
      : tls.kind === "ca"
      ? { "tnb-tls-ca": tls.file }
      : {}),
    "tnb-dataset": draft.dataset.name,
    "tnb-transport-mode": draft.transport,
    [name]: draft.target.isNew ? `(new: ${draft.target.name})` : draft.target.name,
    "tnb-portals": portalTexts(draft.portals),
    "tnb-zvol-blocksize": draft.zvolBlockSize,
    "tnb-sparse": draft.isThin ? "1" : "0",
    ...(draft.transport === "iscsi" ? { "tnb-extent-blocksize": draft.extentBlockSize } : {}),
    ...chap,
    "content": draft.content,
    "shared": "1",
    ...(draft.nodes === undefined ? {} : { nodes: draft.nodes.join(",") }),
  };
}

function notesOf(draft: Draft, { asked }: ClusterFacts): string[] {
  const notes: string[] = [];
  const chosen = chosenExport(draft);
  if (chosen?.isOpen === true) {
    notes.push(
      `Whoever reaches the portals may use "${chosen.name}": list its hosts in TrueNAS. Setup changes nothing there.`,
    );
  }
  if (chosen !== undefined && !chosen.isOpen && chosen.hosts === undefined) {
    notes.push(
      `The key may not read who may use "${chosen.name}": see in TrueNAS that all nodes are in its groups.`,
    );
  }
  if (chosen !== undefined && chosen.zvols.length > 0) {
    notes.push(`It carries ${chosen.zvols.length} volumes already: tnblock adopt shows them.`);
  }
  const { privileges } = draft.array;
  if (privileges.isFullAdmin) {
    notes.push(
      "The key is a full administrator's: docs/truenas-roles.md has the roles that suffice.",
    );
  }
  const away = asked.filter(({ facts }) => facts instanceof TnblockError).map(({ node }) =>
    node.name
  );
  if (away.length > 0) {
    notes.push(`Not asked, and not let in: ${away.join(", ")}. Install tnblock there first.`);
  }
  return notes;
}
