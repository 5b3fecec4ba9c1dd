/**
 * The kernel's target configuration as a tree of folders, attributes and links (configfs): making a
 * folder makes an object, removing it removes the object.
 */

import { constants } from "node:fs";
import { mkdir, open, readdir, rmdir, symlink, unlink } from "node:fs/promises";
import { insideNetns, runProgram } from "./programs.ts";

export const CONFIGFS = "/sys/kernel/config";

/** Sets attributes in the order given; every value is one write, which the kernel takes whole. */
export async function setAttributes(
  folder: string,
  attributes: Readonly<Record<string, string | number>>,
): Promise<void> {
  for (const [name, value] of Object.entries(attributes)) {
    // Opened for writing only: the kernel refuses to open a write-only attribute otherwise.
    const file = await open(`${folder}/${name}`, constants.O_WRONLY);
    try {
      await file.write(String(value));
    } catch (cause) {
      // The value may be a secret: it is not named.
      throw new Error(`Cannot set ${folder}/${name}: ${(cause as Error).message}`, { cause });
    } finally {
      await file.close();
    }
  }
}

/** Makes an object. */
export const makeObject = (path: string): Promise<void> => mkdir(path);

/** Removes an object; its kernel-made children go with it. */
export const removeObject = (path: string): Promise<void> => rmdir(path);

/** Links one object into another. */
export const makeLink = (target: string, path: string): Promise<void> => symlink(target, path);

/** Removes a link. */
export const removeLink = (path: string): Promise<void> => unlink(path);

/** The names of a folder's objects and links; empty where there is no such folder. */
export async function listObjects(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => !entry.isFile()).map((entry) => entry.name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}

/** Makes an object whose making opens a socket: the socket belongs to the maker's network namespace. */
export async function makeObjectInNetns(netns: string | undefined, path: string): Promise<void> {
  const [program = "", ...args] = insideNetns(netns, ["mkdir", "--", path]);
  await runProgram(program, args);
}

/** As {@link makeObjectInNetns}, for a link. */
export async function makeLinkInNetns(
  netns: string | undefined,
  target: string,
  path: string,
): Promise<void> {
  const [program = "", ...args] = insideNetns(netns, ["ln", "-s", "--", target, path]);
  await runProgram(program, args);
}
