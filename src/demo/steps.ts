/** The life of a disk as the demo shows it: what PVE asks, in order, and what must come of it. */

/** What a step may look at when it builds its request or judges the answer. */
export interface DemoState {
  /** Volume names by the label that the step gave them. */
  readonly volumes: Map<string, string>;
  /** The token of the last free. */
  token: string;
}

/** A disk of this node: a volume by its label, or one of its snapshots. */
export interface DemoDisk {
  readonly volume: string;
  readonly snapshot?: string;
}

/** One step. */
export interface DemoStep {
  /** In words, as an administrator would say it. */
  readonly title: string;
  /** A method of the hook, or an action of the demo itself on the disk. */
  readonly does:
    | {
      readonly kind: "hook";
      readonly method: string;
      readonly args: (state: DemoState) => Record<string, unknown>;
    }
    | ({ readonly kind: "write" | "compare"; readonly data: string } & DemoDisk)
    | ({ readonly kind: "gone" } & DemoDisk)
    | { readonly kind: "nothing-left" };
  /** What must hold of a hook's result; text says what is wrong. */
  readonly expect?: (result: unknown, state: DemoState) => string | undefined;
  /** The error code that the hook must answer with. */
  readonly refused?: string;
}

const hook = (method: string, args: (state: DemoState) => Record<string, unknown> = () => ({})) =>
  ({ kind: "hook", method, args }) as const;

const volume = (label: string) => (state: DemoState) => ({
  volname: state.volumes.get(label) ?? "",
});

const before = (label: string) => (state: DemoState) => ({
  ...volume(label)(state),
  snapshot: "before",
});

const write = (volume: string, data: string) => ({ kind: "write", volume, data }) as const;
const compare = (volume: string, data: string) => ({ kind: "compare", volume, data }) as const;

const GiB = 1024 ** 3;

