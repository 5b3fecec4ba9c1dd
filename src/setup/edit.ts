/** `tnblock setup --edit`: changes what may be changed of a storage, by the same questions. */
import type { Asker } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { readSecrets, secretsPath } from "../pve/secrets.ts";
import { parseStorageCfg, STORAGE_CFG } from "../pve/storage_cfg.ts";
import type { AnswerId, Answers } from "./answers.ts";
import { carryOut } from "./carry_out.ts";
import { converse } from "./conversation.ts";
import { complete, type Draft, type PartialDraft } from "./draft.ts";
import { checkPlugin } from "./node_facts.ts";
import { changeStep, hostSteps, type Plan, secretsStep, storageOptions } from "./plan.ts";
import { QUESTIONS } from "./questions.ts";
import { openTalk, type PreparedSetup, startingDraft } from "./setup.ts";
import { orLeave, type SetupWorld } from "./world.ts";

/** What may be changed, and the options that it is; the rest is fixed for good. */
const CHANGEABLE: Partial<
  Record<AnswerId, { readonly about: string; readonly options: readonly string[] }>
> = {
  "api-port": { about: "port of the API", options: ["tnb-api-port"] },
  "api-host": { about: "address of TrueNAS", options: ["tnb-api-host", "tnb-api-port"] },
  "trust": {
    about: "trust in its certificate",
    options: ["tnb-tls-fingerprint", "tnb-tls-ca"],
  },
  "api-user": { about: "user of the API key", options: ["tnb-api-user"] },
  "api-key-file": { about: "API key", options: [] },
  "portals": { about: "portals", options: ["tnb-portals", "tnb-discovery-portal"] },
  "allow-hosts": { about: "nodes that TrueNAS lets in", options: [] },
  "zvol-blocksize": { about: "block size of new volumes", options: ["tnb-zvol-blocksize"] },
  "thin": { about: "thin volumes", options: ["tnb-sparse"] },
  "nodes": { about: "nodes that use it", options: ["nodes"] },
  "content": { about: "content", options: ["content"] },
};

/** For these the array is asked. */
const ACCESS: readonly AnswerId[] = ["api-port", "api-host", "trust", "api-user", "api-key-file"];
const NEED_ARRAY: readonly AnswerId[] = [...ACCESS, "portals", "allow-hosts"];

/**
 * Asks what is to be changed, and hands the plan to `decide`. Nothing is written before `decide` has it done.
 *
 * @throws TnblockError `not-found` when there is no such storage; `invalid` for what is fixed.
 */
export async function prepareEdit<T>(
  world: SetupWorld,
  id: string,
  asking: { readonly asker: Asker; readonly isTerminal: boolean; readonly given: Answers },
  decide: (prepared: PreparedSetup) => Promise<T>,
): Promise<T> {
  const config = await sectionOf(world, id);
  const secrets = await readSecrets(world.host.files, id);
  const changed = await whatToChange(asking);
  const draft = draftOf(id, config, secrets);
  try {
    const talk = await openTalk(world, asking, draft);
    const warnings = checkPlugin(talk.cluster);
    const needsArray = changed.some((one) => NEED_ARRAY.includes(one));
    const current = answersNow(id, config);
    const asked = QUESTIONS.filter((question) =>
      changed.includes(question.id) ||
      (needsArray && ACCESS.includes(question.id) && current[question.id] !== undefined)
    );
    const kept = Object.fromEntries(
      Object.entries(current).filter(([name]) =>
        needsArray && ACCESS.includes(name as AnswerId) && !changed.includes(name as AnswerId)
      ),
    );
    const given = { ...kept, ...asking.given };
    const answers = await converse(asked, given, talk);
    const done = complete(draft);
    const plan = planEdit(done, talk, changed, config, secrets, warnings);
    return await decide({
      ...{ draft: done, plan, answers },
      carryOut: () => carryOut(world, done, talk.cluster, plan),
    });
  } finally {
    draft.session?.close();
  }
}

async function sectionOf(
  world: SetupWorld,
  id: string,
): Promise<Readonly<Record<string, string>>> {
  const text = await orLeave(world, world.host.files.readText(STORAGE_CFG)) ?? "";
  const section = parseStorageCfg(text).find((one) => one.id === id);
  if (section !== undefined) return section.config;
  throw new TnblockError(
    "not-found",
    `Cannot change storage "${id}": there is no tnblock storage of that name`,
    { field: "--edit" },
  );
}

