/** The plans of an installation, and of bringing back what was there before. */
import { TnblockError } from "../common/error.ts";
import { UNITS } from "../daemon/unit.ts";
import { SHIM } from "../pve/shim/shim.ts";
import { digestOf, type NodeFacts } from "./facts.ts";
import { multipathSettings } from "./multipath_settings.ts";
import { describeNeighbour } from "./neighbours.ts";
import { NVME_RULE } from "./nvme_rule.ts";
import {
  DAEMON_UNITS,
  LVM_LOCAL_CONF,
  MULTIPATH_FILE,
  NVME_RULE_FILE,
  PROGRAM,
  SHIM_FILE,
  UNIT_FOLDER,
} from "./places.ts";
import {
  type Change,
  commandsAfter,
  fileStep,
  type Plan,
  pveServices,
  reloadPveServices,
  type Step,
  stepIdOf,
  stepOf,
  systemctl,
} from "./plan.ts";
import { type Before, type Pending, STEP_IDS, type StepId } from "./record.ts";
import { compareVersions } from "./version_order.ts";
import type { InstallOptions, InstallWorld } from "./world.ts";

/** The plan of an installation of what runs. */
export function planInstall(
  facts: NodeFacts,
  world: Pick<InstallWorld, "version" | "completions">,
  options: InstallOptions,
): Plan {
  const { ownDigest, installedVersion, lvm } = facts;
  if (ownDigest === undefined) {
    throw new TnblockError(
      "unsupported",
      "Cannot install tnblock: this is its source, not the program",
      {
        hint: "Compile it with deno task build, and run dist/tnblock install",
      },
    );
  }
  if (
    installedVersion !== undefined && compareVersions(world.version, installedVersion) < 0 &&
    !options.allowOlder
  ) {
    throw new TnblockError(
      "invalid",
      `Cannot install tnblock ${world.version}: ${installedVersion} is installed, which is newer`,
      { hint: "tnblock install --roll-back brings the version before back; --allow-older goes on" },
    );
  }
  if (options.allowOlder) refuseUnknownOptions(facts, SHIM, world.version);
  const text = (path: string, content: string, mode = 0o644): Change => ({
    ...{ path, mode, content: { kind: "text", text: content }, digest: digestOf(content) },
  });
  const units = Object.entries(UNITS).map(([name, unit]) => text(`${UNIT_FOLDER}/${name}`, unit));
  const completions = Object.entries(world.completions).map(([path, each]) => text(path, each));
  const multipath = text(MULTIPATH_FILE, multipathSettings(facts.multipath.others));
  const own: Change = { path: PROGRAM, content: { kind: "own" }, digest: ownDigest, mode: 0o755 };
  const files: Partial<Record<StepId, Step>> = {
    program: fileStep(facts, "program", [own]),
    units: fileStep(facts, "units", units),
    shim: fileStep(facts, "shim", [text(SHIM_FILE, SHIM)]),
    completions: completions.length === 0
      ? stepOf("completions", "left-out", "this version has none")
      : fileStep(facts, "completions", completions),
    "lvm-filter": !options.lvmFilter
      ? stepOf("lvm-filter", "left-out", "--no-lvm-filter")
      : lvm === undefined
      ? stepOf("lvm-filter", "left-out", "there is no LVM here")
      : lvm.kind === "write"
      ? {
        ...fileStep(facts, "lvm-filter", [
          text(LVM_LOCAL_CONF, lvm.text, facts.files.get(LVM_LOCAL_CONF)?.mode),
        ]),
        details: lvm.filter,
      }
      : stepOf("lvm-filter", lvm.kind, lvm.why),
    multipath: !options.multipath
      ? stepOf("multipath", "left-out", "--no-multipath")
      : keepingByHand(facts, fileStep(facts, "multipath", [multipath])),
    "nvme-rule": !options.nvmeRule
      ? stepOf("nvme-rule", "left-out", "--no-nvme-rule")
      : keepingByHand(facts, fileStep(facts, "nvme-rule", [text(NVME_RULE_FILE, NVME_RULE)])),
  };
  return {
    ...{ kind: "install", version: world.version, from: installedVersion },
    steps: withServices(facts, files),
    notes: [
      ...notesOf(facts),
      ...(facts.multipath.isInstalled || !options.multipath ? [] : [
        "multipath-tools is not installed: for iSCSI with several portals run apt install multipath-tools",
      ]),
    ],
  };
}