/** The steps, the same for both transports. */
export const STEPS: readonly DemoStep[] = [
  { title: "Check the new storage before it is added", does: hook("validate_storage") },
  { title: "Connect this node to the portals", does: hook("activate_storage") },
  {
    title: "How much space is there?",
    does: hook("status"),
    expect: (result) =>
      (result as { active?: number }).active === 1 ? undefined : "the storage is not active",
  },
  {
    title: "Make a disk of 1 GiB for guest 100",
    does: hook(
      "alloc_image",
      () => ({ vmid: 100, format: "raw", name: null, sizeKiB: 1024 * 1024 }),
    ),
    expect: remember("disk"),
  },
  {
    title: "Make the EFI disk of guest 100: exactly 528 KiB",
    does: hook("alloc_image", () => ({ vmid: 100, format: "raw", name: null, sizeKiB: 528 })),
    expect: remember("efi"),
  },
  {
    title: "List the disks of guest 100",
    does: hook("list_images", () => ({ vmid: 100 })),
    expect: (result) => {
      const sizes = (result as { size: number }[]).map((row) => row.size).sort((a, b) => a - b);
      return JSON.stringify(sizes) === JSON.stringify([528 * 1024, GiB])
        ? undefined
        : `the sizes are ${sizes.join(", ")}`;
    },
  },
  { title: "Attach the disk to this node", does: hook("activate_volume", volume("disk")) },
  { title: "The guest writes 8 MiB of random data", does: write("disk", "first") },
  {
    title: "Attach it again: nothing is to be done",
    does: hook("activate_volume", volume("disk")),
  },
  {
    title: "A configuration that means an older disk of that name is refused",
    does: hook("activate_volume", (state) => ({ volname: stale(state.volumes.get("disk") ?? "") })),
    refused: "volume-replaced",
  },
  { title: "The guest stops: let go of the disk", does: hook("deactivate_volume", volume("disk")) },
  { title: "Its path is gone", does: { kind: "gone", volume: "disk" } },
  { title: "Attach it once more", does: hook("activate_volume", volume("disk")) },
  { title: "Every byte is still there", does: compare("disk", "first") },
  { title: "Take a snapshot of the running guest", does: hook("volume_snapshot", before("disk")) },
  { title: "The guest overwrites its data", does: write("disk", "second") },
  {
    title: "A backup reads the snapshot: a disk of its own",
    does: hook("activate_volume", before("disk")),
  },
  {
    title: "The snapshot has the old data",
    does: { kind: "compare", volume: "disk", snapshot: "before", data: "first" },
  },
  { title: "The disk has the new data", does: compare("disk", "second") },
  { title: "The backup is done", does: hook("deactivate_volume", before("disk")) },
  {
    title: "The snapshot's path is gone",
    does: { kind: "gone", volume: "disk", snapshot: "before" },
  },
  {
    title: "Grow the disk to 2 GiB",
    does: hook(
      "volume_resize",
      (state) => ({ ...volume("disk")(state), size: 2 * GiB, running: 1 }),
    ),
  },
  {
    title: "It has 2 GiB",
    does: hook("volume_size_info", volume("disk")),
    expect: (result) =>
      (result as { size: number }).size === 2 * GiB ? undefined : "it has another size",
  },
  {
    title: "May it be rolled back?",
    does: hook("volume_rollback_is_possible", before("disk")),
    expect: (result) => (result as { possible: boolean }).possible ? undefined : "no",
  },
  { title: "Roll it back", does: hook("volume_snapshot_rollback", before("disk")) },
  { title: "The old data is back", does: compare("disk", "first") },
  { title: "Delete the snapshot", does: hook("volume_snapshot_delete", before("disk")) },
  { title: "Let go of the disk", does: hook("deactivate_volume", volume("disk")) },
  {
    title: "Make a template of it",
    does: hook("create_base", volume("disk")),
    expect: remember("base"),
  },
  {
    title: "Make a linked clone for guest 101",
    does: hook("clone_image", (state) => ({ ...volume("base")(state), vmid: 101 })),
    expect: remember("clone"),
  },
  { title: "Attach the clone", does: hook("activate_volume", volume("clone")) },
  { title: "It begins with the template's data", does: compare("clone", "first") },
  { title: "Guest 101 writes to it", does: write("clone", "third") },
  { title: "Guest 101 stops", does: hook("deactivate_volume", volume("clone")) },
  {
    title: "The template cannot be deleted while there is a clone",
    does: hook("free_image", (state) => ({ ...volume("base")(state), isBase: 1 })),
    refused: "has-dependents",
  },
  {
    title: "Give the clone to guest 102",
    does: hook("rename_volume", (state) => ({ ...volume("clone")(state), targetVmid: 102 })),
    expect: remember("clone"),
  },
  { title: "Attach it under its new name", does: hook("activate_volume", volume("clone")) },
  { title: "Its data came along", does: compare("clone", "third") },
  { title: "Guest 102 stops", does: hook("deactivate_volume", volume("clone")) },
  {
    title: "Delete the clone: checks, and this node lets go",
    does: hook("free_image", (state) => ({ ...volume("clone")(state), isBase: 0 })),
    expect: (result, state) => {
      state.token = (result as { token?: string } | null)?.token ?? "";
      return state.token === "" ? "there is no token" : undefined;
    },
  },
  {
    title: "The worker removes it from the array",
    does: hook("free_image_finish", (state) => ({ token: state.token })),
  },
  {
    title: "Deleting what is gone is fine",
    does: hook("free_image", (state) => ({ ...volume("clone")(state), isBase: 0, finish: true })),
  },
  {
    title: "Delete the template, in one go",
    does: hook("free_image", (state) => ({ ...volume("base")(state), isBase: 1, finish: true })),
  },
  {
    title: "Delete the EFI disk, in one go",
    does: hook("free_image", (state) => ({ ...volume("efi")(state), isBase: 0, finish: true })),
  },
  {
    title: "No disk of any guest is left",
    does: hook("list_images"),
    expect: (result) => (result as unknown[]).length === 0 ? undefined : "there is one",
  },
  { title: "Nothing is left on the array or below /dev/tnblock", does: { kind: "nothing-left" } },
];

function remember(label: string) {
  return (result: unknown, state: DemoState): string | undefined => {
    if (typeof result !== "string") return "there is no volume name";
    state.volumes.set(label, result);
    return undefined;
  };
}

/** The same volume with another LUN or uuid. */
function stale(volname: string): string {
  const lun = /^(.*-lun)(\d+)$/.exec(volname);
  if (lun !== null) return `${lun[1]}${(Number(lun[2]) + 1) % 256}`;
  return volname.replace(/[0-9a-f]{12}$/, "000000000000");
}
