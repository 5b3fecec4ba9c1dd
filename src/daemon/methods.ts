/**
 * What a method's request may be done with when its answer got lost: asked again, or not. The shim has the
 * same table (`%AFTERWARDS`, `%CHANGING`); a test holds the two together.
 */

/**
 * What a method is about:
 * - `reads`: it changes nothing;
 * - `attaches`: it changes the node, and the same again is no harm;
 * - `ends`: it changes the array, and the same again is no harm;
 * - `undone`, `finished`: it changes the array and may not be asked again. A caller that leaves, or a daemon
 *   that dies, has it undone or finished (design decisions 18 and 19).
 */
export type MethodKind = "reads" | "attaches" | "ends" | "undone" | "finished";

const KINDS: Readonly<Record<string, MethodKind>> = {
  check_connection: "reads",
  status: "reads",
  validate_storage: "reads",
  list_images: "reads",
  volume_size_info: "reads",
  volume_snapshot_info: "reads",
  volume_rollback_is_possible: "reads",
  get_volume_attribute: "reads",
  path: "reads",
  get_identity: "reads",

  activate_storage: "attaches",
  deactivate_storage: "attaches",
  activate_volume: "attaches",
  deactivate_volume: "attaches",
  volume_export_prepare: "attaches",
  volume_export_finish: "attaches",
  volume_export_abort: "attaches",

  // By its token, which says which disk is meant.
  free_image_finish: "ends",
  // A snapshot that is not there counts as deleted.
  volume_snapshot_delete: "ends",
  volume_import_finish: "ends",
  volume_import_abort: "ends",
  update_volume_attribute: "ends",

  alloc_image: "undone",
  clone_image: "undone",
  create_base: "undone",
  rename_volume: "undone",
  volume_import_prepare: "undone",
  volume_snapshot: "undone",

  free_image: "finished",
  volume_resize: "finished",
  volume_snapshot_rollback: "finished",
};

/** The kind of a method; one that we do not know may do anything, and is asked once. */
export function kindOf(method: string): MethodKind {
  return Object.hasOwn(KINDS, method) ? KINDS[method] ?? "finished" : "finished";
}

/** All methods that are known here. */
export const KNOWN_METHODS: readonly string[] = Object.keys(KINDS);

/** Whether the method changes something on the array. */
export function isChanging(kind: MethodKind): boolean {
  return kind !== "reads" && kind !== "attaches";
}

/** Whether the same request may be made again when its answer got lost. */
export function isRepeatable(kind: MethodKind): boolean {
  return kind !== "undone" && kind !== "finished";
}
