/** iSCSI extents: what makes a zvol a SCSI disk. Creating one causes no reload, deleting one does. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import {
  anything,
  DATABASE_QUERY,
  devicePath,
  read,
  type Request,
  rows,
  write,
  zvolOfDevicePath,
} from "./request.ts";

/** An extent. */
export interface Extent {
  readonly id: number;
  readonly name: string;
  /** Dataset path of its zvol; undefined for an extent on a file. */
  readonly zvol: string | undefined;
  /** 32 hex digits in lower case, without `0x`; the initiator's WWID is `naa.` + this. */
  readonly naa: string;
  readonly serial: string;
  /** Logical block size in bytes. */
  readonly blocksize: number;
  readonly enabled: boolean;
  readonly readOnly: boolean;
  readonly comment: string;
}

/** What a new extent is to be. */
export interface NewExtent {
  /** At most 64 characters, unique also when `.` is read as `_` and `/` as `-`. */
  readonly name: string;
  /** Dataset path. */
  readonly zvol: string;
  /** Logical block size in bytes. */
  readonly blocksize: number;
  readonly comment: string;
}

const extentRow = v.object({
  id: v.number(),
  name: v.string(),
  path: v.nullish(v.string()),
  disk: v.nullish(v.string()),
  naa: v.string(),
  serial: v.string(),
  blocksize: v.number(),
  enabled: v.boolean(),
  ro: v.boolean(),
  comment: v.nullish(v.string()),
});

const FIELDS = [
  "id",
  "name",
  "path",
  "disk",
  "naa",
  "serial",
  "blocksize",
  "enabled",
  "ro",
  "comment",
];

function extentOf(row: v.InferOutput<typeof extentRow>): Extent {
  return {
    id: row.id,
    name: row.name,
    zvol: zvolOfDevicePath(row.disk ?? row.path),
    naa: row.naa.replace(/^0x/i, "").toLowerCase(),
    serial: row.serial,
    blocksize: row.blocksize,
    enabled: row.enabled,
    readOnly: row.ro,
    comment: row.comment ?? "",
  };
}

async function query(
  caller: Caller,
  filters: readonly unknown[],
  doing: string,
  wait: Wait | undefined,
): Promise<Extent[]> {
  const request: Request = {
    method: "iscsi.extent.query",
    params: [filters, { ...DATABASE_QUERY, select: FIELDS }],
    doing,
  };
  return (await read(caller, request, rows(extentRow), wait)).map(extentOf);
}

/** Every extent of the array, foreign ones too; one call. */
export async function all(caller: Caller, wait?: Wait): Promise<Extent[]> {
  return await query(caller, [], "Cannot list the iSCSI extents", wait);
}

/** The extent of this name; its name in full, not flattened. */
export async function byName(
  caller: Caller,
  name: string,
  wait?: Wait,
): Promise<Extent | undefined> {
  const doing = `Cannot look for iSCSI extent "${name}"`;
  return (await query(caller, [["name", "=", name]], doing, wait))[0];
}

/** The extents on this zvol: one at most from 25.10 on, any number on 25.04, which checks nothing. */
export async function byZvol(caller: Caller, zvol: string, wait?: Wait): Promise<Extent[]> {
  const doing = `Cannot look for the iSCSI extents of zvol "${zvol}"`;
  // The column is named path; "disk" is made of it afterwards.
  return await query(caller, [["path", "=", devicePath(zvol)]], doing, wait);
}

/** The extents with these ids. */
export async function byIds(
  caller: Caller,
  ids: readonly number[],
  wait?: Wait,
): Promise<Extent[]> {
  if (ids.length === 0) return [];
  return await query(caller, [["id", "in", ids]], "Cannot read iSCSI extents", wait);
}

/**
 * Creates an extent; no reload. The answer holds the generated naa.
 *
 * @throws ArrayError `exists` (the name), `in-use` (the zvol; not on 25.04), and one that
 *   `isDeviceMissing` recognises while the zvol's device node is not there yet.
 */
export async function create(caller: Caller, extent: NewExtent, wait?: Wait): Promise<Extent> {
  const row = await write(
    caller,
    {
      method: "iscsi.extent.create",
      params: [{
        name: extent.name,
        type: "DISK",
        disk: devicePath(extent.zvol),
        blocksize: extent.blocksize,
        comment: extent.comment,
        rpm: "SSD",
        ro: false,
        enabled: true,
      }],
      doing: `Cannot create iSCSI extent "${extent.name}"`,
    },
    extentRow,
    wait,
  );
  return extentOf(row);
}

/**
 * Points an extent at another zvol, and gives it another name when told so; naa and serial stay. Two
 * reloads, whatever is changed.
 *
 * @throws ArrayError `exists` (the name), `in-use` (the zvol), and one that `isDeviceMissing` recognises
 *   while the zvol's device node is not there yet.
 */
export async function update(
  caller: Caller,
  id: number,
  change: { readonly zvol: string; readonly name?: string },
  wait?: Wait,
): Promise<Extent> {
  const { zvol, name } = change;
  const row = await write(
    caller,
    {
      method: "iscsi.extent.update",
      params: [id, { disk: devicePath(zvol), ...(name === undefined ? {} : { name }) }],
      doing: `Cannot point iSCSI extent ${id} at zvol "${zvol}"`,
    },
    extentRow,
    wait,
  );
  return extentOf(row);
}

/**
 * Deletes an extent and its mappings, not its zvol; one reload, and one more for each mapping that
 * is left. `force` goes past "in use" by any session to the target.
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
      method: "iscsi.extent.delete",
      params: [id, false, force],
      doing: `Cannot delete iSCSI extent ${id}`,
    },
    anything,
    wait,
  );
}
