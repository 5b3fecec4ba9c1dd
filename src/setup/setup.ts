/** `tnblock setup`: look at the cluster, ask, plan; the caller shows the plan and has it done. */
import type { Asker } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { secretsPath } from "../pve/secrets.ts";
import { parseSettings } from "../pve/settings.ts";
import type { Answers } from "./answers.ts";
import { carryOut } from "./carry_out.ts";
import { converse, type Talk } from "./conversation.ts";
import { complete, type Draft, type PartialDraft } from "./draft.ts";
import { askNodes, checkPlugin } from "./node_facts.ts";
import { type Plan, planStorage, storageOptions } from "./plan.ts";
import { QUESTIONS } from "./questions.ts";
import { readAllSections } from "./used_names.ts";
import { orLeave, type SetupWorld } from "./world.ts";

/** What is planned, and the way to do it. */
export interface PreparedSetup {
  readonly draft: Draft;
  readonly plan: Plan;
  /** For the next time; no secret among them. */
  readonly answers: Answers;
  readonly carryOut: () => Promise<void>;
}

/**
 * Asks everything, and hands the plan to `decide`. Nothing is written before `decide` has it done.
 *
 * @throws Cancelled when the user leaves; TnblockError for what cannot be used.
 */
export async function prepareSetup<T>(
  world: SetupWorld,
  asking: { readonly asker: Asker; readonly isTerminal: boolean; readonly given: Answers },
  decide: (prepared: PreparedSetup) => Promise<T>,
): Promise<T> {
  const draft: PartialDraft = startingDraft();
  try {
    const talk = await openTalk(world, asking, draft);
    const warnings = checkPlugin(talk.cluster);
    const answers = await converse(QUESTIONS, asking.given, talk);
    const done = complete(draft);
    checkSection(done);
    const { steps, notes } = planStorage(done, talk.cluster);
    const keyFile = done.keyFile ?? secretsPath(done.id);
    return await decide({
      draft: done,
      plan: { steps, notes: [...warnings, ...notes] },
      answers: { ...answers, "api-key-file": keyFile },
      carryOut: () => carryOut(world, done, talk.cluster, { steps, notes }),
    });
  } finally {
    draft.session?.close();
  }
}

/** What is so when nobody is asked about it. */
export function startingDraft(): PartialDraft {
  return {
    ...{ user: undefined, keyFile: undefined, nodes: undefined },
    ...{ allowHosts: false, proof: "none", givenSecrets: {}, extentBlockSize: "512" },
  };
}

/** Looks at the cluster. */
export async function openTalk(
  world: SetupWorld,
  { asker, isTerminal }: { readonly asker: Asker; readonly isTerminal: boolean },
  draft: PartialDraft,
): Promise<Talk> {
  const [cluster, sections, clusterId] = await orLeave(
    world,
    Promise.all([
      askNodes(world),
      readAllSections(world.host.files),
      world.host.files.readText("/etc/pve/priv/tnblock/cluster-id"),
    ]),
  );
  return { world, asker, isTerminal, draft, cluster, sections, clusterId: clusterId?.trim() };
}

/** The section as the storage itself will read it, before anything is made. */
function checkSection(draft: Draft): void {
  const options = storageOptions(draft);
  const placeholder = draft.transport === "iscsi"
    ? { "tnb-target-iqn": "iqn.2005-10.org.freenas.ctl:new" }
    : { "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:new" };
  const config = { type: "tnblock", ...options, ...(draft.target.isNew ? placeholder : {}) };
  const given = Object.entries(draft.givenSecrets).filter(([name]) => !name.endsWith("-user"));
  const made: Record<string, string> = draft.proof === "none" || draft.transport !== "iscsi"
    ? {}
    : {
      "tnb-chap-password": "x".repeat(16),
      ...(draft.proof === "mutual" ? { "tnb-chap-peer-password": "y".repeat(16) } : {}),
    };
  const secrets = { "tnb-api-key": draft.key, ...Object.fromEntries(given), ...made };
  const settings = parseSettings(draft.id, config, secrets);
  if (settings.dataset !== draft.dataset.name) {
    throw new TnblockError("internal", "Cannot go on: the section does not say what was answered");
  }
}
