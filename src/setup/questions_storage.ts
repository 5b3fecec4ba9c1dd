/** The last questions: how hosts prove who they are, how volumes are made, which nodes, and the storage's name. */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { optionSchema } from "../pve/options.ts";
import { parseStorageId } from "../pve/settings.ts";
import { parseYes } from "./answers.ts";
import type { SetupQuestion, Talk } from "./conversation.ts";
import { settled } from "./draft.ts";
import { formerOwner } from "./free_targets.ts";
import { chosenExport, unlistedHosts } from "./questions_target.ts";

/** What a file of secrets may hold: CHAP's names beside them, because they belong together. */
const GIVEN = [
  "tnb-chap-user",
  "tnb-chap-password",
  "tnb-chap-peer-user",
  "tnb-chap-peer-password",
  "tnb-dhchap-secret",
  "tnb-dhchap-ctrl-secret",
] as const;

/** Whether secrets may be made: only for what nobody else uses. */
function mayMakeSecrets({ draft, cluster }: Talk): boolean {
  if (settled(draft, "transport") === "iscsi") {
    return settled(draft, "target").isNew && settled(draft, "array").iscsi?.chapUsers !== undefined;
  }
  // A host's key counts for all subsystems: one that is known already keeps what it has.
  const known = settled(draft, "array").nvme?.hosts.map(({ nqn }) => nqn) ?? [];
  const wanted = unlistedHosts({ draft, cluster });
  const isListed = settled(draft, "target").isNew || draft.allowHosts === true;
  const isFirst = (chosenExport(draft)?.hosts ?? []).length === 0;
  return isListed && isFirst && wanted.length > 0 &&
    wanted.every(({ name }) => name !== null && !known.includes(name));
}

/** Whether what was chosen asks for secrets that only its administrator has. */
function needsSecrets({ draft, cluster }: Talk): boolean {
  const chosen = chosenExport(draft);
  if (chosen?.hasChap === true) return true;
  if (settled(draft, "transport") === "iscsi") return false;
  if (chosen?.isOpen === true) return false;
  const names = cluster.asked.flatMap(({ facts }) =>
    facts instanceof TnblockError ? [] : facts.hostNqn ?? []
  );
  return settled(draft, "array").nvme?.hosts.some(({ nqn, hasKey }) =>
    hasKey && names.includes(nqn)
  ) === true;
}

const proof: SetupQuestion = {
  id: "proof",
  applies: mayMakeSecrets,
  otherwise: () => "none",
  ask: async ({ asker, draft }, flag) => {
    const isIscsi = settled(draft, "transport") === "iscsi";
    const name = isIscsi ? "CHAP" : "DH-HMAC-CHAP";
    return await asker.choose({
      flag,
      message: "How do the nodes prove who they are?",
      choices: [
        { value: "none", label: "By their names alone", hint: "in a network of its own" },
        { value: "one-way", label: `${name}`, hint: "the secret is made here" },
        { value: "mutual", label: `${name}, both ways`, hint: "TrueNAS proves itself too" },
      ],
    });
  },
  settle: async ({ draft, world }, answer) => {
    if (answer !== "none" && answer !== "one-way" && answer !== "mutual") {
      throw new TnblockError("invalid", `Cannot use "${answer}": give none, one-way or mutual`, {
        field: "--proof",
      });
    }
    if (answer !== "none" && settled(draft, "transport") === "nvme-tcp") {
      const options = await world.host.fabricsOptions();
      if (options !== undefined && !options.includes("dhchap_secret")) {
        throw new TnblockError(
          "unsupported",
          "Cannot use DH-HMAC-CHAP: this node's kernel has none",
          {
            field: "--proof",
          },
        );
      }
    }
    draft.proof = answer;
  },
};

const secretsFile: SetupQuestion = {
  id: "secrets-file",
  applies: needsSecrets,
  ask: ({ asker, draft }, flag) =>
    asker.text({
      flag,
      message: settled(draft, "transport") === "iscsi"
        ? "The target asks for CHAP: JSON file with tnb-chap-user and tnb-chap-password"
        : "The hosts have DH-HMAC-CHAP keys: JSON file with tnb-dhchap-secret",
    }),
  settle: async ({ draft, world }, path) => {
    const refuse = (why: string) =>
      new TnblockError("config", `Cannot use the secrets in ${path}: ${why}`, {
        field: "--secrets-file",
      });
    const status = await world.host.files.status(path);
    if (status === undefined) throw refuse("there is no such file");
    if ((status.mode & 0o077) !== 0) throw refuse("others than its owner can read it");
    const entries = Object.fromEntries(
      GIVEN.map((name) => [name, v.optional(v.pipe(v.string(), v.nonEmpty()))]),
    );
    let parsed: unknown;
    try {
      parsed = JSON.parse(await world.host.files.readText(path) ?? "");
    } catch {
      throw refuse("it is no JSON");
    }
    // The parser's own words could repeat a secret.
    const result = v.safeParse(v.strictObject(entries), parsed);
    if (!result.success) throw refuse(`it may hold ${GIVEN.join(", ")}, texts all of them`);
    draft.givenSecrets = Object.fromEntries(
      Object.entries(result.output).filter((entry): entry is [string, string] =>
        entry[1] !== undefined
      ),
    );
  },
};

const extentBlockSize: SetupQuestion = {
  id: "extent-blocksize",
  applies: ({ draft }) => settled(draft, "transport") === "iscsi",
  otherwise: () => "512",
  ask: ({ asker }, flag) =>
    asker.choose({
      flag,
      message: "Sectors of the disks",
      choices: [
        { value: "512", label: "512 bytes", hint: "every guest can boot from it" },
        { value: "4096", label: "4096 bytes", hint: "UEFI guests only; cannot be changed later" },
      ],
    }),
  settle: ({ draft }, answer) => {
    draft.extentBlockSize = checked("extent-blocksize", answer) as "512" | "4096";
    return Promise.resolve();
  },
};

