/** Part of linux.ts: programs of the node, hashed and copied piece by piece. */
import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { copyFile, mkdir, open, rename, unlink } from "node:fs/promises";
import { posix } from "node:path";
import { hostError, isAbsence } from "./linux_errors.ts";
import { openRoot } from "./linux_root.ts";
import type { Programs } from "./programs.ts";

/** Bytes that are read at once. */
const PIECE = 1 << 20;

/**
 * The programs of the node below `root`.
 *
 * @param options.executable the file that this process runs from, as the machine sees it: it need not lie below
 *   the root. Absent when the source runs uncompiled.
 */
export function linuxPrograms(
  options: { root?: string | undefined; executable?: string | undefined } = {},
): Programs {
  const root = openRoot(options.root ?? "/");
  const { executable } = options;

  async function copyTo(from: string, to: string, mode: number): Promise<void> {
    try {
      const real = await root.followParent(to);
      const folder = posix.dirname(real);
      await mkdir(folder, { recursive: true });
      // One name: what a killed process left is overwritten. Two never copy at once (the install lock).
      const temporary = posix.join(folder, `.${posix.basename(real)}.new`);
      try {
        await unlink(temporary).catch(() => {});
        await copyFile(from, temporary, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
        const handle = await open(temporary, "r+");
        try {
          await handle.chmod(mode);
          await handle.sync();
        } finally {
          await handle.close();
        }
        await rename(temporary, real);
        const directory = await open(folder, "r");
        try {
          await directory.sync();
        } finally {
          await directory.close();
        }
      } catch (error) {
        await unlink(temporary).catch(() => {});
        throw error;
      }
    } catch (error) {
      throw hostError(`Cannot copy "${from}" to "${to}"`, error);
    }
  }

  return {
    own: executable === undefined ? undefined : {
      async digest() {
        try {
          return await sha256(executable);
        } catch (error) {
          throw hostError(`Cannot read "${executable}"`, error);
        }
      },
      copyTo: (path, mode) => copyTo(executable, path, mode),
    },
    async digest(path) {
      try {
        return await sha256(await root.follow(path));
      } catch (error) {
        if (isAbsence(error)) return undefined;
        throw hostError(`Cannot read "${path}"`, error);
      }
    },
    copy: async (from, to, mode) => await copyTo(await root.follow(from), to, mode),
  };
}

async function sha256(path: string): Promise<string> {
  const hash = createHash("sha256");
  const handle = await open(path, "r");
  try {
    const buffer = new Uint8Array(PIECE);
    for (;;) {
      const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await handle.close();
  }
}
