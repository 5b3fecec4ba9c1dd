/** The settings of the iSCSI service as a whole: read only. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read as readRow } from "./request.ts";

/** What all targets have in common. */
export interface IscsiGlobal {
  /** Beginning of every target's IQN, e.g. `iqn.2005-10.org.freenas.ctl`. */
  readonly basename: string;
  readonly port: number;
  /** Whether both controllers of an HA pair export (Enterprise). */
  readonly alua: boolean;
}

const configRow = v.object({
  basename: v.string(),
  listen_port: v.optional(v.number(), 3260),
  alua: v.optional(v.boolean(), false),
});

/** Reads the settings. */
export async function read(caller: Caller, wait?: Wait): Promise<IscsiGlobal> {
  const row = await readRow(
    caller,
    {
      method: "iscsi.global.config",
      params: [],
      doing: "Cannot read the iSCSI settings",
    },
    configRow,
    wait,
  );
  return { basename: row.basename, port: row.listen_port, alua: row.alua };
}
