/** What is to be made on the array for iSCSI. */
import { samePortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { Draft } from "./draft.ts";
import type { ClusterFacts } from "./node_facts.ts";
import type { Step } from "./plan.ts";
import { isEvery, portalTexts } from "./portal_choice.ts";
import { chosenExport, unlistedHosts } from "./questions_target.ts";

/** What objects of ours say of themselves on the array. */
const comment = (draft: Draft) => `tnblock ${draft.id}`;

/** Portal, group, CHAP user and target; or the nodes in the group of a target that is there. */
export function iscsiSteps(draft: Draft, cluster: ClusterFacts): Step[] {
  const { array: { iscsi }, target, portals, proof } = draft;
  if (iscsi === undefined) return [];
  if (!target.isNew) {
    const nodes = draft.allowHosts ? unlistedHosts({ draft, cluster }).map(({ node }) => node) : [];
    if (nodes.length === 0) return [];
    // Each portal of a target has a group of its own.
    return groupsOf(draft).map((group) => ({
      action: { kind: "more-initiators", group, nodes },
      about: `Let ${nodes.join(", ")} use target ${target.name} (group ${group})`,
      how: `iscsi.initiator.update ${group}`,
    }));
  }
  const isListening = (portal: Portal) => (one: { readonly addresses: readonly string[] }) =>
    one.addresses.some((address) =>
      samePortal({ address, port: portal.port }, portal) || isEvery(address, portal.address)
    );
  const there = portals.flatMap((portal) => iscsi.portals.find(isListening(portal))?.id ?? []);
  const missing = portals.filter((portal) => !iscsi.portals.some(isListening(portal)));
  const nodes = unlistedHosts({ draft, cluster }).map(({ node }) => node);
  const tag = proof === "none"
    ? undefined
    : 1 + Math.max(0, ...(iscsi.chapUsers ?? []).map((user) => user.tag));
  const steps: Step[] = [];
  if (missing.length > 0) {
    const addresses = missing.map(({ address }) => address);
    steps.push({
      action: { kind: "iscsi-portal", addresses, comment: comment(draft) },
      about: `Make an iSCSI portal on ${addresses.join(", ")}`,
      how: "iscsi.portal.create",
    });
  }
  steps.push({
    action: { kind: "initiators", nodes, comment: comment(draft) },
    about: `Make a group of initiators: ${nodes.join(", ")}`,
    how: "iscsi.initiator.create",
  });
  if (tag !== undefined) {
    steps.push({
      action: { kind: "chap-user", tag, isMutual: proof === "mutual" },
      about: `Make a CHAP user with a new secret${proof === "mutual" ? ", both ways" : ""}`,
      how: "iscsi.auth.create",
    });
  }
  steps.push({
    action: { kind: "target", name: target.name, portals: [...new Set(there)], proof, tag },
    about: `Make iSCSI target ${target.name} at ${portalTexts(portals)}, for this group alone`,
    how: "iscsi.target.create",
  });
  return steps;
}

/** The groups of initiators of the chosen target. */
function groupsOf(draft: Draft): number[] {
  const id = chosenExport(draft)?.id;
  const target = draft.array.iscsi?.targets.find((one) => one.id === id);
  return [...new Set(target?.groups.flatMap(({ initiator }) => initiator ?? []) ?? [])];
}
