/** Which target or subsystem carries the volumes, and whether the nodes of this cluster may use it. */
import { TnblockError } from "../common/error.ts";
import { formatPortal, samePortal } from "../common/portal.ts";
import { parseYes } from "./answers.ts";
import type { ExportFact } from "./array_facts.ts";
import type { SetupQuestion, Talk } from "./conversation.ts";
import { type PartialDraft, settled } from "./draft.ts";
import { targetTaken } from "./free_targets.ts";
import { isEvery } from "./portal_choice.ts";

/** The targets or subsystems that are there. */
export function exportsOf(draft: PartialDraft): readonly ExportFact[] {
  const { iscsi, nvme } = settled(draft, "array");
  return (settled(draft, "transport") === "iscsi" ? iscsi?.exports : nvme?.exports) ?? [];
}

/** The one that was chosen, when it is there already. */
export function chosenExport(draft: PartialDraft): ExportFact | undefined {
  const { isNew, name } = settled(draft, "target");
  return isNew ? undefined : exportsOf(draft).find((one) => one.name === name);
}

function whyNotTarget(talk: Talk, target: ExportFact): string | undefined {
  const { draft } = talk;
  const array = settled(draft, "array");
  const chosen = settled(draft, "dataset").name;
  const row = array.filesystems.find(({ name }) => name === chosen);
  const taken = targetTaken(talk, array, target, row ?? { name: chosen, userProperties: {} });
  if (taken !== undefined) return taken;
  const missing = settled(draft, "portals").filter((portal) =>
    !target.portals.some((other) =>
      samePortal(other, portal) ||
      (other.port === portal.port && isEvery(other.address, portal.address))
    )
  );
  if (missing.length === 0) return undefined;
  return `it is not offered at ${missing.map(formatPortal).join(", ")}`;
}

const target: SetupQuestion = {
  id: "target",
  ask: async (talk, flag) => {
    const { asker, draft } = talk;
    const what = settled(draft, "transport") === "iscsi" ? "target" : "subsystem";
    const all = exportsOf(draft).map((one) => ({ one, why: whyNotTarget(talk, one) }));
    const others = all.filter(({ why }) => why !== undefined);
    if (others.length > 0) {
      asker.tell(
        [`Not for this storage:`, ...others.map(({ one, why }) => `${one.name}: ${why}`)].join(
          "\n",
        ),
      );
    }
    const chosen = await asker.choose({
      flag,
      message: `One ${what} carries all volumes of a storage, and nothing else`,
      choices: [
        { value: "", label: `A new ${what}`, hint: "for the nodes of this cluster only" },
        ...all.filter(({ why }) => why === undefined).map(({ one }) => ({
          value: one.name,
          label: one.name,
          hint: `${one.count} disks, ${
            one.isOpen ? "open to whoever reaches it" : "listed hosts only"
          }`,
        })),
      ],
    });
    if (chosen !== "") return chosen;
    const name = await asker.text({
      flag,
      message: `Name of the new ${what}`,
      initial: freeName(draft),
      refuse: (text) =>
        NEW_NAME.test(text) ? undefined : "Take small letters, digits, dot and dash",
    });
    return `new:${name}`;
  },
  settle: (talk, answer) => {
    const { draft } = talk;
    const what = settled(draft, "transport") === "iscsi" ? "target" : "subsystem";
    const refuse = (code: "invalid" | "not-ours" | "not-found" | "exists", why: string) =>
      new TnblockError(code, `Cannot use ${what} "${answer}": ${why}`, { field: "--target" });
    if (answer === "new" || answer.startsWith("new:")) {
      const name = answer === "new" ? freeName(draft) : answer.slice("new:".length);
      if (!NEW_NAME.test(name)) {
        throw refuse("invalid", "the name takes small letters, digits, dot and dash");
      }
      if (namesThere(draft).includes(name)) throw refuse("exists", "there is one of that name");
      draft.target = { isNew: true, name };
      return Promise.resolve();
    }
    const found = exportsOf(draft).find((one) => one.name === answer.trim());
    if (found === undefined) {
      const all = exportsOf(draft).map(({ name }) => name).join(", ");
      throw refuse("not-found", `there ${all === "" ? "is none" : `are ${all}`}, or give new`);
    }
    const why = whyNotTarget(talk, found);
    if (why !== undefined) throw refuse("not-ours", why);
    draft.target = { isNew: false, name: found.name };
    return Promise.resolve();
  },
};

const NEW_NAME = /^[a-z0-9](?:[a-z0-9.-]{0,62}[a-z0-9])?$/;

function namesThere(draft: PartialDraft): string[] {
  const { iscsi, nvme } = settled(draft, "array");
  return settled(draft, "transport") === "iscsi"
    ? (iscsi?.targets ?? []).map(({ name }) => name)
    : (nvme?.subsystems ?? []).flatMap((
      { name, nqn },
    ) => [name, nqn.slice(nqn.lastIndexOf(":") + 1)]);
}

/** After the dataset, with a number where that is taken. */
function freeName(draft: PartialDraft): string {
  const leaf = settled(draft, "dataset").name.split("/").at(-1) ?? "pve";
  const base = leaf.toLowerCase().replaceAll(/[^a-z0-9.-]/g, "-").replace(/^[^a-z0-9]+/, "")
    .slice(0, 50).replace(/[^a-z0-9]+$/, "") || "pve";
  const names = namesThere(draft);
  for (let number = 1;; number++) {
    const name = number === 1 ? base : `${base}-${number}`;
    if (!names.includes(name)) return name;
  }
}

/** This cluster's nodes that may not use the chosen target or subsystem yet, with their names to the array. */
export function unlistedHosts(
  { draft, cluster }: Pick<Talk, "draft" | "cluster">,
): { readonly node: string; readonly name: string | null }[] {
  const chosen = chosenExport(draft);
  if (chosen?.isOpen === true || (chosen !== undefined && chosen.hosts === undefined)) return [];
  const isIscsi = settled(draft, "transport") === "iscsi";
  return cluster.asked.flatMap(({ node, facts }) => {
    if (facts instanceof TnblockError) return [];
    if (draft.nodes?.includes(node.name) === false) return [];
    const name = isIscsi ? facts.initiator : facts.hostNqn;
    return name !== null && chosen?.hosts?.includes(name) === true
      ? []
      : [{ node: node.name, name }];
  });
}

const allowHosts: SetupQuestion = {
  id: "allow-hosts",
  // A new one is made for exactly these hosts: never open to whoever reaches it.
  applies: (talk) => !settled(talk.draft, "target").isNew && unlistedHosts(talk).length > 0,
  ask: async (talk, flag) => {
    const hosts = unlistedHosts(talk).map(({ node, name }) => `${node} (${name ?? "to be made"})`);
    const isAgreed = await talk.asker.confirm({
      flag,
      message: `Let these nodes use it: ${hosts.join(", ")}?`,
      initial: true,
    });
    return isAgreed ? "yes" : "no";
  },
  settle: ({ draft }, answer) => {
    draft.allowHosts = parseYes(answer, "--allow-hosts");
    return Promise.resolve();
  },
};

export const TARGET_QUESTIONS: readonly SetupQuestion[] = [target, allowHosts];
