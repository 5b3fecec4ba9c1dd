/** iSCSI targets, which are the administrator's: read only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** Who may reach a target, and by which portal. */
export interface TargetGroup {
  /** Id of the portal. */
  readonly portal: number;
  /** Id of the group of initiators; null: everybody may. */
  readonly initiator: number | null;
  /** `NONE`, `CHAP` or `CHAP_MUTUAL`. */
  readonly authMethod: string;
  /** Tag of the credentials. */
  readonly auth: number | null;
}

/** A target. */
export interface Target {
  readonly id: number;
  /** The part after the basename, or a whole IQN. */
  readonly name: string;
  /** `ISCSI`, `FC` or `BOTH`. */
  readonly mode: string;
  readonly groups: readonly TargetGroup[];
}

const targetRow = v.object({
  id: v.number(),
  name: v.string(),
  mode: v.string(),
  groups: v.array(v.object({
    portal: v.number(),
    initiator: v.nullish(v.number()),
    authmethod: v.string(),
    auth: v.nullish(v.number()),
  })),
});

function targetOf(row: v.InferOutput<typeof targetRow>): Target {
  return {
    id: row.id,
    name: row.name,
    mode: row.mode,
    groups: row.groups.map((group) => ({
      portal: group.portal,
      initiator: group.initiator ?? null,
      authMethod: group.authmethod,
      auth: group.auth ?? null,
    })),
  };
}

/** The IQN of a target: a name that begins with `iqn.`, `naa.` or `eui.` stands by itself. */
export function iqnOf(name: string, basename: string): string {
  return /^(iqn|naa|eui)\./.test(name) ? name : `${basename}:${name}`;
}

/** Every target. */
export async function all(caller: Caller, wait?: Wait): Promise<Target[]> {
  const found = await read(
    caller,
    {
      method: "iscsi.target.query",
      params: [[], {}],
      doing: "Cannot list the iSCSI targets",
    },
    rows(targetRow),
    wait,
  );
  return found.map(targetOf);
}

/** The target with this IQN, or undefined. `basename` is that of `iscsiGlobal.read`. */
export async function byIqn(
  caller: Caller,
  iqn: string,
  basename: string,
  wait?: Wait,
): Promise<Target | undefined> {
  const short = iqn.startsWith(`${basename}:`) ? [iqn.slice(basename.length + 1)] : [];
  const found = await read(
    caller,
    {
      method: "iscsi.target.query",
      params: [[["name", "in", [...short, iqn]]], { force_sql_filters: true }],
      doing: `Cannot look for iSCSI target "${iqn}"`,
    },
    rows(targetRow),
    wait,
  );
  return found.map(targetOf).find((target) => iqnOf(target.name, basename) === iqn);
}
