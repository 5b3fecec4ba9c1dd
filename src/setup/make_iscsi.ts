/** Makes what is missing on the array for iSCSI, one object at a time. */
import { TnblockError } from "../common/error.ts";
import { canonicalAddress } from "../common/portal.ts";
import * as initiators from "../truenas/initiators.ts";
import * as infrastructure from "../truenas/iscsi_infrastructure.ts";
import * as portals from "../truenas/portals.ts";
import type { Session } from "../truenas/session.ts";
import * as targetExtents from "../truenas/target_extents.ts";
import * as targets from "../truenas/targets.ts";
import { type Action, CHAP_USER } from "./plan.ts";
import { makeOne, type Work } from "./work.ts";

type IscsiAction = Extract<
  Action,
  { kind: "iscsi-portal" | "initiators" | "more-initiators" | "chap-user" | "target" }
>;

/** Makes one of them. */
export async function makeIscsi(work: Work, action: IscsiAction): Promise<void> {
  switch (action.kind) {
    case "iscsi-portal":
      return await makePortal(work, action);
    case "initiators":
      return await makeGroup(work, action);
    case "more-initiators":
      return await addToGroup(work, action.group, action.nodes);
    case "chap-user":
      return await makeChapUser(work, action);
    case "target":
      return await makeTarget(work, action);
  }
}

async function makePortal(
  work: Work,
  { addresses, comment }: Extract<Action, { kind: "iscsi-portal" }>,
): Promise<void> {
  const before = work.draft.array.iscsi?.portals.map(({ id }) => id) ?? [];
  const wanted = addresses.map(canonicalAddress);
  const id = await makeOne(work, `iSCSI portal on ${addresses.join(", ")}`, {
    find: async (array) =>
      (await portals.all(array)).find((one) =>
        !before.includes(one.id) && one.addresses.length === wanted.length &&
        one.addresses.every((address) => wanted.includes(canonicalAddress(address)))
      )?.id,
    create: (array) => infrastructure.createPortal(array, { addresses, comment }),
    remove: (array, portal) => infrastructure.removePortal(array, portal),
  });
  work.made.set("iscsi-portal", id);
}

async function makeGroup(
  work: Work,
  { nodes, comment }: Extract<Action, { kind: "initiators" }>,
): Promise<void> {
  const before = work.draft.array.iscsi?.groups?.map(({ id }) => id) ?? [];
  const [first, ...more] = namesOf(work, nodes);
  if (first === undefined) {
    throw new TnblockError("config", "Cannot make a group of no initiators: it would let all in");
  }
  const names: [string, ...string[]] = [first, ...more];
  const id = await makeOne(work, "group of initiators", {
    find: async (array) =>
      (await initiators.all(array)).find((group) =>
        !before.includes(group.id) && group.comment === comment &&
        group.names.length === names.length && group.names.every((name) => names.includes(name))
      )?.id,
    create: (array) => infrastructure.createInitiators(array, { names, comment }),
    remove: async (array, group) => {
      const users = (await targets.all(array)).filter((target) =>
        target.groups.some(({ initiator }) => initiator === group)
      );
      if (users.length > 0) {
        throw new TnblockError(
          "in-use",
          `Cannot remove the group: target "${users[0]?.name}" has it`,
        );
      }
      await infrastructure.removeInitiators(array, group);
    },
  });
  work.made.set("initiators", id);
}

function namesOf({ hostNames }: Work, nodes: readonly string[]): string[] {
  return nodes.flatMap((node) => hostNames.get(node) ?? []);
}

async function addToGroup(work: Work, group: number, nodes: readonly string[]): Promise<void> {
  const added = namesOf(work, nodes);
  const current = async (array: Session) => {
    const found = (await initiators.all(array)).find(({ id }) => id === group);
    const [first, ...more] = found?.names ?? [];
    if (first === undefined) {
      throw new TnblockError(
        "config",
        `Cannot change group ${group} of initiators: it is not as it was`,
      );
    }
    return [first, ...more] as [string, ...string[]];
  };
  const before = await current(await work.array());
  const ours = added.filter((name) => !before.includes(name));
  if (ours.length === 0) return;
  work.onFailure(`${ours.join(", ")} in group ${group} of initiators`, async () => {
    const array = await work.array();
    const names = await current(array);
    const [first, ...more] = names.filter((name) => !ours.includes(name));
    if (first === undefined || more.length + 1 === names.length) return false;
    await infrastructure.setInitiators(array, group, [first, ...more]);
    return true;
  });
  await infrastructure.setInitiators(await work.array(), group, [...before, ...ours]);
}

async function makeChapUser(
  work: Work,
  { tag, isMutual }: Extract<Action, { kind: "chap-user" }>,
): Promise<void> {
  const { secrets } = work;
  const before = work.draft.array.iscsi?.chapUsers?.map(({ id }) => id) ?? [];
  await makeOne(work, "CHAP user", {
    find: async (array) =>
      (await infrastructure.chapUsers(array)).find((one) =>
        !before.includes(one.id) && one.tag === tag
      )?.id,
    create: (array) =>
      infrastructure.createChapUser(array, {
        tag,
        user: CHAP_USER.host,
        secret: secrets["tnb-chap-password"] ?? "",
        ...(isMutual
          ? { peer: { user: CHAP_USER.array, secret: secrets["tnb-chap-peer-password"] ?? "" } }
          : {}),
      }),
    remove: (array, user) => infrastructure.removeChapUser(array, user),
  });
}

async function makeTarget(
  work: Work,
  { name, portals: there, proof, tag }: Extract<Action, { kind: "target" }>,
): Promise<void> {
  const { draft, made } = work;
  const before = draft.array.iscsi?.targets.map(({ id }) => id) ?? [];
  const initiator = made.get("initiators");
  if (initiator === undefined) {
    throw new TnblockError("internal", "Cannot make a target that is open to everybody");
  }
  const ids = [...there, ...(made.has("iscsi-portal") ? [made.get("iscsi-portal") ?? 0] : [])];
  const authMethod = proof === "none" ? "NONE" : proof === "mutual" ? "CHAP_MUTUAL" : "CHAP";
  const groups = ids.map((portal) => ({ portal, initiator, authMethod, auth: tag ?? null }));
  await makeOne(work, `iSCSI target ${name}`, {
    find: async (array) =>
      (await targets.all(array)).find((one) => !before.includes(one.id) && one.name === name)?.id,
    create: (array) => infrastructure.createTarget(array, { name, groups }),
    remove: async (array, target) => {
      // Deleting a target takes its mappings with it.
      const luns = await targetExtents.byTarget(array, target);
      if (luns.length > 0) {
        throw new TnblockError(
          "in-use",
          `Cannot remove target "${name}": it has ${luns.length} LUNs`,
        );
      }
      await infrastructure.removeTarget(array, target);
    },
  });
  work.targetName = targets.iqnOf(name, draft.array.iscsi?.basename ?? "");
}
