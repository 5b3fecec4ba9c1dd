/**
 * Writes below the simulated node's folder the way a kernel and udev do: a directory appears with
 * all it holds, a value or link is replaced at once, and every link is relative.
 */

import {
  linkSync,
  lstatSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join, relative } from "node:path";

/** A link to another place of the node; the path is absolute as seen from the node. */
export interface LinkEntry {
  readonly linkTo: string;
}

/** A file that programs write to in place; empty, and unlike an attribute one of its own. */
export const CONTROL_FILE = new Uint8Array(0);

/**
 * What a directory holds: an attribute (its text, to which the kernel's newline is added, unless it
 * is empty), raw bytes, a link, or a directory.
 */
export interface Entries {
  readonly [name: string]: string | Uint8Array | LinkEntry | Entries;
}

/** Values and link texts that are kept for sharing; those that all disks have come first. */
const POOL_LIMIT = 1000;

/** The text of the link at `path` that leads to `target`: up to what both share, as sysfs makes them. */
export function relativeLink(path: string, target: string): string {
  return join(relative(dirname(path), dirname(target)), basename(target));
}

/** The node's folder. All paths are absolute as seen from the node, e.g. `/sys/block`. */
export class Tree {
  /** Where things are made before they are moved into place; on the same file system. */
  readonly #staging: string;
  #staged = 0;
  /**
   * A file for each value and each link text in use. Most attributes of most disks are alike, and one
   * more name of a file costs a fraction of a file. No attribute is ever written in place.
   */
  readonly #pool = new Map<string, string>();

  constructor(readonly root: string) {
    this.#staging = join(root, ".array", "staging");
    rmSync(this.#staging, { recursive: true, force: true });
    mkdirSync(this.#staging, { recursive: true });
  }

  /** Where a path of the node lies on this machine. */
  at(path: string): string {
    return join(this.root, path);
  }

  /** Makes a directory with all its entries appear at once; parents are made when missing. */
  plant(path: string, entries: Entries): void {
    const staged = this.#stage();
    this.#fill(staged, path, entries);
    mkdirSync(dirname(this.at(path)), { recursive: true });
    renameSync(staged, this.at(path));
  }

  /** Removes a file, link or directory, at once and with all it holds; nothing happens when it is absent. */
  remove(path: string): void {
    const staged = this.#stage();
    try {
      renameSync(this.at(path), staged);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
      throw error;
    }
    rmSync(staged, { recursive: true, force: true });
  }

  /** Replaces an attribute's value. */
  attribute(path: string, value: string | Uint8Array): void {
    const staged = this.#stage();
    writeFileSync(staged, attributeBytes(value));
    renameSync(staged, this.at(path));
  }

  /** Replaces a file by exactly this text; the directory must exist. */
  text(path: string, text: string, mode = 0o644): void {
    const staged = this.#stage();
    writeFileSync(staged, text, { mode });
    renameSync(staged, this.at(path));
  }

  /** Points a link at another place of the node, replacing what is there. */
  link(path: string, target: string): void {
    const staged = this.#stage();
    this.#makeLink(relativeLink(path, target), staged);
    mkdirSync(dirname(this.at(path)), { recursive: true });
    renameSync(staged, this.at(path));
    // A rename between two names of one link does nothing.
    rmSync(staged, { force: true });
  }

  /** Makes `path` one more name of the file `content` (a path on this machine). */
  hardLink(path: string, content: string): void {
    // A rename between two names of one file does nothing and would leave the staged name behind.
    if (this.#isSameFile(this.at(path), content)) return;
    const staged = this.#stage();
    linkSync(content, staged);
    renameSync(staged, this.at(path));
  }

  /** Whether something, be it a dangling link, is at the path. */
  has(path: string): boolean {
    return lstatSync(this.at(path), { throwIfNoEntry: false }) !== undefined;
  }

  #isSameFile(one: string, other: string): boolean {
    const a = statSync(one, { throwIfNoEntry: false });
    return a !== undefined && a.ino === statSync(other).ino;
  }

  #makeLink(text: string, at: string): void {
    this.#pooled(`-> ${text}`, at, (file) => symlinkSync(text, file));
  }

  /** Makes `at` one more name of the file for `key`, which `make` makes. */
  #pooled(key: string, at: string, make: (file: string) => void): void {
    const known = this.#pool.get(key);
    if (known !== undefined && tryLink(known, at)) return;
    make(at);
    if (this.#pool.size >= POOL_LIMIT) return;
    const file = this.#stage();
    // Where a file cannot have more names (EMLINK, EPERM) each is a file of its own.
    if (tryLink(at, file)) this.#pool.set(key, file);
  }

  #stage(): string {
    return join(this.#staging, String(this.#staged++));
  }

  #fill(directory: string, path: string, entries: Entries): void {
    mkdirSync(directory);
    for (const [name, entry] of Object.entries(entries)) {
      const at = `${directory}/${name}`;
      if (entry instanceof Uint8Array) {
        writeFileSync(at, entry);
      } else if (typeof entry === "string") {
        this.#pooled(`= ${entry}`, at, (file) => writeFileSync(file, attributeBytes(entry)));
      } else if (isLink(entry)) {
        this.#makeLink(relativeLink(`${path}/${name}`, entry.linkTo), at);
      } else {
        this.#fill(at, `${path}/${name}`, entry);
      }
    }
  }
}

function tryLink(file: string, name: string): boolean {
  try {
    linkSync(file, name);
    return true;
  } catch {
    return false;
  }
}

function isLink(entry: LinkEntry | Entries): entry is LinkEntry {
  return typeof (entry as LinkEntry).linkTo === "string";
}

function attributeBytes(value: string | Uint8Array): string | Uint8Array {
  return typeof value === "string" && value !== "" ? `${value}\n` : value;
}
