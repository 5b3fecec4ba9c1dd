/** Part of linux.ts: the node's files. */
import { constants, type Stats } from "node:fs";
import {
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  readlink,
  realpath,
  rename,
  stat,
  symlink,
  unlink,
} from "node:fs/promises";
import { posix } from "node:path";
import { type Bounds, type FileStatus, type Host, HostError, type HostFiles } from "./host.ts";
import { wait, within } from "./linux_deadline.ts";
import { hostError, isAbsence } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** Nothing that we read is larger; what is, is not what we think it is. */
const MAX_BYTES = 1 << 20;

/** Files of the node below `root`; `lock` keeps two writers of one simulated control file apart. */
export function linuxFiles(root: Root, lock: Host["lock"]): HostFiles {
  const files: HostFiles = {
    async readText(path) {
      const bytes = await files.readBytes(path);
      return bytes === undefined ? undefined : new TextDecoder().decode(bytes);
    },

    async readBytes(path) {
      return await orAbsent(`Cannot read "${path}"`, async () => {
        const real = await root.follow(path);
        // The kernel bounds an attribute to a page; one call instead of four on the hottest path.
        if (path.startsWith("/sys/")) return await readFile(real);
        const handle = await open(real, "r");
        try {
          return await readAll(handle, path);
        } finally {
          await handle.close();
        }
      });
    },

    async list(path) {
      return await orAbsent(
        `Cannot list "${path}"`,
        async () => (await readdir(await root.follow(path))).sort(),
      );
    },

    async status(path) {
      return await orAbsent(`Cannot look at "${path}"`, async () => {
        const real = await root.follow(path);
        return fileStatus(await stat(real), root.isFolder && root.inside(real).startsWith("/dev/"));
      });
    },

    async readLink(path) {
      return await orAbsent(`Cannot read the link "${path}"`, async () => {
        const real = await root.followParent(path);
        return (await lstat(real)).isSymbolicLink() ? await readlink(real) : undefined;
      });
    },

    async resolve(path) {
      return await orAbsent(`Cannot resolve "${path}"`, async () => {
        return root.inside(await realpath(await root.follow(path)));
      });
    },

    async replaceText(path, text, mode, options) {
      await named(`Cannot write "${path}"`, async () => {
        const real = await root.followParent(path);
        await mkdir(posix.dirname(real), { recursive: true });
        const temporary = temporaryName(real);
        try {
          await writeNew(temporary, text, mode);
          await rename(temporary, real);
          if (options?.durable === true) await syncFolder(posix.dirname(real));
        } catch (error) {
          await unlink(temporary).catch(() => {});
          throw error;
        }
      });
    },

    async replaceLink(path, target) {
      await named(`Cannot make the link "${path}"`, async () => {
        const real = await root.followParent(path);
        const text = root.isFolder && target.startsWith("/")
          ? posix.relative(root.inside(posix.dirname(real)), target)
          : target;
        const temporary = temporaryName(real);
        try {
          await symlink(text, temporary);
          await rename(temporary, real);
        } catch (error) {
          await unlink(temporary).catch(() => {});
          throw error;
        }
      });
    },

    async remove(path, options) {
      const removed = await orAbsent(`Cannot remove "${path}"`, async () => {
        const real = await root.followParent(path);
        await unlink(real);
        if (options?.durable === true) await syncFolder(posix.dirname(real));
        return true;
      });
      return removed ?? false;
    },

    async makeDirectory(path, mode) {
      await named(`Cannot make the directory "${path}"`, async () => {
        await mkdir(await root.follow(path), { recursive: true, mode });
      });
    },

    async writeControl(path, text, bounds) {
      const doing = `Cannot write "${text}" to "${path}"`;
      const onEnd = bounds.onEnd ?? (() => {});
      let begun = false;
      try {
        if (root.isFolder) return await writeSimulatedControl(doing, path, text, bounds);
        await within(doing, bounds, () => {
          begun = true;
          return named(doing, () => writeExisting(path, text)).finally(onEnd);
        });
      } finally {
        if (!begun) onEnd();
      }
    },
  };

  /** Below a root: "taken" means that the player has emptied or removed the file. */
  async function writeSimulatedControl(doing: string, path: string, text: string, bounds: Bounds) {
    const started = Date.now();
    const left = () => started + bounds.deadlineMs - Date.now();
    const release = await lock(`control:${path}`, bounds);
    try {
      const real = await root.follow(path);
      const before = await named(doing, () => stat(real));
      await named(doing, () => writeExisting(real, text));
      for (let pause = 1; left() > 0; pause = Math.min(pause * 2, 10)) {
        const now = await stat(real).catch(() => undefined);
        if (now === undefined || now.size === 0 || now.ino !== before.ino) return;
        await wait(Math.min(pause, left()), bounds.signal);
      }
      throw new HostError("ETIMEDOUT", `${doing}: not taken within ${bounds.deadlineMs} ms`);
    } finally {
      release();
    }
  }

  return files;
}

