/** The methods of the hook: arguments checked, the verb run, its result in the protocol's words. */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { activate } from "../volumes/activate.ts";
import { activateStorage } from "../volumes/activate_storage.ts";
import { allocate } from "../volumes/allocate.ts";
import { checkConnection } from "../volumes/check_connection.ts";
import { deactivate } from "../volumes/deactivate.ts";
import { finishFree, prepareFree } from "../volumes/free.ts";
import { listVolumes } from "../volumes/list.ts";
import { sizeInfo } from "../volumes/size_info.ts";
import { storageStatus } from "../volumes/status.ts";
import type { Storage } from "../volumes/storage.ts";
import { validateStorage } from "../volumes/validate.ts";
import { formatVolumeName, isCloudInit, ownerOf, parseVolumeName } from "./volume_name.ts";

/** A result that is worth nothing unless the caller hears of it, with what takes it back. */
export class Revocable {
  constructor(
    readonly result: unknown,
    readonly takeBack: (storage: Storage) => Promise<void>,
  ) {}
}

/** Does one method's work; gives the result, or a {@link Revocable} one. */
export type Method = (
  storage: Storage,
  args: Readonly<Record<string, unknown>>,
) => Promise<unknown>;

const vmid = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^[0-9]{1,9}$/), v.transform(Number))]),
  v.integer(),
  v.minValue(1),
  v.maxValue(999_999_999),
);
const amount = v.pipe(
  v.union([v.number(), v.pipe(v.string(), v.regex(/^[0-9]+(\.[0-9]+)?$/), v.transform(Number))]),
  v.finite(),
);
/** Perl has no booleans: 0, 1, "", "0", "1" and JSON's own all occur. */
const flag = v.pipe(
  v.nullish(v.union([v.boolean(), v.number(), v.string()]), false),
  v.transform((value) => value !== false && value !== 0 && value !== "" && value !== "0"),
);
const volname = v.pipe(v.string(), v.minLength(1), v.maxLength(300));

const SCHEMAS = {
  volume: v.object({ volname }),
  activate: v.object({ volname, snapshot: v.nullish(v.string()) }),
  alloc: v.object({
    vmid,
    format: v.nullish(v.string()),
    name: v.nullish(v.string()),
    sizeKiB: amount,
  }),
  list: v.object({ vmid: v.nullish(vmid), volids: v.nullish(v.array(v.string())) }),
  free: v.object({ volname, isBase: flag, finish: flag }),
  token: v.object({ token: v.pipe(v.string(), v.maxLength(4096)) }),
};

function parse<S extends v.GenericSchema<unknown, unknown>>(
  schema: S,
  args: unknown,
): v.InferOutput<S> {
  const result = v.safeParse(schema, args);
  if (result.success) return result.output;
  const field = v.getDotPath(result.issues[0]) ?? "args";
  throw new TnblockError(
    "invalid",
    `Cannot read the request: args.${field} is missing or malformed`,
    {
      field: `args.${field}`,
    },
  );
}

function noSnapshot(snapshot: string | null | undefined): void {
  if (snapshot === null || snapshot === undefined || snapshot === "") return;
  throw new TnblockError(
    "unsupported",
    `Cannot use the snapshot "${snapshot}": reading snapshots is not part of this version`,
  );
}

async function allocImage(storage: Storage, args: unknown): Promise<string | Revocable> {
  const { vmid, format, name, sizeKiB } = parse(SCHEMAS.alloc, args);
  if (format !== null && format !== undefined && format !== "raw") {
    throw new TnblockError(
      "unsupported",
      `Cannot make a volume of format "${format}": there is only raw`,
    );
  }
  const wanted = name === null || name === "" ? undefined : name;
  if (wanted !== undefined && ownerOf(wanted) !== vmid) {
    throw new TnblockError(
      "invalid",
      `Cannot make the volume "${wanted.slice(0, 100)}": it is no volume name of guest ${vmid}`,
      { field: "args.name" },
    );
  }
  const made = await allocate(storage, {
    sizeKiB,
    repeatable: wanted !== undefined && isCloudInit(wanted),
    ...(wanted === undefined ? { prefix: `vm-${vmid}-disk-` } : { name: wanted }),
  });
  const volname = formatVolumeName(
    isCloudInit(made.zvol) ? { zvol: made.zvol, tag: undefined } : made,
  );
  if (!made.isNew) return volname;
  return new Revocable(volname, async (storage) => {
    const token = await prepareFree(storage, made);
    if (token !== undefined) await finishFree(storage, token);
  });
}