async function whatToChange(
  { asker, isTerminal, given }: {
    readonly asker: Asker;
    readonly isTerminal: boolean;
    readonly given: Answers;
  },
): Promise<AnswerId[]> {
  const names = Object.keys(given) as AnswerId[];
  const fixed = names.find((name) => CHANGEABLE[name] === undefined);
  if (fixed !== undefined) {
    throw new TnblockError(
      "invalid",
      `Cannot change --${fixed} of a storage: it is fixed for good`,
      {
        field: `--${fixed}`,
        hint: "Set up another storage, and move the disks there",
      },
    );
  }
  if (names.length > 0) return names;
  if (!isTerminal) {
    throw new TnblockError("invalid", "Cannot tell what is to be changed: this is no terminal", {
      field: "--edit",
      hint: `Give one of --${Object.keys(CHANGEABLE).join(", --")}`,
    });
  }
  const chosen = await asker.chooseSome({
    flag: "--edit",
    message: "What is to be changed?",
    // The port comes with the address.
    choices: Object.entries(CHANGEABLE).filter(([name]) => name !== "api-port").map((
      [name, { about }],
    ) => ({ value: name as AnswerId, label: about })),
  });
  return [...chosen];
}

function draftOf(
  id: string,
  config: Readonly<Record<string, string>>,
  secrets: Readonly<Record<string, unknown>>,
): PartialDraft {
  const transport = config["tnb-transport-mode"] === "nvme-tcp" ? "nvme-tcp" : "iscsi";
  const name = config[transport === "iscsi" ? "tnb-target-iqn" : "tnb-subsystem-nqn"] ?? "";
  const others = Object.entries(secrets).filter(([option]) => option !== "tnb-api-key");
  return {
    ...startingDraft(),
    ...{ id, transport },
    dataset: { name: config["tnb-dataset"] ?? "", isNew: false },
    target: { isNew: false, name },
    givenSecrets: Object.fromEntries(others.map(([option, value]) => [option, String(value)])),
  };
}

/** The section as answers: what is not to be changed is not asked. */
function answersNow(id: string, config: Readonly<Record<string, string>>): Answers {
  const user = config["tnb-api-user"];
  return {
    "api-port": config["tnb-api-port"] ?? "443",
    "api-host": config["tnb-api-host"] ?? "",
    "trust": config["tnb-tls-fingerprint"] ?? config["tnb-tls-ca"] ?? "verified",
    ...(user === undefined ? {} : { "api-user": user }),
    "api-key-file": secretsPath(id),
  };
}

function planEdit(
  draft: Draft,
  talk: Parameters<typeof hostSteps>[1],
  changed: readonly AnswerId[],
  config: Readonly<Record<string, string>>,
  secrets: Readonly<Record<string, unknown>>,
  notes: readonly string[],
): Plan {
  const names = changed.flatMap((name) => CHANGEABLE[name]?.options ?? []);
  const options = wantedOptions(draft, changed);
  const set = Object.fromEntries(
    names.flatMap((name) => {
      const value = options[name];
      return value === undefined || value === config[name] ? [] : [[name, value]];
    }),
  );
  const drop = [...new Set(names)].filter((name) =>
    options[name] === undefined && config[name] !== undefined
  );
  const isNewKey = changed.includes("api-key-file") && draft.key !== secrets["tnb-api-key"];
  return {
    steps: [
      ...(changed.includes("allow-hosts") ? hostSteps(draft, talk) : []),
      ...(isNewKey ? [secretsStep(draft)] : []),
      ...(Object.keys(set).length + drop.length > 0
        ? [changeStep(draft.id, config, set, drop)]
        : []),
    ],
    notes,
  };
}

/** The values of those options alone that the answers were about; the others are not settled. */
function wantedOptions(
  draft: Draft,
  changed: readonly AnswerId[],
): Readonly<Record<string, string | undefined>> {
  const isAccess = changed.some((name) => NEED_ARRAY.includes(name));
  const filled: Draft = {
    ...draft,
    ...(isAccess ? {} : { hosts: [], port: 443, key: "", tls: { kind: "verified" } as const }),
    portals: draft.portals ?? [],
    zvolBlockSize: draft.zvolBlockSize ?? "",
    isThin: draft.isThin ?? true,
    content: draft.content ?? "",
  };
  return storageOptions(filled);
}
