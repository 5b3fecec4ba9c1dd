/** All methods of the hook by their name in the protocol (design section 4). */
import { ATTACHING_METHODS } from "./attaching.ts";
import { ATTRIBUTE_METHODS } from "./attributes.ts";
import { CLONE_METHODS } from "./clones.ts";
import type { Method } from "./method.ts";
import { RESIZE_METHODS } from "./resize.ts";
import { SNAPSHOT_METHODS } from "./snapshots.ts";
import { STORAGE_METHODS } from "./storage.ts";
import { TRANSFER_METHODS } from "./transfer.ts";
import { VOLUME_METHODS } from "./volumes.ts";

/** Methods that need a storage. */
export const METHODS: Readonly<Record<string, Method>> = {
  ...STORAGE_METHODS,
  ...VOLUME_METHODS,
  ...ATTACHING_METHODS,
  ...SNAPSHOT_METHODS,
  ...CLONE_METHODS,
  ...RESIZE_METHODS,
  ...ATTRIBUTE_METHODS,
  ...TRANSFER_METHODS,
};
