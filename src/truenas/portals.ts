/** iSCSI portals, which are the administrator's: read only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** A portal: a group of addresses; the port is that of the whole service (`iscsiGlobal.read`). */
export interface IscsiPortal {
  readonly id: number;
  readonly tag: number;
  readonly comment: string;
  /** Numeric addresses. */
  readonly addresses: readonly string[];
}

const portalRow = v.object({
  id: v.number(),
  tag: v.number(),
  comment: v.nullish(v.string()),
  listen: v.array(v.object({ ip: v.string() })),
});

/** Every portal. */
export async function all(caller: Caller, wait?: Wait): Promise<IscsiPortal[]> {
  const found = await read(
    caller,
    {
      method: "iscsi.portal.query",
      params: [[], {}],
      doing: "Cannot list the iSCSI portals",
    },
    rows(portalRow),
    wait,
  );
  return found.map((row) => ({
    id: row.id,
    tag: row.tag,
    comment: row.comment ?? "",
    addresses: row.listen.map((listen) => listen.ip),
  }));
}
