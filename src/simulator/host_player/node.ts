/**
 * What the sides of the simulated node share: its folder, udev, the volumes' files, the portals that
 * can be reached, and the kernel's control files.
 */

import { readFileSync, statSync, truncateSync } from "node:fs";
import type { Exports } from "../exports.ts";
import type { Contents } from "./contents.ts";
import type { Numbers } from "./numbers.ts";
import type { Tree } from "./tree.ts";
import type { Udev } from "./udev.ts";

/**
 * What writing to a control file does; the promise ends when the kernel has done it. With `"later"`
 * the kernel is at it still, and is asked again at the next look: the writer goes on waiting.
 */
export type Control = (text: string) => Taken | Promise<Taken>;

/** Whether the kernel is done with a text. */
export type Taken = void | "later";

/** The simulated node. */
export interface Node {
  readonly tree: Tree;
  readonly udev: Udev;
  readonly contents: Contents;
  readonly portals: Portals;
  readonly controls: Controls;
  /** Minors of NVMe disks; a number is used again as soon as it is free. */
  readonly nvmeMinors: Numbers;
  /** Milliseconds of a clock that never jumps. */
  now(): number;
  /** The next `diskseq`, one for every disk that ever appears. */
  nextSequence(): number;
  /** What the array offers at present. */
  exports(): Exports;
}

/** Which portals the network reaches; all, unless a test cuts one off or lets it fall silent. */
export class Portals {
  readonly #down = new Set<string>();
  readonly #silent = new Set<string>();

  set(address: string, port: number, up: boolean): void {
    if (up) this.#down.delete(`${address} ${port}`);
    else this.#down.add(`${address} ${port}`);
  }

  isUp(address: string, port: number): boolean {
    return !this.#down.has(`${address} ${port}`);
  }

  setSilent(address: string, port: number, silent: boolean): void {
    if (silent) this.#silent.add(`${address} ${port}`);
    else this.#silent.delete(`${address} ${port}`);
  }

  /** Whether nothing that is sent there is answered any more, and nothing comes from there. */
  isSilent(address: string, port: number): boolean {
    return this.#silent.has(`${address} ${port}`);
  }
}

/** Control files looked at in one go, so that a look costs the same however many disks there are. */
const LOOK_AT_ONCE = 64;

/** The control files, each a regular file that is empty unless somebody has just written to it. */
export class Controls {
  readonly #acts = new Map<string, Control>();
  /** The same in a row, made when needed. */
  #row: readonly { readonly path: string; readonly act: Control }[] | undefined;
  #next = 0;

  /** @param path On this machine. */
  add(path: string, act: Control): void {
    this.#acts.set(path, act);
    this.#row = undefined;
  }

  remove(path: string): void {
    this.#acts.delete(path);
    this.#row = undefined;
  }

  /** Whether a control is still there; what another one did may have taken it away. */
  has(path: string): boolean {
    return this.#acts.has(path);
  }

  /** Looks at the next control files in turn, and gives those that somebody has written to. */
  written(): { readonly path: string; readonly act: Control }[] {
    this.#row ??= [...this.#acts].map(([path, act]) => ({ path, act }));
    const from = this.#next < this.#row.length ? this.#next : 0;
    const looked = this.#row.slice(from, from + LOOK_AT_ONCE);
    this.#next = from + LOOK_AT_ONCE;
    return looked.filter(({ path }) => (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0);
  }
}

/**
 * Tells the writer that `text` was taken. Another text that has come meanwhile is left for the next
 * look; and the file may have gone with what it controlled.
 */
export function emptyControl(path: string, text: string): void {
  try {
    if (readFileSync(path, "utf8") === text) truncateSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

/** Lets other work of this process go on; used between the many disks of one operation. */
export function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The node's own address on the way to a portal. */
export function sourceAddress(portal: string): string {
  if (portal === "::1" || portal.startsWith("127.")) return portal;
  return portal.replace(/[0-9a-f]+$/i, (last) => last === "2" ? "3" : "2");
}
