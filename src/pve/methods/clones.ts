/** Methods that make volumes of volumes: linked clones, templates, new names. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { cloneVolume } from "../../volumes/clone.ts";
import { createBase, takeBackBase } from "../../volumes/create_base.ts";
import { finishFree, prepareFree } from "../../volumes/free.ts";
import { type NewName, renameVolume, takeBackRename } from "../../volumes/rename.ts";
import type { Storage } from "../../volumes/storage.ts";
import {
  formatVolumeName,
  isCloudInit,
  ownerOf,
  parseVolumeName,
  type VolumeName,
} from "../volume_name.ts";
import { type Method, parseArgs, Revocable, someSnapshot, vmid, volname } from "./method.ts";

const SCHEMAS = {
  clone: v.object({ volname, vmid, snapshot: someSnapshot }),
  volume: v.object({ volname }),
  // Without a guest's number PVE puts another part of the parsed name there: it is no number then.
  rename: v.object({
    volname,
    targetVmid: v.optional(v.unknown()),
    targetName: v.nullish(v.string()),
  }),
};

async function cloneImage(storage: Storage, args: unknown): Promise<Revocable> {
  const { volname, vmid, snapshot } = parseArgs(SCHEMAS.clone, args);
  const source = parseVolumeName(volname);
  const made = await cloneVolume(storage, source, { snapshot, prefix: `vm-${vmid}-disk-` });
  const name = formatVolumeName(made, made.isOfBase ? source : undefined);
  return new Revocable(name, async ({ within }) => {
    const token = await prepareFree(within, made);
    if (token !== undefined) await finishFree(within, token);
  });
}

async function createBaseOf(storage: Storage, args: unknown): Promise<string | Revocable> {
  const source = parseVolumeName(parseArgs(SCHEMAS.volume, args).volname);
  if (isCloudInit(source.zvol)) {
    throw new TnblockError(
      "unsupported",
      `Cannot make a base of the volume "${source.zvol}": each guest has a cloud-init volume of its own`,
    );
  }
  const made = await createBase(storage, source, source.zvol.replace(/^vm-/, "base-"));
  const name = formatVolumeName(made, source.base);
  const { change } = made;
  return change === undefined
    ? name
    : new Revocable(name, ({ storage }) => takeBackBase(storage, { ...made, change }));
}

async function renameVolumeOf(storage: Storage, args: unknown): Promise<string | Revocable> {
  const { volname, targetVmid, targetName } = parseArgs(SCHEMAS.rename, args);
  const source = parseVolumeName(volname);
  const made = await renameVolume(storage, source, newName(source, targetVmid, targetName));
  const isPlain = isCloudInit(made.zvol);
  const name = formatVolumeName(
    isPlain ? { zvol: made.zvol, tag: undefined } : made,
    source.base,
  );
  const { change } = made;
  return change === undefined
    ? name
    : new Revocable(name, ({ storage }) => takeBackRename(storage, { ...made, change }));
}

/** The name that PVE asks for: whole, or by the guest that is to own the volume. */
function newName(
  source: VolumeName,
  targetVmid: unknown,
  targetName: string | null | undefined,
): NewName {
  const guest = v.safeParse(vmid, targetVmid);
  const kind = source.isBase ? "base" : "vm";
  if (targetName === undefined || targetName === null || targetName === "") {
    if (!guest.success) {
      throw new TnblockError(
        "invalid",
        "Cannot read the request: args.targetVmid is missing or malformed",
        { field: "args.targetVmid" },
      );
    }
    // A disk's name for whatever it was, as PVE's find_free_diskname has it: a state or fleecing image given
    // to another guest is a disk of it. Cloud-init is known by its name alone.
    return isCloudInit(source.zvol)
      ? { name: `vm-${guest.output}-cloudinit` }
      : { prefix: `${kind}-${guest.output}-disk-` };
  }
  const owner = ownerOf(targetName);
  const isOwners = owner !== undefined && (!guest.success || guest.output === owner);
  const isSameKind = targetName.startsWith(`${kind}-`) &&
    isCloudInit(targetName) === isCloudInit(source.zvol);
  if (!isOwners || !isSameKind) {
    throw new TnblockError(
      "invalid",
      `Cannot rename the volume "${source.zvol}" to "${
        targetName.slice(0, 100)
      }": it is no name of a ${
        source.isBase ? "base" : isCloudInit(source.zvol) ? "cloud-init volume" : "disk"
      }${guest.success ? ` of guest ${guest.output}` : ""}`,
      { field: "args.targetName" },
    );
  }
  return { name: targetName };
}

export const CLONE_METHODS: Readonly<Record<string, Method>> = {
  clone_image: cloneImage,
  create_base: createBaseOf,
  rename_volume: renameVolumeOf,
};
