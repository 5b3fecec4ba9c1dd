/** Methods around the bytes that the shim copies: export and import of raw+size. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { linkPath } from "../../host/links.ts";
import { finishCopy, prepareExport } from "../../volumes/export_volume.ts";
import { abortImport, finishImport, prepareImport } from "../../volumes/import_volume.ts";
import type { Storage } from "../../volumes/storage.ts";
import { formatVolumeName, isCloudInit, ownerOf, parseVolumeName } from "../volume_name.ts";
import { amount, type Method, parseArgs, Revocable, vmid, volname } from "./method.ts";

const SCHEMAS = {
  volume: v.object({ volname }),
  import: v.object({ vmid, name: v.nullish(v.string()), size: v.pipe(amount, v.minValue(1)) }),
};

const nameOf = (args: unknown) => parseVolumeName(parseArgs(SCHEMAS.volume, args).volname);

async function prepareExportOf(storage: Storage, args: unknown): Promise<unknown> {
  const name = nameOf(args);
  const size = await prepareExport(storage, name);
  return { path: linkPath(storage.settings.id, name.zvol), size };
}

async function prepareImportOf(storage: Storage, args: unknown): Promise<Revocable> {
  const { vmid, name, size } = parseArgs(SCHEMAS.import, args);
  const wanted = name === null || name === "" ? undefined : name;
  if (wanted !== undefined && (ownerOf(wanted) !== vmid || wanted.startsWith("base-"))) {
    throw new TnblockError(
      "invalid",
      `Cannot import the volume "${wanted.slice(0, 100)}": it is no disk name of guest ${vmid}`,
      { field: "args.name" },
    );
  }
  const made = await prepareImport(storage, {
    size,
    ...(wanted === undefined ? { prefix: `vm-${vmid}-disk-` } : { name: wanted }),
  });
  const volname = formatVolumeName(
    isCloudInit(made.zvol) ? { zvol: made.zvol, tag: undefined } : made,
  );
  return new Revocable(
    { volname, path: linkPath(storage.settings.id, made.zvol) },
    async ({ within }) => void await abortImport(within, made),
  );
}

export const TRANSFER_METHODS: Readonly<Record<string, Method>> = {
  volume_export_prepare: prepareExportOf,
  volume_export_finish: (storage, args) => finishCopy(storage, nameOf(args)),
  // Reading leaves nothing behind: an export that failed is let go of like one that is done.
  volume_export_abort: (storage, args) => finishCopy(storage, nameOf(args)),
  volume_import_prepare: prepareImportOf,
  volume_import_finish: (storage, args) => finishImport(storage, nameOf(args)),
  volume_import_abort: (storage, args) => abortImport(storage, nameOf(args)),
};
