/** Which methods a release has, with their models, and who may call them. */

import type { Json } from "./json.ts";
import { CallError, RpcError } from "./errors.ts";
import type { MethodModel, ModelTable } from "./models/tables.ts";
import { modelTable } from "./models/tables.ts";
import type { Dialect, Release } from "./release.ts";
import { auth } from "./services/auth.ts";
import { core } from "./services/core.ts";
import { datasets } from "./services/dataset.ts";
import { iscsiAccess } from "./services/iscsi_access.ts";
import { iscsiExtents } from "./services/iscsi_extent.ts";
import { iscsiTargets } from "./services/iscsi_target.ts";
import { nvmetAccess } from "./services/nvmet_access.ts";
import { nvmetNamespaces } from "./services/nvmet_namespace.ts";
import { nvmetSubsystems } from "./services/nvmet_subsys.ts";
import { REPLICATION_QUERY, replications } from "./services/replication.ts";
import type { Handler, Methods } from "./services/service.ts";
import { snapshots } from "./services/snapshot.ts";
import { system } from "./services/system.ts";
import { zfsResources } from "./services/zfs_resource.ts";

const HANDLERS: Methods = {
  ...auth,
  ...core,
  ...datasets,
  ...iscsiAccess,
  ...iscsiExtents,
  ...iscsiTargets,
  ...nvmetAccess,
  ...nvmetNamespaces,
  ...nvmetSubsystems,
  ...replications,
  ...snapshots,
  ...system,
  ...zfsResources,
};

const TEXT = { type: "string" } as const;
const DATASET_READERS = ["DATASET_READ", "DATASET_WRITE", "READONLY_ADMIN", "SHARING_ADMIN"];
const NVMET_READERS = [
  "SHARING_NVME_TARGET_READ",
  "SHARING_NVME_TARGET_WRITE",
  "SHARING_READ",
  "SHARING_WRITE",
  "SHARING_ADMIN",
  "READONLY_ADMIN",
];

/** Methods that the real server has and the published models leave out. */
const UNPUBLISHED: readonly (MethodModel & { since?: number; until?: number })[] = [
  {
    method: "auth.login",
    params: [TEXT, TEXT],
    names: ["username", "password"],
    min: 2,
    open: true,
  },
  {
    method: "pool.dataset.compression_choices",
    params: [],
    names: [],
    min: 0,
    granted: DATASET_READERS,
  },
  {
    method: "pool.dataset.attachments",
    params: [TEXT],
    names: ["id"],
    min: 1,
    granted: DATASET_READERS,
    until: 2504,
  },
  REPLICATION_QUERY,
  ...["nvmet.host.dhchap_dhgroup_choices", "nvmet.host.dhchap_hash_choices"].map((method) => ({
    method,
    params: [],
    names: [],
    min: 0,
    granted: NVMET_READERS,
    since: 2510,
  })),
];

/** A method as one caller finds it. */
export interface Method {
  readonly model: MethodModel;
  readonly table: ModelTable;
  readonly handler: Handler;
  /** Only for a full administrator, and not for long. */
  readonly internal: boolean;
}

/** The model of a method that has gone from the public API but still answers. */
function internalModel(
  name: string,
  release: Release,
): { model: MethodModel; table: ModelTable } | undefined {
  if (release.major === 2510 && name.startsWith("zfs.snapshot.")) {
    const table = modelTable("v25_10_0");
    const model = table.methods.get(name.replace("zfs.snapshot.", "pool.snapshot."));
    return model && { model: { ...model, method: name }, table };
  }
  if (release.major >= 2600 && /^service\.(start|stop|restart|reload)$/.test(name)) {
    const table = modelTable("v25_10_0");
    const model = table.methods.get(name);
    return model && { model, table };
  }
  return undefined;
}

/**
 * Finds a method of a release, with the models of the dialect asked for.
 *
 * @throws RpcError -32601 when there is none; CallError 201 when the dialect has no models for it.
 */
export function findMethod(name: string, release: Release, dialect: Dialect): Method {
  const handler = HANDLERS[name];
  const newest = modelTable(release.dialect);
  const unpublished = UNPUBLISHED.find((model) =>
    model.method === name && release.major >= (model.since ?? 0) &&
    release.major <= (model.until ?? Infinity)
  );
  if (unpublished !== undefined && handler !== undefined) {
    return { model: unpublished, table: newest, handler, internal: false };
  }
  const newestModel = newest.methods.get(name);
  if (newestModel === undefined) {
    const internal = internalModel(name, release);
    if (internal !== undefined && handler !== undefined) {
      return { ...internal, handler, internal: true };
    }
    throw new RpcError(-32601, "Method does not exist");
  }
  const table = modelTable(dialect);
  const model = table.methods.get(name);
  const old = dialect !== release.dialect;
  // 25.04 itself checked these with the older library, so its dialects carry no models for them.
  if (model === undefined || (old && model.legacy)) throw missingModel(name);
  if (handler === undefined) {
    throw new CallError(`The simulator does not play '${name}'`, 201);
  }
  // Rights and jobs are those of the running release.
  return {
    model: { ...newestModel, params: model.params, names: model.names, min: model.min },
    table,
    handler,
    internal: false,
  };
}

function missingModel(name: string): CallError {
  const dot = name.lastIndexOf(".");
  return new CallError(`Method '${name.slice(dot + 1)}' not found in '${name.slice(0, dot)}'`, 201);
}

/** What `core.bulk` says of a method that is not there. */
export function bulkMissing(name: string, release: Release): CallError {
  const dot = name.lastIndexOf(".");
  const service = name.slice(0, dot);
  const known = [...modelTable(release.dialect).methods.keys()].some((other) =>
    other.startsWith(`${service}.`)
  );
  return known ? missingModel(name) : new CallError(`Service '${service}' not found`, 201);
}

/** Fields that newer releases added to results; older dialects do not know them. */
const ADDED: readonly { prefix: string; fields: readonly string[]; before: number }[] = [
  { prefix: "iscsi.extent.", fields: ["product_id"], before: 2510 },
  { prefix: "iscsi.extent.", fields: ["dataset", "relative_path"], before: 2600 },
  { prefix: "iscsi.global.", fields: ["direct_config", "mode"], before: 2600 },
  { prefix: "nvmet.namespace.", fields: ["dataset", "relative_path"], before: 2600 },
  { prefix: "nvmet.host.", fields: ["description"], before: 2600 },
  { prefix: "auth.login_ex", fields: ["reconnect_token"], before: 2600 },
  { prefix: "pool.query", fields: ["all_sed"], before: 2600 },
  { prefix: "pool.get_instance", fields: ["all_sed"], before: 2600 },
  { prefix: "system.general.", fields: ["ui_certificate_name"], before: 2600 },
  { prefix: "zfs.resource.query", fields: ["tier"], before: 2600 },
];

const AGES: Record<Dialect, number> = { v25_04_2: 2504, v25_10_0: 2510, v26_0_0: 2600 };

/** The result as an older dialect shows it. */
export function inDialect(method: string, result: Json, dialect: Dialect): Json {
  const drop = ADDED.filter((entry) =>
    method.startsWith(entry.prefix) && AGES[dialect] < entry.before
  )
    .flatMap((entry) => entry.fields);
  if (drop.length === 0 || typeof result !== "object" || result === null) return result;
  const bare = (value: Json): Json => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).filter(([key]) => !drop.includes(key)));
  };
  return Array.isArray(result) ? result.map(bare) : bare(result);
}
