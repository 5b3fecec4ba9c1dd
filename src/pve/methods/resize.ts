/** Growing a volume. */
import * as v from "valibot";
import { resize } from "../../volumes/resize.ts";
import { parseVolumeName } from "../volume_name.ts";
import { flag, type Method, parseArgs, volname } from "./method.ts";

/** Bytes. */
const size = v.pipe(v.number(), v.safeInteger(), v.minValue(1));
const growing = v.object({ volname, size, running: flag });

export const RESIZE_METHODS: Readonly<Record<string, Method>> = {
  volume_resize: (storage, args) => {
    const { volname, size, running } = parseArgs(growing, args);
    return resize(storage, parseVolumeName(volname), size, running);
  },
};
