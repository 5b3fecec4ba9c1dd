/** Methods that are functions of the request alone: no file, no network. */
import * as v from "valibot";
import { parseVolumeName } from "../volume_name.ts";
import { identityOf } from "./attributes.ts";
import { parseArgs, someSnapshot, volname } from "./method.ts";

const pathArgs = v.object({ volname, snapshot: someSnapshot });

/** Answers from the storage's id, the request's arguments, and its section as PVE parsed it. */
export type PureMethod = (
  storage: string,
  args: unknown,
  config: Readonly<Record<string, unknown>>,
) => unknown;

export const PURE_METHODS: Readonly<Record<string, PureMethod>> = {
  get_identity: (_storage, _args, config) => identityOf(config),
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
