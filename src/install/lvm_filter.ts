/**
 * The filter that keeps the node's LVM off guests' disks. LVM scans every block device; in a guest's disk it
 * finds the guest's volume groups, activates them, and takes minutes about it.
 *
 * How LVM filters (`lib/filters/filter-regex.c`): each name of a device is held against the patterns in
 * order, and the first that matches decides for that name; one name that is accepted accepts the
 * device, else one that is rejected rejects it, else it is accepted.
 */

/**
 * Disks of TrueNAS by the names that udev gives them: NVMe by model, iSCSI by the prefix of TrueNAS's NAA
 * (truenas-api.md: `0x6589cfc000000` and 19 digits), as path, map, and partition of either.
 */
export const REJECTED = [
  "r|^/dev/disk/by-id/nvme-T[Rr][Uu][Ee]NAS|",
  "r|^/dev/disk/by-id/wwn-0x6589cfc|",
  "r|^/dev/disk/by-id/scsi-36589cfc|",
  "r|^/dev/disk/by-id/dm-uuid-mpath-36589cfc|",
  "r|^/dev/disk/by-id/dm-uuid-part[0-9]*-mpath-36589cfc|",
] as const;

/** The names that such disks have on a node. */
const SAMPLES: readonly (readonly string[])[] = [
  [
    "/dev/nvme7n1",
    "/dev/disk/by-id/nvme-TrueNAS_KVM_VM_0c3a9d52b1_1",
    "/dev/disk/by-id/nvme-uuid.8b6c7f1e-4f57-4f0e-a8a5-5a2f6a1b7f10",
  ],
  [
    "/dev/sdq",
    "/dev/disk/by-id/scsi-36589cfc0000006b5d1f3a6f0c9d2e4b7",
    "/dev/disk/by-id/wwn-0x6589cfc0000006b5d1f3a6f0c9d2e4b7",
  ],
  [
    "/dev/dm-19",
    "/dev/mapper/mpathq",
    "/dev/disk/by-id/dm-name-mpathq",
    "/dev/disk/by-id/dm-uuid-mpath-36589cfc0000006b5d1f3a6f0c9d2e4b7",
  ],
];

const BEGIN = "# BEGIN tnblock";
const END = "# END tnblock";
const BLOCK = new RegExp(`(?<=^|\\n)${BEGIN}\\b[^]*?\\n${END}[^\\n]*(?:\\n|$)`);

/** What is to be done about the filter; the text may be there already. */
export type FilterDecision =
  | { readonly kind: "write"; readonly filter: readonly string[]; readonly text: string }
  /** LVM keeps off those disks by itself. */
  | { readonly kind: "already"; readonly why: string }
  | { readonly kind: "impossible"; readonly why: string };

/**
 * Decides about the filter.
 *
 * @param base the filter without our own part, as lvmconfig prints it; undefined when there is none.
 * @param local the text of lvmlocal.conf; undefined when there is no such file.
 * @param own names below /dev/disk/by-id of TrueNAS disks that are the node's own physical volumes.
 */
export function decideFilter(
  base: readonly string[] | undefined,
  local: string | undefined,
  own: readonly string[],
): FilterDecision {
  const before = base ?? [];
  const odd = before.find((pattern) => parsePattern(pattern) === undefined);
  if (odd !== undefined) {
    return { kind: "impossible", why: `the pattern ${odd} of LVM's filter cannot be read` };
  }
  const hasBlock = local !== undefined && BLOCK.test(local);
  if (!hasBlock && SAMPLES.every((names) => !passes(before, names))) {
    return { kind: "already", why: "LVM's filter keeps off these disks by itself" };
  }
  // What is away for now stays the node's own.
  const kept = acceptedIn(local ?? "").filter((pattern) => !before.includes(pattern));
  const accepted = [...new Set([...kept, ...own.map(acceptName)])];
  const filter = [...accepted, ...REJECTED, ...before];
  if (SAMPLES.some((names) => passes(filter, names))) {
    const culprit = before.find((pattern) => pattern.startsWith("a"));
    return {
      kind: "impossible",
      why: `the pattern ${culprit} of LVM's filter accepts every disk; change it to what is meant`,
    };
  }
  return { kind: "write", filter, text: withBlock(local ?? "", filter) };
}

/** Whether LVM would scan a device with these names. */
export function passes(filter: readonly string[], names: readonly string[]): boolean {
  const patterns = filter.map(parsePattern);
  let isRejected = false;
  for (const name of names) {
    const first = patterns.find((pattern) => pattern?.expression.test(name));
    if (first?.accepts === true) return true;
    if (first !== undefined) isRejected = true;
  }
  return !isRejected;
}

/** `text` without our part, as it was before us. */
export function withoutBlock(text: string): string {
  return text.replace(BLOCK, "");
}

/** The value in what `lvmconfig devices/global_filter` prints; undefined when there is none. */
export function parseFilter(printed: string): string[] | undefined {
  // global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]  or, with one pattern, global_filter="r|/dev/zd.*|"
  const value = /^\s*global_filter\s*=\s*([^]*)$/.exec(printed)?.[1];
  if (value === undefined) return undefined;
  return [...value.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, text = ""]) =>
    text.replace(/\\(["\\])/g, "$1")
  );
}

const CLOSING: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };

function parsePattern(pattern: string): { accepts: boolean; expression: RegExp } | undefined {
  const [kind, open] = [pattern[0], pattern[1]];
  if ((kind !== "a" && kind !== "r") || open === undefined || pattern.length < 3) return undefined;
  if (pattern.at(-1) !== (CLOSING[open] ?? open)) return undefined;
  try {
    return { accepts: kind === "a", expression: new RegExp(pattern.slice(2, -1)) };
  } catch {
    return undefined;
  }
}

function acceptName(name: string): string {
  return `a|^/dev/disk/by-id/${name.replace(/[.*+?^$()[\]{}\\]/g, "\\$&")}$|`;
}

function acceptedIn(local: string): string[] {
  const block = BLOCK.exec(local)?.[0] ?? "";
  const list = /global_filter\s*=\s*\[[^]*\]/.exec(block)?.[0] ?? "";
  return (parseFilter(list) ?? []).filter((pattern) =>
    pattern.startsWith("a|^/dev/disk/by-id/") && pattern.endsWith("$|")
  );
}

function withBlock(text: string, filter: readonly string[]): string {
  const rest = withoutBlock(text);
  const quoted = filter.map((pattern) => `        "${pattern.replace(/["\\]/g, "\\$&")}"`).join(
    ",\n",
  );
  const block =
    `${BEGIN}: keeps LVM off the disks of guests on TrueNAS; tnblock install writes this part anew
devices {
    global_filter = [
${quoted}
    ]
}
${END}
`;
  return rest === "" || rest.endsWith("\n") ? `${rest}${block}` : `${rest}\n${block}`;
}
