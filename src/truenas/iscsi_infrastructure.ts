/**
 * What `tnblock setup` makes on the array for iSCSI after a yes: portals, groups of initiators, CHAP users,
 * targets. No volume operation ever comes here (design decision 11). Each write causes one reload.
 */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { anything, read, rows, write } from "./request.ts";
import type { TargetGroup } from "./targets.ts";

const made = v.object({ id: v.number() });

/** Addresses that a portal may listen on; `0.0.0.0` and `::` are among them. */
export async function listenChoices(caller: Caller, wait?: Wait): Promise<string[]> {
  const choices = await read(
    caller,
    {
      method: "iscsi.portal.listen_ip_choices",
      params: [],
      doing: "Cannot list the addresses of TrueNAS",
    },
    v.record(v.string(), v.unknown()),
    wait,
  );
  return Object.keys(choices);
}

/** Makes a portal; its port is that of the service. An address may be in one portal only. */
export async function createPortal(
  caller: Caller,
  portal: { readonly addresses: readonly string[]; readonly comment: string },
  wait?: Wait,
): Promise<number> {
  const row = await write(
    caller,
    {
      method: "iscsi.portal.create",
      params: [{ listen: portal.addresses.map((ip) => ({ ip })), comment: portal.comment }],
      doing: `Cannot make an iSCSI portal on ${portal.addresses.join(", ")}`,
    },
    made,
    wait,
  );
  return row.id;
}

/** Removes a portal; the array takes it out of every target that names it. */
export async function removePortal(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = `Cannot remove iSCSI portal ${id}`;
  await write(caller, { method: "iscsi.portal.delete", params: [id], doing }, anything, wait);
}

/** Makes a group of initiators. An empty one would let everybody in: there is at least one name. */
export async function createInitiators(
  caller: Caller,
  group: { readonly names: readonly [string, ...string[]]; readonly comment: string },
  wait?: Wait,
): Promise<number> {
  const row = await write(
    caller,
    {
      method: "iscsi.initiator.create",
      params: [{ initiators: [...group.names], comment: group.comment }],
      doing: "Cannot make a group of iSCSI initiators",
    },
    made,
    wait,
  );
  return row.id;
}

/** Replaces the names of a group. */
export async function setInitiators(
  caller: Caller,
  id: number,
  names: readonly [string, ...string[]],
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: "iscsi.initiator.update",
      params: [id, { initiators: [...names] }],
      doing: `Cannot change group ${id} of iSCSI initiators`,
    },
    anything,
    wait,
  );
}

/**
 * Removes a group. A target that names it would let everybody in from then on: the caller has made sure that
 * there is none.
 */
export async function removeInitiators(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = `Cannot remove group ${id} of iSCSI initiators`;
  await write(caller, { method: "iscsi.initiator.delete", params: [id], doing }, anything, wait);
}

/** A CHAP user without its secrets. */
export interface ChapUser {
  readonly id: number;
  /** What targets name it by. */
  readonly tag: number;
  readonly user: string;
}

/** Every CHAP user. */
export async function chapUsers(caller: Caller, wait?: Wait): Promise<ChapUser[]> {
  return await read(
    caller,
    {
      method: "iscsi.auth.query",
      params: [[], { select: ["id", "tag", "user"] }],
      doing: "Cannot list the CHAP users",
    },
    rows(v.object({ id: v.number(), tag: v.number(), user: v.string() })),
    wait,
  );
}

/** A CHAP user to be made. */
export interface NewChapUser {
  readonly tag: number;
  readonly user: string;
  /** 12 to 16 characters without `#`. */
  readonly secret: string;
  /** What the target presents (mutual CHAP). */
  readonly peer?: { readonly user: string; readonly secret: string };
}

/** Makes a CHAP user. */
export async function createChapUser(
  caller: Caller,
  { tag, user, secret, peer }: NewChapUser,
  wait?: Wait,
): Promise<number> {
  const mutual = peer === undefined ? {} : { peeruser: peer.user, peersecret: peer.secret };
  const row = await write(
    caller,
    {
      method: "iscsi.auth.create",
      params: [{ tag, user, secret, ...mutual }],
      doing: `Cannot make CHAP user "${user}"`,
    },
    made,
    wait,
  );
  return row.id;
}

/** Removes a CHAP user; the caller has made sure that no target names it. */
export async function removeChapUser(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = `Cannot remove CHAP user ${id}`;
  await write(caller, { method: "iscsi.auth.delete", params: [id], doing }, anything, wait);
}

/** Makes a target. */
export async function createTarget(
  caller: Caller,
  target: { readonly name: string; readonly groups: readonly TargetGroup[] },
  wait?: Wait,
): Promise<number> {
  const groups = target.groups.map(({ portal, initiator, authMethod, auth }) => ({
    ...{ portal, initiator, auth },
    authmethod: authMethod,
  }));
  const row = await write(
    caller,
    {
      method: "iscsi.target.create",
      params: [{ name: target.name, mode: "ISCSI", groups }],
      doing: `Cannot make iSCSI target "${target.name}"`,
    },
    made,
    wait,
  );
  return row.id;
}

/**
 * Removes a target that was just made and has no LUN; a session of this node does not keep it. Extents are never
 * removed with it.
 */
export async function removeTarget(caller: Caller, id: number, wait?: Wait): Promise<void> {
  const doing = `Cannot remove iSCSI target ${id}`;
  await write(
    caller,
    { method: "iscsi.target.delete", params: [id, true, false], doing },
    anything,
    wait,
  );
}
