/**
 * What is to be done on a node, as data: decided from the facts alone, shown as it stands, and then done in
 * this order by `carry_out.ts`.
 */
import type { FileFact, NodeFacts } from "./facts.ts";
import {
  LVM_LOCAL_CONF,
  MULTIPATH_FILE,
  NVME_RULE_FILE,
  PROGRAM,
  PVE_SERVICES,
  RUN,
  SHIM_FILE,
  UNIT_FOLDER,
} from "./places.ts";
import type { StepId } from "./record.ts";

/** What a file is to hold: a text, the program that runs (`own`), or what a kept copy holds. */
export type Content =
  | { readonly kind: "text"; readonly text: string }
  | { readonly kind: "own" }
  | { readonly kind: "copy"; readonly of: string };

/** A file that is to be as it is said here. */
export interface Change {
  readonly path: string;
  /** Undefined: there is to be none. */
  readonly content: Content | undefined;
  /** SHA-256 of it. */
  readonly digest: string | undefined;
  readonly mode: number;
}

/** A program of the node, and its words. */
export interface NodeCommand {
  readonly program: string;
  readonly args: readonly string[];
}

/** One part of it. */
export interface Step {
  readonly id: StepId;
  /**
   * `do`: to be done; `already`: as it should be; `left-out`: not wanted, or changed by hand; `impossible`: it
   * would be done, and cannot, which is no reason to leave the rest.
   */
  readonly state: "do" | "already" | "left-out" | "impossible";
  /** What it is about, for people. */
  readonly about: string;
  /** Why it is in another state than `do`, or what is special about it. */
  readonly why?: string;
  /** What is written, where that is worth a look. */
  readonly details: readonly string[];
  /** How its files are to be. */
  readonly wanted: readonly Change[];
  /** Those of them that are otherwise now. */
  readonly changes: readonly Change[];
  /** What is asked then, in words that can be typed; it ends the installation when the answer is wrong. */
  readonly checks: readonly string[];
  /** What is run after the files are as they should be. */
  readonly commands: readonly NodeCommand[];
}

/** All of it. */
export interface Plan {
  readonly kind: "install" | "roll-back" | "uninstall";
  /** The version afterwards; undefined: none. */
  readonly version: string | undefined;
  readonly from: string | undefined;
  readonly steps: readonly Step[];
  /** Whether it only puts back what an interrupted run has changed, last first. */
  readonly undoes?: boolean;
  /** Whatever else one should know. */
  readonly notes: readonly string[];
}

const ABOUT: Readonly<Record<StepId, string>> = {
  "program": "the program",
  "units": "the daemon's systemd units",
  "shim": "the storage plugin of Proxmox VE",
  "completions": "completions for shells",
  "lvm-filter": "LVM kept off the disks of guests",
  "multipath": "multipathd's settings for TrueNAS",
  "nvme-rule": "largest I/O to NVMe disks of TrueNAS",
  "daemon": "the daemon",
  "pve-services": "the services of Proxmox VE that hold the plugin",
};

/** See `carry_out.ts` and `check_shim.ts`. */
const CHECKS: Partial<Record<StepId, readonly string[]>> = {
  program: [`${PROGRAM} version`],
  shim: ["perl -T -e 'use PVE::Storage'", "pvesm apiinfo", "pvesm status"],
};

/** Which part of the installation a file belongs to. */
export function stepIdOf(path: string): StepId {
  if (path === PROGRAM) return "program";
  if (path === SHIM_FILE) return "shim";
  if (path === LVM_LOCAL_CONF) return "lvm-filter";
  if (path === MULTIPATH_FILE) return "multipath";
  if (path === NVME_RULE_FILE) return "nvme-rule";
  return path.startsWith(`${UNIT_FOLDER}/`) ? "units" : "completions";
}

/** What is run after the files of a part have changed, in either direction. */
export function commandsAfter(id: StepId, facts: Pick<NodeFacts, "multipath">): NodeCommand[] {
  switch (id) {
    case "units":
      return [systemctl("daemon-reload")];
    case "multipath":
      return facts.multipath.isInstalled
        ? [systemctl("reload-or-try-restart", "multipathd.service")]
        : [];
    case "nvme-rule":
      return [
        { program: RUN.udevadm, args: ["control", "--reload"] },
        {
          program: RUN.udevadm,
          args: [
            ...["trigger", "--action=change", "--subsystem-match=block"],
            "--sysname-match=nvme*n*",
          ],
        },
      ];
    default:
      return [];
  }
}

/** What makes each of them load the plugin anew; guests and tasks go on. */
export function reloadPveServices(): NodeCommand[] {
  return PVE_SERVICES.map((unit) => systemctl("reload-or-try-restart", unit));
}

/** systemctl with these words. */
export function systemctl(...args: string[]): NodeCommand {
  return { program: RUN.systemctl, args };
}

/** A step without files. */
export function stepOf(id: StepId, state: Step["state"], why?: string): Step {
  return {
    ...{
      id,
      state,
      about: ABOUT[id],
      details: [],
      wanted: [],
      changes: [],
      checks: [],
      commands: [],
    },
    ...(why === undefined ? {} : { why }),
  };
}

/** The step that makes the files so; what was begun and not finished is done again. */
export function fileStep(facts: NodeFacts, id: StepId, wanted: readonly Change[]): Step {
  const changes = wanted.filter((change) => !isSo(facts.files.get(change.path), change));
  const isBegun = facts.record.pending?.begun.includes(id) === true;
  if (changes.length === 0 && !isBegun) return { ...stepOf(id, "already"), wanted };
  return {
    ...stepOf(id, "do", changes.length === 0 ? "it was interrupted" : undefined),
    ...{ wanted, changes, checks: CHECKS[id] ?? [], commands: commandsAfter(id, facts) },
  };
}

function isSo(now: FileFact | undefined, change: Change): boolean {
  if (change.digest === undefined || now === undefined) return change.digest === now?.digest;
  return now.digest === change.digest && now.mode === change.mode;
}

/** The last step of those that touch the plugin. */
export function pveServices(isNeeded: boolean): Step {
  return isNeeded
    ? { ...stepOf("pve-services", "do"), commands: reloadPveServices() }
    : stepOf("pve-services", "already", "the plugin does not change");
}