async function readAll(handle: FileHandle, path: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for (;;) {
    const buffer = new Uint8Array(8192);
    const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
    if (bytesRead === 0) break;
    total += bytesRead;
    if (total > MAX_BYTES) throw new HostError("EFBIG", `Cannot read "${path}": over 1 MiB`);
    parts.push(buffer.subarray(0, bytesRead));
  }
  if (parts.length === 1 && parts[0] !== undefined) return parts[0];
  const whole = new Uint8Array(total);
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}

/** One write to a file that must exist; a sysfs attribute takes a text as a whole or not at all. */
async function writeExisting(path: string, text: string): Promise<void> {
  const handle = await open(path, constants.O_WRONLY | constants.O_TRUNC);
  try {
    const bytes = new TextEncoder().encode(text);
    await handle.write(bytes, 0, bytes.length, null);
  } finally {
    await handle.close();
  }
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const handle = await open(path, "wx", mode);
  try {
    // The umask may have taken bits away. Only then: PVE's cluster file system refuses most of chmod.
    if (((await handle.stat()).mode & 0o7777) !== mode) await handle.chmod(mode);
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A file's sync says nothing about its name: that is its folder's (fsync(2)). */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

let temporaryCount = 0;

function temporaryName(path: string): string {
  temporaryCount += 1;
  const directory = posix.dirname(path);
  return posix.join(
    directory,
    `.${posix.basename(path)}.tmp.${process.pid}.${Date.now()}.${temporaryCount}`,
  );
}

function fileStatus(stats: Stats, filesAreDevices: boolean): FileStatus {
  const kind = stats.isBlockDevice() || (filesAreDevices && stats.isFile())
    ? "block"
    : stats.isCharacterDevice()
    ? "character"
    : stats.isFile()
    ? "file"
    : stats.isDirectory()
    ? "directory"
    : "other";
  const isDevice = stats.isBlockDevice() || stats.isCharacterDevice();
  return {
    kind,
    size: kind === "file" ? stats.size : 0,
    inode: stats.ino,
    mode: stats.mode & 0o7777,
    uid: stats.uid,
    device: isDevice ? deviceNumber(stats.rdev) : undefined,
    modifiedMs: stats.mtimeMs,
  };
}

/** glibc's `major()` and `minor()` of a device number that fits into 44 bits. */
function deviceNumber(rdev: number): string {
  const high = Math.floor(rdev / 2 ** 32);
  const low = rdev % 2 ** 32;
  const major = (high & ~0xfff) | ((low >>> 8) & 0xfff);
  const minor = ((low >>> 12) & 0xfff00) | (low & 0xff);
  return `${major}:${minor}`;
}

async function named<T>(doing: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw hostError(doing, error);
  }
}

async function orAbsent<T>(doing: string, work: () => Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (isAbsence(error)) return undefined;
    throw hostError(doing, error);
  }
}
