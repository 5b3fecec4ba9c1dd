/** Methods that make, list and remove volumes. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { allocate } from "../../volumes/allocate.ts";
import { finishFree, prepareFree } from "../../volumes/free.ts";
import { type ListedVolume, listVolumes } from "../../volumes/list.ts";
import { sizeInfo } from "../../volumes/size_info.ts";
import type { Storage } from "../../volumes/storage.ts";
import { formatVolumeName, isCloudInit, ownerOf, parseVolumeName } from "../volume_name.ts";
import { amount, flag, type Method, parseArgs, Revocable, vmid, volname } from "./method.ts";

const SCHEMAS = {
  volume: v.object({ volname }),
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

async function allocImage(storage: Storage, args: unknown): Promise<string | Revocable> {
  const { vmid, format, name, sizeKiB } = parseArgs(SCHEMAS.alloc, args);
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
  const wanted = parseArgs(SCHEMAS.list, args);
  const volids = wanted.volids === null || wanted.volids === undefined
    ? undefined
    : new Set(wanted.volids);
  const rows: unknown[] = [];
  for (const volume of await listVolumes(storage)) {
    const owner = ownerOf(volume.zvol);
    if (owner === undefined) continue;
    const names = namesOf(volume);
    const asked = names.filter((name) => volids?.has(`${storage.settings.id}:${name}`));
    if (volids !== undefined ? asked.length === 0 : wanted.vmid && owner !== wanted.vmid) continue;
    // PVE looks for what it asked for: a cloud-init volume in the form that the configuration has.
    const name = isCloudInit(volume.zvol) ? asked[0] ?? names[0] : names[0];
    rows.push({
      volid: `${storage.settings.id}:${name}`,
      size: volume.size,
      format: "raw",
      vmid: owner,
      ctime: volume.created,
      ...(volume.base === undefined ? {} : { parent: formatVolumeName(volume.base) }),
      ...(volume.notes === "" ? {} : { notes: volume.notes }),
      ...(volume.protected ? { protected: 1 } : {}),
    });
  }
  return rows;
}

/** All names that mean a volume, the one that it is listed by first. */
function namesOf(volume: ListedVolume): string[] {
  const tagged = formatVolumeName(volume);
  if (isCloudInit(volume.zvol)) return [volume.zvol, tagged];
  return volume.base === undefined ? [tagged] : [formatVolumeName(volume, volume.base), tagged];
}

async function freeImage(storage: Storage, args: unknown): Promise<unknown> {
  const { volname, finish } = parseArgs(SCHEMAS.free, args);
  const token = await prepareFree(storage, parseVolumeName(volname));
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
