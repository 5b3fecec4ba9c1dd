/** Methods that make, list and remove volumes. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { allocate } from "../../volumes/allocate.ts";
import { finishFree, prepareFree } from "../../volumes/free.ts";
import { listVolumes } from "../../volumes/list.ts";
import { sizeInfo } from "../../volumes/size_info.ts";
import type { Storage } from "../../volumes/storage.ts";
import { formatVolumeName, isCloudInit, ownerOf, parseVolumeName } from "../volume_name.ts";
import { RawJson } from "../request.ts";
import { ImageRows } from "./image_rows.ts";
import { flag, type Method, parseArgs, Revocable, vmid, volname } from "./method.ts";

const SCHEMAS = {
  volume: v.object({ volname }),
  alloc: v.object({
    vmid,
    format: v.nullish(v.string()),
    name: v.nullish(v.string()),
    // May be fractional: PVE divides bytes by 1,024.
    sizeKiB: v.pipe(v.number(), v.finite(), v.gtValue(0)),
  }),
  list: v.object({ vmid: v.nullish(vmid), volids: v.nullish(v.array(v.string())) }),
  free: v.object({ volname, isBase: flag, finish: flag }),
  token: v.object({ token: v.pipe(v.string(), v.maxLength(4096)) }),
};

async function allocImage(storage: Storage, args: unknown): Promise<string | Revocable> {
  const { vmid, format, name, sizeKiB } = parseArgs(SCHEMAS.alloc, args);
  if (format !== null && format !== undefined && format !== "raw") {
    throw new TnblockError(
      "unsupported",
      `Cannot make a volume of format "${format}": there is only raw`,
    );
  }
  const wanted = name === null || name === "" ? undefined : name;
  if (wanted !== undefined) requireNewName(wanted, vmid);
  const made = await allocate(storage, {
    sizeKiB,
    repeatable: wanted !== undefined && isCloudInit(wanted),
    ...(wanted === undefined ? { prefix: `vm-${vmid}-disk-` } : { name: wanted }),
  });
  const volname = formatVolumeName(
    isCloudInit(made.zvol) ? { zvol: made.zvol, tag: undefined } : made,
  );
  // What is asked for again by its name may be in somebody's hands by then, and is found by whoever asks next.
  if (!made.isNew || isCloudInit(made.zvol)) return volname;
  return new Revocable(volname, async ({ within }) => {
    const token = await prepareFree(within, made);
    if (token !== undefined) await finishFree(within, token);
  });
}

/** PVE itself makes nothing but `vm-<vmid>-...`: a base is made of a disk, with the snapshot for its clones. */
function requireNewName(name: string, vmid: number): void {
  if (ownerOf(name) === vmid && !name.startsWith("base-")) return;
  const reason = ownerOf(name) === vmid
    ? "a base is made of a disk, not allocated"
    : `it is no volume name of guest ${vmid}`;
  throw new TnblockError(
    "invalid",
    `Cannot make the volume "${name.slice(0, 100)}": ${reason}`,
    { field: "args.name" },
  );
}

async function listImages(storage: Storage, args: unknown): Promise<RawJson> {
  const wanted = parseArgs(SCHEMAS.list, args);
  const rows = ImageRows.of(storage.settings.id, await listVolumes(storage));
  return new RawJson(rows.json({
    vmid: wanted.vmid ?? undefined,
    volids: wanted.volids === null || wanted.volids === undefined
      ? undefined
      : new Set(wanted.volids),
  }));
}

async function freeImage(storage: Storage, args: unknown): Promise<unknown> {
  const { volname, finish } = parseArgs(SCHEMAS.free, args);
  const token = await prepareFree(storage, parseVolumeName(volname), !finish);
  if (!finish || token === undefined) return token === undefined ? null : { token };
  await finishFree(storage, token);
  return null;
}

async function volumeSizeInfo(storage: Storage, args: unknown): Promise<unknown> {
  const name = parseVolumeName(parseArgs(SCHEMAS.volume, args).volname);
  const info = await sizeInfo(storage, name);
  return {
    size: info.size,
    format: "raw",
    used: info.used,
    parent: name.base === undefined ? null : formatVolumeName(name.base),
    ctime: info.created,
  };
}

export const VOLUME_METHODS: Readonly<Record<string, Method>> = {
  list_images: listImages,
  alloc_image: allocImage,
  free_image: freeImage,
  free_image_finish: (storage, args) => finishFree(storage, parseArgs(SCHEMAS.token, args).token),
  volume_size_info: volumeSizeInfo,
};
