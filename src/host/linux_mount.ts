/**
 * Part of linux.ts: the mounts behind the links to disks. Three of them, made once a boot:
 *
 * 1. a tmpfs of links at `/run/tnblock/links`, the place that is written;
 * 2. a read-only view of it at `/dev/tnblock`, the place that is read;
 * 3. a read-only view of `/dev` at `/dev/tnblock/.dev`, which every link leads through.
 *
 * A path that is missing, or whose disk is gone, then ends on a read-only mount: O_CREAT fails there
 * with EROFS. Device nodes can still be opened for writing: the kernel asks for a writable mount for
 * files and directories only. Proven in the VM (docs/kernel-facts.md).
 */
import { mkdir, readFile } from "node:fs/promises";
import { type Host, HostError, type LinkPlace } from "./host.ts";
import { hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";
import { runProgram } from "./linux_run.ts";
import { NODE_LOCK_MS, PROGRAM_MS } from "../common/timing.ts";

const VIEW = "/dev/tnblock";
const FOLDER = "/run/tnblock/links";
const DEVICES = `${VIEW}/.dev`;

/** A link takes an inode and, when its text is long, a page: room for some 10,000 volumes. */
const TMPFS = "nosuid,nodev,noexec,mode=755,size=1m,nr_inodes=20000";

/** Where links are; below a folder there are no mounts, and the view is written itself. */
export function linuxLinkPlace(root: Root): LinkPlace {
  return root.isFolder
    ? { view: VIEW, folder: VIEW, devices: "../.." }
    : { view: VIEW, folder: FOLDER, devices: "../.dev" };
}

/** The `prepareLinks` of a node. */
export function linuxPrepareLinks(root: Root, lock: Host["lock"]): Host["prepareLinks"] {
  return async () => {
    if (root.isFolder) {
      await mkdir(await root.follow(VIEW), { recursive: true, mode: 0o755 });
      return;
    }
    const doing = `Cannot prepare "${VIEW}"`;
    try {
      if (missingMounts(await mounts()).length === 0) return;
      const release = await lock("prepare-links", { deadlineMs: NODE_LOCK_MS });
      try {
        for (const step of missingMounts(await mounts())) await makeMount(root, doing, step);
      } finally {
        release();
      }
    } catch (error) {
      throw hostError(doing, error);
    }
  };
}

async function mounts(): Promise<string> {
  return await readFile("/proc/self/mountinfo", "utf8");
}

/** A mount of ours: the directories it needs, and the runs of mount(8) that make it. */
interface MountStep {
  readonly at: string;
  readonly directories: readonly string[];
  readonly runs: readonly (readonly string[])[];
}

const STEPS: readonly MountStep[] = [
  {
    at: FOLDER,
    directories: [FOLDER],
    runs: [["-t", "tmpfs", "-o", TMPFS, "tnblock", FOLDER], ["--make-private", FOLDER]],
  },
  {
    at: VIEW,
    directories: [VIEW, `${FOLDER}/.dev`],
    runs: [["--bind", "-o", "ro", FOLDER, VIEW]],
  },
  {
    at: DEVICES,
    directories: [],
    runs: [["--bind", "-o", "ro", "--make-private", "/dev", DEVICES]],
  },
];

/** The steps whose mount is not there yet, in order; each after the first rests on the one before. */
export function missingMounts(mountinfo: string): readonly MountStep[] {
  // 36 35 98:0 / /mnt ro,noatime master:1 - ext3 /dev/root rw: the mount point is the fifth field.
  const points = new Set(mountinfo.split("\n").map((line) => line.split(" ")[4]));
  const first = STEPS.findIndex((step) => !points.has(step.at));
  return first < 0 ? [] : STEPS.slice(first);
}

async function makeMount(root: Root, doing: string, step: MountStep): Promise<void> {
  for (const directory of step.directories) {
    await mkdir(directory, { recursive: true, mode: 0o755 });
  }
  for (const args of step.runs) {
    const result = await runProgram(root, "/usr/bin/mount", args, { deadlineMs: PROGRAM_MS });
    if (result.status !== 0) throw new HostError("EIO", `${doing}: ${result.stderr.trim()}`);
  }
}