const zvolBlockSize: SetupQuestion = {
  id: "zvol-blocksize",
  otherwise: () => "16K",
  ask: ({ asker }, flag) =>
    asker.choose({
      flag,
      message: "Block size of new volumes",
      choices: [
        { value: "16K", label: "16K", hint: "what TrueNAS proposes; good for most guests" },
        { value: "8K", label: "8K", hint: "databases; more metadata, wasteful on RAIDZ" },
        { value: "32K", label: "32K" },
        { value: "64K", label: "64K", hint: "large files, streams" },
        { value: "128K", label: "128K", hint: "backups, media" },
      ],
    }),
  settle: ({ draft }, answer) => {
    draft.zvolBlockSize = String(checked("zvol-blocksize", answer));
    return Promise.resolve();
  },
};

const thin: SetupQuestion = {
  id: "thin",
  otherwise: () => "yes",
  ask: async ({ asker }, flag) =>
    await asker.confirm({
        flag,
        message: "Thin volumes: space is taken when it is written",
        initial: true,
      })
      ? "yes"
      : "no",
  settle: ({ draft }, answer) => {
    draft.isThin = parseYes(answer, "--thin");
    return Promise.resolve();
  },
};

const nodes: SetupQuestion = {
  id: "nodes",
  applies: ({ cluster }) => cluster.cluster.nodes.length > 1,
  otherwise: () => "all",
  ask: async ({ asker, cluster }, flag) => {
    const isAll = await asker.choose({
      flag,
      message: "Which nodes use the storage?",
      choices: [
        { value: true, label: "All", hint: "those to come too" },
        { value: false, label: "Some" },
      ],
    });
    if (isAll) return "all";
    const chosen = await asker.chooseSome({
      flag,
      message: "Nodes",
      choices: cluster.cluster.nodes.map(({ name, isOnline }) => ({
        value: name,
        label: name,
        ...(isOnline ? {} : { hint: "offline" }),
      })),
    });
    return chosen.join(",");
  },
  settle: ({ draft, cluster }, answer) => {
    if (answer === "all") {
      draft.nodes = undefined;
      return Promise.resolve();
    }
    const refuse = (why: string) =>
      new TnblockError("invalid", `Cannot use "${answer}": ${why}`, { field: "--nodes" });
    const names = [...new Set(answer.split(/[\s,]+/).filter((name) => name !== ""))];
    const there = cluster.cluster.nodes;
    const unknown = names.find((name) => !there.some((node) => node.name === name));
    if (unknown !== undefined) throw refuse(`there is no node "${unknown}"`);
    if (!there.some(({ name, isThis }) => isThis && names.includes(name))) {
      throw refuse("this node must be among them: the storage is tried here");
    }
    draft.nodes = names;
    return Promise.resolve();
  },
};

const content: SetupQuestion = {
  id: "content",
  isSilent: true,
  otherwise: () => "images,rootdir",
  ask: () => Promise.resolve("images,rootdir"),
  settle: ({ draft }, answer) => {
    const kinds = answer.split(",").map((kind) => kind.trim());
    if (!kinds.every((kind) => kind === "images" || kind === "rootdir")) {
      throw new TnblockError("invalid", `Cannot use "${answer}": give images, rootdir, or both`, {
        field: "--content",
      });
    }
    draft.content = kinds.join(",");
    return Promise.resolve();
  },
};

const storage: SetupQuestion = {
  id: "storage",
  ask: (talk, flag) =>
    talk.asker.text({ flag, message: "Name of the storage in Proxmox VE", initial: freeId(talk) }),
  settle: (talk, answer) => {
    const refuse = (code: "invalid" | "exists" | "not-ours", why: string) =>
      new TnblockError(code, `Cannot use "${answer}" as the storage's name: ${why}`, {
        field: "--storage",
      });
    try {
      talk.draft.id = parseStorageId(answer);
    } catch {
      throw refuse("invalid", "it takes letters, digits, dot, dash and underscore, a letter first");
    }
    if (talk.sections.some(({ id }) => id === answer)) throw refuse("exists", "there is one");
    const former = formerOf(talk);
    if (former !== undefined && former !== answer) {
      throw refuse(
        "not-ours",
        `the dataset's volumes are those of storage "${former}": take its name`,
      );
    }
    return Promise.resolve();
  },
};

function formerOf(talk: Talk): string | undefined {
  const { name } = settled(talk.draft, "dataset");
  const row = settled(talk.draft, "array").filesystems.find((one) => one.name === name);
  return row === undefined ? undefined : formerOwner(talk, row);
}

function freeId(talk: Talk): string {
  const former = formerOf(talk);
  if (former !== undefined) return former;
  const taken = talk.sections.map(({ id }) => id);
  for (let number = 1;; number++) {
    const id = number === 1 ? "san" : `san${number}`;
    if (!taken.includes(id)) return id;
  }
}

/** By the one schema of the options; its words are the message. */
function checked(name: "extent-blocksize" | "zvol-blocksize", answer: string): unknown {
  const result = v.safeParse(optionSchema.entries[`tnb-${name}`], answer);
  if (result.success) return result.output;
  throw new TnblockError("invalid", `Cannot use "${answer}": ${result.issues[0].message}`, {
    field: `--${name}`,
  });
}

export const STORAGE_QUESTIONS: readonly SetupQuestion[] = [
  proof,
  secretsFile,
  extentBlockSize,
  zvolBlockSize,
  thin,
  nodes,
  content,
  storage,
];
