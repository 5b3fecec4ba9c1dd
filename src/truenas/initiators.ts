/** Groups of iSCSI initiators, which are the administrator's: read only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** Who may reach a target that names the group. */
export interface InitiatorGroup {
  readonly id: number;
  readonly comment: string;
  /** Names of initiators; empty: everybody may. */
  readonly names: readonly string[];
}

const groupRow = v.object({
  id: v.number(),
  comment: v.nullish(v.string()),
  initiators: v.array(v.string()),
});

/** Every group. */
export async function all(caller: Caller, wait?: Wait): Promise<InitiatorGroup[]> {
  const found = await read(
    caller,
    {
      method: "iscsi.initiator.query",
      params: [[], {}],
      doing: "Cannot list the groups of iSCSI initiators",
    },
    rows(groupRow),
    wait,
  );
  return found.map((row) => ({ id: row.id, comment: row.comment ?? "", names: row.initiators }));
}
