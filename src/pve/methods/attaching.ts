/** Methods that make a volume a block device of this node, and let it go. */
import * as v from "valibot";
import { TnblockError } from "../../common/error.ts";
import { activate } from "../../volumes/activate.ts";
import { deactivate } from "../../volumes/deactivate.ts";
import { parseVolumeName } from "../volume_name.ts";
import { type Method, parseArgs, someSnapshot, volname } from "./method.ts";

const attaching = v.object({ volname, snapshot: someSnapshot });

function noSnapshot(snapshot: string | undefined): void {
  if (snapshot === undefined) return;
  throw new TnblockError(
    "unsupported",
    `Cannot use the snapshot "${snapshot}": reading snapshots is not part of this version`,
  );
}

export const ATTACHING_METHODS: Readonly<Record<string, Method>> = {
  activate_volume: (storage, args) => {
    const { volname, snapshot } = parseArgs(attaching, args);
    noSnapshot(snapshot);
    return activate(storage, parseVolumeName(volname));
  },
  deactivate_volume: (storage, args) => {
    const { volname, snapshot } = parseArgs(attaching, args);
    noSnapshot(snapshot);
    return deactivate(storage, parseVolumeName(volname));
  },
};
