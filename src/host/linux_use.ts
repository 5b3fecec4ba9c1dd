/** Part of linux.ts: who has a device open. */
import { constants, readdirSync, readFileSync, readlinkSync, type Stats, statSync } from "node:fs";
import { open, readdir, readFile, readlink, stat } from "node:fs/promises";
import type { Host } from "./host.ts";
import { codeOf, hostError, isAbsence } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** udev looks at every new disk for some tenths of a second; that is no use of it. */
const UDEV_WORKERS = new Set(["(udev-worker)", "systemd-udevd"]);

/** Failures of ours, not of the device: they say nothing about it, and must not pass for an answer. */
const OURS = new Set(["EMFILE", "ENFILE", "ENOMEM", "EACCES", "EPERM"]);

/** The two halves of `Host` that look for users of a device. */
export function linuxUse(root: Root): Pick<Host, "probeExclusive" | "holders"> {
  return {
    async probeExclusive(path) {
      // A plain file cannot be claimed: there the flag means nothing.
      if (root.isFolder) return "unknown";
      try {
        const handle = await open(path, constants.O_RDONLY | constants.O_EXCL);
        await handle.close();
        return "free";
      } catch (error) {
        const claim = claimOf(codeOf(error));
        if (claim === undefined) throw hostError(`Cannot open "${path}"`, error);
        return claim;
      }
    },

    async holders(paths) {
      const devices = new Set<string>();
      for (const path of paths) {
        try {
          devices.add(identityOf(await stat(await root.follow(path))));
        } catch (error) {
          if (!isAbsence(error)) throw hostError(`Cannot look at "${path}"`, error);
        }
      }
      if (devices.size === 0) return [];
      const proc = await root.follow("/proc");
      const found: { pid: number; name: string }[] = [];
      for (const entry of await namesIn(proc)) {
        const pid = Number(entry);
        if (!Number.isInteger(pid) || pid === process.pid) continue;
        if (!await holds(root, `${proc}/${entry}/fd`, devices)) continue;
        const name = (await readFile(`${proc}/${entry}/comm`, "utf8").catch(() => "?")).trim();
        if (!UDEV_WORKERS.has(name)) found.push({ pid, name });
      }
      return root.isFolder ? [...found, ...machineHolders(root, devices)] : found;
    },
  };
}

/** What a failed exclusive open says of the device; undefined when it says something of us. */
export function claimOf(code: string | undefined): "busy" | "unknown" | undefined {
  if (code === "EBUSY") return "busy";
  // Deno turns O_EXCL into "create anew" (EINVAL, EEXIST); a dead path says ENXIO, ENODEV, EIO …
  return code === undefined || OURS.has(code) ? undefined : "unknown";
}

/** The device behind a node, whichever node it is; below a root the file itself. */
function identityOf(stats: Stats): string {
  return stats.isBlockDevice() ? `block ${stats.rdev}` : `file ${stats.dev} ${stats.ino}`;
}

async function holds(
  root: Root,
  directory: string,
  devices: ReadonlySet<string>,
): Promise<boolean> {
  for (const entry of await namesIn(directory)) {
    const link = `${directory}/${entry}`;
    const target = await readlink(link).catch(() => "");
    if (root.isFolder ? target === "" : !target.startsWith("/dev/")) continue;
    const path = root.isFolder ? await root.follow(root.inside(link)).catch(() => link) : link;
    const open = await stat(path).catch(() => undefined);
    if (open !== undefined && devices.has(identityOf(open))) return true;
  }
  return false;
}

/**
 * Below a root: processes of this machine that have opened the played disk by its node there. They are none of
 * the folder's `/proc`, and write to the disk all the same. What has the file open by another name is the player.
 */
function machineHolders(
  root: Root,
  devices: ReadonlySet<string>,
): { pid: number; name: string }[] {
  const isUser = (fd: string) =>
    readlinkSync(fd).startsWith(`${root.directory}/dev/`) && devices.has(identityOf(statSync(fd)));
  const processes = readdirSync("/proc").filter((name) => /^\d+$/.test(name)).map(Number);
  return processes.filter((pid) => pid !== process.pid).flatMap((pid) => {
    const fds = orEmpty(() => readdirSync(`/proc/${pid}/fd`));
    const uses = fds.some((fd) =>
      orEmpty(() => isUser(`/proc/${pid}/fd/${fd}`) ? [fd] : []).length
    );
    return uses
      ? orEmpty(() => [{ pid, name: readFileSync(`/proc/${pid}/comm`, "utf8").trim() }])
      : [];
  });
}

/** Processes end while they are looked at, and others' may not be looked into. */
function orEmpty<T>(look: () => T[]): T[] {
  try {
    return look();
  } catch {
    return [];
  }
}

/** Processes come and go, and not all may be looked into. */
async function namesIn(directory: string): Promise<string[]> {
  return await readdir(directory).catch(() => []);
}
