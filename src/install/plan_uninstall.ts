/** The plan of a removal. */
import { TnblockError } from "../common/error.ts";
import { UNITS } from "../daemon/unit.ts";
import { digestOf, type NodeFacts } from "./facts.ts";
import { withoutBlock } from "./lvm_filter.ts";
import { DAEMON_UNITS, LVM_LOCAL_CONF, PROGRAM, SHIM_FILE, UNIT_FOLDER } from "./places.ts";
import {
  type Change,
  fileStep,
  type Plan,
  pveServices,
  type Step,
  stepIdOf,
  stepOf,
  systemctl,
} from "./plan.ts";
import { STEP_IDS, type StepId } from "./record.ts";

/** The plan of removing what install has put here, and nothing else. */
export function planUninstall(facts: NodeFacts): Plan {
  const ours = facts.sections.filter(({ type }) => type === "tnblock").map(({ id }) => id);
  if (ours.length > 0) {
    throw new TnblockError(
      "in-use",
      `Cannot uninstall tnblock: storage.cfg has storages of it (${ours.join(", ")})`,
      {
        hint: `Without the plugin Proxmox VE drops them. Remove them first: pvesm remove ${
          ours[0]
        }`,
      },
    );
  }
  const { record } = facts;
  const placed = Object.keys(record.files);
  const leftovers = Object.keys(record.pending?.before ?? {}).filter((path) =>
    !placed.includes(path)
  );
  const byHand: string[] = [];
  const files: Partial<Record<StepId, Step>> = {};
  for (const id of STEP_IDS) {
    const changes = [...placed, ...leftovers].filter((path) => stepIdOf(path) === id).flatMap(
      (path): Change[] => {
        if (path === LVM_LOCAL_CONF) return [lvmWithoutUs(facts)];
        const [now, then] = [facts.files.get(path), record.files[path]];
        if (now !== undefined && then !== undefined && now.digest !== then.digest) {
          byHand.push(path);
          return [];
        }
        return [{ path, content: undefined, digest: undefined, mode: 0o644 }];
      },
    );
    if (changes.length > 0) {
      const checks = id === "shim" ? ["pvesm apiinfo", "pvesm status"] : [];
      files[id] = { ...fileStep(facts, id, changes), checks };
    }
  }
  const isHere = placed.length + leftovers.length > 0;
  const there = [PROGRAM, SHIM_FILE].filter((path) => facts.files.has(path));
  if (!isHere && there.length > 0) {
    throw new TnblockError(
      "not-found",
      `Cannot uninstall tnblock: ${there.join(" and ")} ${
        there.length > 1 ? "were" : "was"
      } not put there by tnblock install`,
      { hint: "Run tnblock install first, which takes them over, and then tnblock uninstall" },
    );
  }
  const hasUnits = Object.keys(UNITS).some((name) => facts.files.has(`${UNIT_FOLDER}/${name}`));
  const isOn = facts.services.isEnabled || facts.services.isActive ||
    (hasUnits && facts.record.pending?.begun.includes("daemon") === true);
  const daemon: Step = {
    ...stepOf("daemon", isHere && isOn ? "do" : "already"),
    commands: isHere && isOn ? [systemctl("disable", "--now", ...DAEMON_UNITS.toReversed())] : [],
  };
  const shim = files.shim ?? stepOf("shim", "already");
  // What others run goes first, the program last.
  const order = [shim, pveServices(shim.state === "do"), daemon, files.units, files["nvme-rule"]];
  const rest = [files.multipath, files["lvm-filter"], files.completions, files.program];
  return {
    ...{ kind: "uninstall", version: undefined, from: facts.installedVersion },
    steps: [...order, ...rest].filter((step) => step !== undefined),
    notes: byHand.map((path) => `${path} was changed by hand: it is left as it is`),
  };
}

function lvmWithoutUs(facts: NodeFacts): Change {
  const text = withoutBlock(facts.lvmLocal ?? "");
  const change = { path: LVM_LOCAL_CONF, mode: facts.files.get(LVM_LOCAL_CONF)?.mode ?? 0o644 };
  return text === ""
    ? { ...change, content: undefined, digest: undefined }
    : { ...change, content: { kind: "text", text }, digest: digestOf(text) };
}
