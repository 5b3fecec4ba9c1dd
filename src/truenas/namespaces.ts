/** NVMe namespaces: zvols as disks of a subsystem (25.10+). Each write causes one reload. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { anything, devicePath, read, rows, write, zvolOfDevicePath } from "./request.ts";

/** A namespace. */
export interface Namespace {
  readonly id: number;
  /** Id of the subsystem. */
  readonly subsystem: number;
  readonly nsid: number;
  /** As the initiator's sysfs shows it: lower case with hyphens. Made by the array; gone for good with the namespace. */
  readonly uuid: string;
  /** Lower case with hyphens; another value than the uuid. */
  readonly nguid: string;
  /** Dataset path of its zvol; undefined for a namespace on a file. */
  readonly zvol: string | undefined;
  readonly enabled: boolean;
}

const namespaceRow = v.object({
  id: v.number(),
  nsid: v.number(),
  device_path: v.string(),
  device_uuid: v.string(),
  device_nguid: v.string(),
  enabled: v.boolean(),
  subsys: v.optional(v.object({ id: v.number() })),
});

const FIELDS = ["id", "nsid", "device_path", "device_uuid", "device_nguid", "enabled"];

/** `subsystem` for rows that were asked for without their copy of the whole subsystem. */
function namespaceOf(row: v.InferOutput<typeof namespaceRow>, subsystem = 0): Namespace {
  return {
    id: row.id,
    subsystem: row.subsys?.id ?? subsystem,
    nsid: row.nsid,
    uuid: row.device_uuid.toLowerCase(),
    nguid: row.device_nguid.toLowerCase(),
    zvol: zvolOfDevicePath(row.device_path),
    enabled: row.enabled,
  };
}

async function query(
  caller: Caller,
  filters: readonly unknown[],
  options: { readonly select: readonly string[]; readonly force_sql_filters?: true },
  doing: string,
  wait: Wait | undefined,
): Promise<v.InferOutput<typeof namespaceRow>[]> {
  return await read(
    caller,
    {
      method: "nvmet.namespace.query",
      params: [filters, { ...options, extra: { retrieve_locked_info: false } }],
      doing,
    },
    rows(namespaceRow),
    wait,
  );
}

/** Every namespace of the array. */
export async function all(caller: Caller, wait?: Wait): Promise<Namespace[]> {
  const select = [...FIELDS, "subsys"];
  const found = await query(caller, [], { select }, "Cannot list the NVMe namespaces", wait);
  return found.map((row) => namespaceOf(row));
}

/** The namespaces of one subsystem, foreign ones too. */
export async function bySubsystem(
  caller: Caller,
  subsystem: number,
  wait?: Wait,
): Promise<Namespace[]> {
  const doing = `Cannot list the namespaces of NVMe subsystem ${subsystem}`;
  // "subsys_id" matches nothing here and is no error: rows hold the subsystem as an object.
  const filters = [["subsys.id", "=", subsystem]];
  const found = await query(caller, filters, { select: FIELDS }, doing, wait);
  return found.map((row) => namespaceOf(row, subsystem));
}

/** The same by the subsystem's NQN: no look-up of its id is needed first. */
export async function byNqn(caller: Caller, nqn: string, wait?: Wait): Promise<Namespace[]> {
  const doing = `Cannot list the namespaces of NVMe subsystem "${nqn}"`;
  const select = [...FIELDS, "subsys"];
  const found = await query(caller, [["subsys.subnqn", "=", nqn]], { select }, doing, wait);
  return found.map((row) => namespaceOf(row));
}

/** The namespace on this zvol, in whatever subsystem, or undefined: a path can be used once. */
export async function byZvol(
  caller: Caller,
  zvol: string,
  wait?: Wait,
): Promise<Namespace | undefined> {
  const doing = `Cannot look for the NVMe namespace of zvol "${zvol}"`;
  // The array keeps the path as it was given: with a blank here, with "+" there.
  const paths = [...new Set([devicePath(zvol), `zvol/${zvol}`])];
  const filter = paths.length === 1 ? ["device_path", "=", paths[0]] : ["device_path", "in", paths];
  const options = { select: [...FIELDS, "subsys"], force_sql_filters: true } as const;
  const found = await query(caller, [filter], options, doing, wait);
  return found[0] === undefined ? undefined : namespaceOf(found[0]);
}

/** The namespace with this id, or undefined. */
export async function byId(
  caller: Caller,
  id: number,
  wait?: Wait,
): Promise<Namespace | undefined> {
  const options = { select: [...FIELDS, "subsys"], force_sql_filters: true } as const;
  const doing = `Cannot read NVMe namespace ${id}`;
  const found = await query(caller, [["id", "=", id]], options, doing, wait);
  return found[0] === undefined ? undefined : namespaceOf(found[0]);
}

/**
 * Makes a zvol a namespace of a subsystem; one reload. The uuid in the answer is its identity.
 *
 * @throws ArrayError `exists` (the nsid is taken), `in-use` (the zvol is exported already), and one
 *   that `isDeviceMissing` recognises while the zvol's device node is not there yet.
 */
export async function create(
  caller: Caller,
  namespace: { readonly subsystem: number; readonly zvol: string; readonly nsid: number },
  wait?: Wait,
): Promise<Namespace> {
  const row = await write(
    caller,
    {
      method: "nvmet.namespace.create",
      params: [{
        subsys_id: namespace.subsystem,
        nsid: namespace.nsid,
        device_type: "ZVOL",
        // Here the array itself turns a blank into "+".
        device_path: `zvol/${namespace.zvol}`,
        enabled: true,
      }],
      doing: `Cannot make zvol "${namespace.zvol}" an NVMe namespace`,
    },
    namespaceRow,
    wait,
  );
  return namespaceOf(row);
}

/**
 * Switches a namespace on or off, and points it at another zvol while it is off; uuid and nguid stay. One
 * reload. An enabled namespace of a running service accepts no other path, and while it is switched off
 * its old path must still be there (`middlewared/plugins/nvmet/namespace.py`).
 *
 * @throws ArrayError `in-use` (the zvol), and one that `isDeviceMissing` recognises while the zvol's device
 *   node is not there yet.
 */
export async function update(
  caller: Caller,
  id: number,
  change: { readonly zvol?: string; readonly enabled: boolean },
  wait?: Wait,
): Promise<Namespace> {
  const { zvol, enabled } = change;
  const row = await write(
    caller,
    {
      method: "nvmet.namespace.update",
      params: [id, { enabled, ...(zvol === undefined ? {} : { device_path: `zvol/${zvol}` }) }],
      doing: zvol === undefined
        ? `Cannot switch NVMe namespace ${id} ${enabled ? "on" : "off"}`
        : `Cannot point NVMe namespace ${id} at zvol "${zvol}"`,
    },
    namespaceRow,
    wait,
  );
  return namespaceOf(row);
}

/** Deletes a namespace, not its zvol; one reload. The array does not look whether a host uses it. */
export async function remove(caller: Caller, id: number, wait?: Wait): Promise<void> {
  await write(
    caller,
    {
      method: "nvmet.namespace.delete",
      params: [id, { remove: false }],
      doing: `Cannot delete NVMe namespace ${id}`,
    },
    anything,
    wait,
  );
}
