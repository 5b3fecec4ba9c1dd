/** Part of linux.ts: where a path of the node really lies when the node is a folder. */
import { lstat, readlink, realpath } from "node:fs/promises";
import { realpathSync } from "node:fs";
import { posix } from "node:path";
import { TnblockError } from "../common/error.ts";
import { HostError } from "./host.ts";
import { codeOf, hostError, isAbsence } from "./linux_errors.ts";

/** As many links as the kernel follows before it says ELOOP. */
const MAX_LINKS = 40;

/** Translates between paths of the node and paths of the machine. */
export interface Root {
  /** The machine's path of the root itself. */
  readonly directory: string;
  /** False for a real node. */
  readonly isFolder: boolean;
  /**
   * The machine's path of what a path of the node leads to, all links followed as seen from the
   * node. What does not exist keeps its name.
   */
  follow(path: string): Promise<string>;
  /** Like `follow`, but the last component itself is not followed. */
  followParent(path: string): Promise<string>;
  /** The node's path for one of the machine. */
  inside(machinePath: string): string;
}

/** The node itself: every path is what it says. */
const realRoot: Root = {
  directory: "/",
  isFolder: false,
  follow: (path) => Promise.resolve(path),
  followParent: (path) => Promise.resolve(path),
  inside: (path) => path,
};

/**
 * The root at `directory`.
 *
 * @throws TnblockError `host-fault` when there is no such directory.
 */
export function openRoot(directory: string): Root {
  let root: string;
  try {
    root = realpathSync(directory);
  } catch (error) {
    const { message } = hostError(`Cannot use "${directory}" as the root of a node`, error);
    throw new TnblockError("host-fault", message, { cause: error });
  }
  return root === "/" ? realRoot : folderRoot(root);
}

function folderRoot(root: string): Root {
  const inside = (path: string) => path === root ? "/" : path.slice(root.length);

  /** Component by component, as the kernel does below a chroot. */
  async function walk(path: string): Promise<string> {
    let links = 0;
    let here = "";
    const left = posix.normalize(path).split("/").filter((part) => part !== "");
    for (let part = left.shift(); part !== undefined; part = left.shift()) {
      if (part === "..") {
        here = here.slice(0, Math.max(0, here.lastIndexOf("/")));
        continue;
      }
      const next = `${here}/${part}`;
      const target = await linkText(root + next);
      if (target === undefined) {
        here = next;
        continue;
      }
      if (++links > MAX_LINKS) throw new HostError("ELOOP", `Cannot follow "${path}": ELOOP`);
      if (target.startsWith("/")) here = "";
      left.unshift(...target.split("/").filter((each) => each !== "" && each !== "."));
    }
    return root + here;
  }

  return {
    directory: root,
    isFolder: true,
    inside,
    async follow(path) {
      // One call is enough as long as no link points out of the folder, which is nearly always.
      try {
        const real = await realpath(root + posix.normalize(path));
        if (real === root || real.startsWith(`${root}/`)) return real;
      } catch (error) {
        if (codeOf(error) === "EACCES") throw hostError(`Cannot follow "${path}"`, error);
      }
      return await walk(path);
    },
    async followParent(path) {
      const clean = posix.normalize(path);
      return posix.join(await this.follow(posix.dirname(clean)), posix.basename(clean));
    },
  };
}

async function linkText(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined;
  } catch (error) {
    if (isAbsence(error)) return undefined;
    throw hostError(`Cannot look at "${path}"`, error);
  }
}