async function listImages(storage: Storage, args: unknown): Promise<unknown[]> {
  const wanted = parse(SCHEMAS.list, args);
  const volids = wanted.volids === null || wanted.volids === undefined
    ? undefined
    : new Set(wanted.volids);
  const rows: unknown[] = [];
  for (const volume of await listVolumes(storage)) {
    const owner = ownerOf(volume.zvol);
    if (owner === undefined) continue;
    const own = isCloudInit(volume.zvol) ? { zvol: volume.zvol, tag: undefined } : volume;
    const plain = `${storage.settings.id}:${formatVolumeName(own)}`;
    const volid = `${storage.settings.id}:${formatVolumeName(own, volume.base)}`;
    if (
      volids !== undefined
        ? !volids.has(volid) && !volids.has(plain)
        : wanted.vmid && owner !== wanted.vmid
    ) continue;
    rows.push({
      volid,
      size: volume.size,
      format: "raw",
      vmid: owner,
      ctime: volume.created,
      ...(volume.base === undefined ? {} : { parent: formatVolumeName(volume.base) }),
    });
  }
  return rows;
}

async function freeImage(storage: Storage, args: unknown): Promise<unknown> {
  const { volname, finish } = parse(SCHEMAS.free, args);
  const token = await prepareFree(storage, parseVolumeName(volname));
  if (!finish || token === undefined) return token === undefined ? null : { token };
  await finishFree(storage, token);
  return null;
}

async function volumeSizeInfo(storage: Storage, args: unknown): Promise<unknown> {
  const name = parseVolumeName(parse(SCHEMAS.volume, args).volname);
  const info = await sizeInfo(storage, name);
  return {
    size: info.size,
    format: "raw",
    used: info.used,
    parent: name.base === undefined ? null : formatVolumeName(name.base),
    ctime: info.created,
  };
}

/** Methods that need a storage. */
export const METHODS: Readonly<Record<string, Method>> = {
  check_connection: (storage) => checkConnection(storage),
  activate_storage: (storage) => activateStorage(storage),
  // Sessions and controllers are shared by all volumes and by other storages: they stay.
  deactivate_storage: () => Promise.resolve(null),
  validate_storage: (storage) => validateStorage(storage),
  status: (storage) => storageStatus(storage),
  list_images: listImages,
  alloc_image: allocImage,
  free_image: freeImage,
  free_image_finish: (storage, args) => finishFree(storage, parse(SCHEMAS.token, args).token),
  volume_size_info: volumeSizeInfo,
  activate_volume: (storage, args) => {
    const { volname, snapshot } = parse(SCHEMAS.activate, args);
    noSnapshot(snapshot);
    return activate(storage, parseVolumeName(volname));
  },
  deactivate_volume: (storage, args) => {
    const { volname, snapshot } = parse(SCHEMAS.activate, args);
    noSnapshot(snapshot);
    return deactivate(storage, parseVolumeName(volname));
  },
};

/** Methods that are functions of the request alone: no file, no network. */
export const PURE_METHODS: Readonly<Record<string, (storage: string, args: unknown) => unknown>> = {
  path: (storage, args) => {
    const { volname, snapshot } = parse(SCHEMAS.activate, args);
    const name = parseVolumeName(volname);
    const suffix = snapshot === null || snapshot === undefined || snapshot === ""
      ? ""
      : `@${snapshot}`;
    if (!/^(@[A-Za-z0-9_.:-]{1,100})?$/.test(suffix)) {
      throw new TnblockError("invalid", "Cannot make a path: the snapshot's name is malformed", {
        field: "args.snapshot",
      });
    }
    return {
      path: `/dev/tnblock/${storage}/${name.zvol}${suffix}`,
      vmid: name.vmid,
      vtype: "images",
    };
  },
};