/** The plan of bringing back what was installed before. */
export function planRollBack(facts: NodeFacts): Plan {
  const { previous, pending } = facts.record;
  // An interrupted roll back is gone on with.
  if (pending !== null && pending.kind !== "roll-back") return planUndo(facts, pending);
  if (previous === null) {
    throw new TnblockError(
      "not-found",
      `Cannot roll back on ${facts.node}: nothing was replaced here`,
      {
        hint: "tnblock uninstall removes what is installed",
      },
    );
  }
  if (facts.previousShim !== undefined) {
    refuseUnknownOptions(facts, facts.previousShim, previous.version);
  }
  const files: Partial<Record<StepId, Step>> = {};
  for (const id of STEP_IDS) {
    const changes = changesTo(previous.files, id);
    if (changes.length > 0) files[id] = fileStep(facts, id, changes);
  }
  return {
    ...{ kind: "roll-back", version: previous.version, from: facts.installedVersion },
    steps: withServices(facts, files),
    notes: notesOf(facts),
  };
}

/** Back to before a run that was interrupted. */
function planUndo(facts: NodeFacts, { begun, before }: Pending): Plan {
  const shim = begun.includes("pve-services") ? reloadPveServices() : [];
  return {
    ...{ kind: "roll-back", version: facts.record.version ?? undefined },
    from: facts.installedVersion,
    steps: begun.toReversed().map((id) => ({
      ...stepOf(id, "do"),
      changes: changesTo(before, id),
      commands: [...commandsAfter(id, facts), ...(id === "shim" ? shim : [])],
    })),
    undoes: true,
    notes: ["An earlier run was interrupted; everything goes back to before it"],
  };
}

/** The files of a part as they were. */
function changesTo(before: Readonly<Record<string, Before>>, id: StepId): Change[] {
  return Object.entries(before).filter(([path]) => stepIdOf(path) === id).map(([path, was]) => ({
    path,
    content: was === null ? undefined : { kind: "copy", of: was.copy },
    digest: was?.digest,
    mode: was?.mode ?? 0o644,
  }));
}

/** Settings that somebody has changed, or made before us, are his. */
function keepingByHand(facts: NodeFacts, step: Step): Step {
  const pending = facts.record.pending?.before ?? {};
  const foreign = step.changes.find(({ path }) => {
    const now = facts.files.get(path);
    return now !== undefined && !(path in pending) &&
      now.digest !== facts.record.files[path]?.digest;
  });
  return foreign === undefined
    ? step
    : stepOf(step.id, "left-out", `${foreign.path} was changed by hand`);
}

/** Adds what follows from the files: the daemon's start or restart, and PVE's reload. */
function withServices(facts: NodeFacts, files: Partial<Record<StepId, Step>>): Step[] {
  const { isEnabled, isActive } = facts.services;
  const begun = facts.record.pending?.begun ?? [];
  const isChanged = (id: StepId) => files[id]?.state === "do";
  const isReplaced = isChanged("program") || isChanged("units");
  const socket = files.units?.changes.some(({ path }) => path.endsWith(".socket")) === true;
  const restart = socket ? DAEMON_UNITS : DAEMON_UNITS.slice(1);
  const daemon: Step = !isEnabled || !isActive || isReplaced || begun.includes("daemon")
    ? {
      ...stepOf("daemon", "do"),
      commands: [
        systemctl("enable", "--now", ...DAEMON_UNITS),
        ...(isActive || begun.includes("daemon") ? [systemctl("restart", ...restart)] : []),
      ],
    }
    : stepOf("daemon", "already");
  return [
    ...STEP_IDS.map((id) => files[id]).filter((step) => step !== undefined),
    daemon,
    pveServices(isChanged("shim") || begun.includes("pve-services")),
  ];
}

/**
 * A plugin that does not know an option of a section makes Proxmox VE drop it at the next change of storage.cfg.
 */
function refuseUnknownOptions(facts: NodeFacts, shim: string, version: string): void {
  for (const { type, id, options } of facts.sections) {
    const unknown = type === "tnblock"
      ? Object.keys(options).filter((key) => key.startsWith("tnb-") && !shim.includes(`'${key}'`))
      : [];
    if (unknown.length > 0) {
      throw new TnblockError(
        "in-use",
        `Cannot install tnblock ${version}: it does not know ${
          unknown.join(", ")
        } of storage "${id}"`,
        {
          hint: `Proxmox VE would drop it. Take it away first: pvesm set ${id} --delete ${
            unknown[0]
          }`,
        },
      );
    }
  }
}

function notesOf({ record, neighbours, hasOldProgram }: NodeFacts): string[] {
  return [
    ...(record.pending === null ? [] : ["An earlier run was interrupted; this one puts it right"]),
    ...neighbours.map(describeNeighbour),
    ...(hasOldProgram
      ? [`/usr/bin/tnblock is not used any more: remove it (${PROGRAM} takes its place)`]
      : []),
  ];
}
