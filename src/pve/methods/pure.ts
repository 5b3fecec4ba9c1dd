/** Methods that are functions of the request alone: no file, no network. */
import * as v from "valibot";
import { parseVolumeName } from "../volume_name.ts";
import { parseArgs, someSnapshot, volname } from "./method.ts";

const pathArgs = v.object({ volname, snapshot: someSnapshot });

export const PURE_METHODS: Readonly<Record<string, (storage: string, args: unknown) => unknown>> = {
  path: (storage, args) => {
    const { volname, snapshot } = parseArgs(pathArgs, args);
    const name = parseVolumeName(volname);
    const suffix = snapshot === undefined ? "" : `@${snapshot}`;
    return {
      path: `/dev/tnblock/${storage}/${name.zvol}${suffix}`,
      vmid: name.vmid,
      vtype: "images",
    };
  },
};
