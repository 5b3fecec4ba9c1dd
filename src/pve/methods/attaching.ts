/** Methods that make a volume, or a snapshot of one, a block device of this node, and let it go. */
import * as v from "valibot";
import { activate } from "../../volumes/activate.ts";
import { activateReading } from "../../volumes/activate_reading.ts";
import { deactivate } from "../../volumes/deactivate.ts";
import { deactivateReading } from "../../volumes/deactivate_reading.ts";
import { parseVolumeName } from "../volume_name.ts";
import { type Method, parseArgs, someSnapshot, volname } from "./method.ts";

const attaching = v.object({ volname, snapshot: someSnapshot });

export const ATTACHING_METHODS: Readonly<Record<string, Method>> = {
  activate_volume: (storage, args) => {
    const { volname, snapshot } = parseArgs(attaching, args);
    const volume = parseVolumeName(volname);
    return snapshot === undefined
      ? activate(storage, volume)
      : activateReading(storage, volume, snapshot);
  },
  deactivate_volume: (storage, args) => {
    const { volname, snapshot } = parseArgs(attaching, args);
    const volume = parseVolumeName(volname);
    return snapshot === undefined
      ? deactivate(storage, volume)
      : deactivateReading(storage, volume, snapshot);
  },
};
