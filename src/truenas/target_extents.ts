/** Mappings of extents to LUNs of a target; each write causes one reload of the whole service. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { anything, read, rows, write } from "./request.ts";

/** A mapping. */
export interface TargetExtent {
  readonly id: number;
  /** Id of the target. */
  readonly target: number;
  /** Id of the extent. */
  readonly extent: number;
  /** 0 to 16382. */
  readonly lun: number;
}

const mappingRow = v.object({
  id: v.number(),
  target: v.number(),
  extent: v.number(),
  lunid: v.number(),
});

function mappingOf(row: v.InferOutput<typeof mappingRow>): TargetExtent {
  return { id: row.id, target: row.target, extent: row.extent, lun: row.lunid };
}

async function query(
  caller: Caller,
  filters: readonly unknown[],
  doing: string,
  wait: Wait | undefined,
): Promise<TargetExtent[]> {
  const found = await read(
    caller,
    {
      method: "iscsi.targetextent.query",
      params: [filters, { force_sql_filters: true }],
      doing,
    },
    rows(mappingRow),
    wait,
  );
  return found.map(mappingOf);
}

/** Every mapping of the array. */
export async function all(caller: Caller, wait?: Wait): Promise<TargetExtent[]> {
  return await query(caller, [], "Cannot list the LUNs", wait);
}

/** The mappings of one target, foreign ones too. */
export async function byTarget(
  caller: Caller,
  target: number,
  wait?: Wait,
): Promise<TargetExtent[]> {
  return await query(
    caller,
    [["target", "=", target]],
    `Cannot list the LUNs of target ${target}`,
    wait,
  );
}

/** The mappings of these extents, to whatever target. */
export async function byExtents(
  caller: Caller,
  extents: readonly number[],
  wait?: Wait,
): Promise<TargetExtent[]> {
  if (extents.length === 0) return [];
  return await query(caller, [["extent", "in", extents]], "Cannot look for LUNs", wait);
}

/**
 * Maps an extent to a LUN of a target; one reload. There is no constraint on (target, LUN) in the
 * array's database, so two clients at once may both get one LUN: read back with {@link byTarget}.
 *
 * @throws ArrayError `exists` (the LUN is taken), `in-use` (the extent is mapped already).
 */
export async function create(
  caller: Caller,
  mapping: { readonly target: number; readonly extent: number; readonly lun: number },
  wait?: Wait,
): Promise<TargetExtent> {
  const row = await write(
    caller,
    {
      method: "iscsi.targetextent.create",
      params: [{ target: mapping.target, extent: mapping.extent, lunid: mapping.lun }],
      doing:
        `Cannot map extent ${mapping.extent} to LUN ${mapping.lun} of target ${mapping.target}`,
    },
    mappingRow,
    wait,
  );
  return mappingOf(row);
}

/**
 * Deletes a mapping; one reload. Without `force` the array refuses while any initiator has a session
 * to the target, whichever LUN it uses.
 */
export async function remove(
  caller: Caller,
  id: number,
  options: Wait & { readonly force: boolean },
): Promise<void> {
  const { force, ...wait } = options;
  await write(
    caller,
    {
      method: "iscsi.targetextent.delete",
      params: [id, force],
      doing: `Cannot delete LUN mapping ${id}`,
    },
    anything,
    wait,
  );
}
