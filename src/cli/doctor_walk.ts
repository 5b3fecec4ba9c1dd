/** Walking through a finding's five steps with somebody in a terminal: after each the check looks again. */
import type { Asker } from "../common/asking.ts";
import type { Finding } from "../doctor/check.ts";
import type { Doctor, Look, LookOptions } from "../doctor/doctor.ts";

const FLAG = "doctor CHECK";

/**
 * Asks which finding to see to, until none is left or nobody wants to go on.
 *
 * @returns what was found in the end.
 * @throws Cancelled when he leaves.
 */
export async function walk(
  doctor: Doctor,
  first: Look,
  options: LookOptions,
  asker: Asker,
): Promise<Look> {
  let look = first;
  for (;;) {
    const findings = look.results.flatMap((result) => result.findings);
    if (findings.length === 0) return look;
    const chosen = await asker.choose<Finding | undefined>({
      flag: FLAG,
      message: "Which one do you want to see to?",
      choices: [
        ...findings.map((finding) => ({
          value: finding,
          label: `${finding.check}: ${finding.text}`.slice(0, 90),
          hint: whereOf(finding),
        })),
        { value: undefined, label: "none now" },
      ],
    });
    if (chosen === undefined) return look;
    look = await walkOne(doctor, look, options, chosen, asker);
  }
}

/** The five steps of one finding; ends as soon as it is gone. */
async function walkOne(
  doctor: Doctor,
  first: Look,
  options: LookOptions,
  finding: Finding,
  asker: Asker,
): Promise<Look> {
  let look = first;
  for (const [index, step] of finding.guide.entries()) {
    asker.tell(`Step ${index + 1} of ${finding.guide.length}: ${step}`);
    const isDone = await asker.choose({
      flag: FLAG,
      message: "And then?",
      choices: [
        { value: true, label: "done, look again" },
        { value: false, label: "back to the list" },
      ],
    });
    if (!isDone) return look;
    const again = await asker.working(`Looking again: ${finding.check}`, () =>
      doctor.look({
        ...options,
        ids: [finding.check],
        // Another node's storage need not be one of this node.
        storage: finding.node === look.node ? finding.storage ?? options.storage : options.storage,
      }));
    look = merged(look, again, finding);
    const left = again.results.flatMap((result) => result.findings);
    if (!left.some((one) => isSame(one, finding))) {
      asker.tell(`${finding.check}: this one is put right.`);
      return look;
    }
    asker.tell(`${finding.check}: still so.`);
  }
  asker.tell(
    "All five steps are done and it is still so. tnblock doctor --report prints what helps others to help you.",
  );
  return look;
}

/** The same thing: its words may have changed with its numbers, but not what found it and where. */
function isSame(one: Finding, other: Finding): boolean {
  const shape = (finding: Finding) => finding.text.replaceAll(/[0-9]+/g, "0");
  return one.check === other.check && one.node === other.node && one.storage === other.storage &&
    shape(one) === shape(other);
}

/** The results with those of one check replaced by what it says now. */
function merged(look: Look, again: Look, { check, node }: Finding): Look {
  const isReplaced = (id: string, where: string, storage: string | null) =>
    id === check && where === node &&
    again.results.some((one) => one.storage === storage && one.node === node);
  const results = look.results.map((result) =>
    isReplaced(result.id, result.node, result.storage)
      ? again.results.find((one) =>
        one.id === result.id && one.node === result.node && one.storage === result.storage
      ) ?? result
      : result
  );
  return { ...look, results };
}

function whereOf({ severity, storage, node }: Finding): string {
  return `${severity}, ${storage === null ? `node ${node}` : `storage ${storage}`}`;
}
