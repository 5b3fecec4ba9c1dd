/**
 * Zvols and their snapshots as files in one folder of a reflink file system, which is what stands in
 * for ZFS: a snapshot or a clone is a copy that shares every block until one side is written.
 */

import { constants } from "node:fs";
import { copyFile, mkdir, open, readdir, rename, rm, stat, truncate } from "node:fs/promises";
import { ZvolBusyError } from "../exports.ts";
import { runProgram } from "./programs.ts";

/** One zvol; the same object whatever it is renamed to. */
export interface Volume {
  name: string;
  /** Bytes. */
  size: number;
  /** Set while a loop device stands for it. */
  loop?: string;
  /** The snapshot (`pool/zvol@snap`) that it is a clone of. */
  origin?: string | undefined;
  /** Names behind the `@`, oldest first. */
  snapshots: string[];
  /** How many LUNs and namespaces use it. */
  users: number;
}

/** The volumes below one folder. */
export class VolumeStore {
  readonly #folder: string;
  readonly #volumes = new Map<string, Volume>();

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Opens the folder; volumes left there by an earlier run are removed. */
  static async open(folder: string): Promise<VolumeStore> {
    await mkdir(folder, { recursive: true });
    for (const name of await readdir(folder)) {
      if (name.endsWith(VOLUME_SUFFIX)) await rm(`${folder}/${name}`);
    }
    return new VolumeStore(folder);
  }

  /** The volume of that name; throws where there is none. */
  get(name: string): Volume {
    const volume = this.#volumes.get(name);
    if (volume === undefined) throw new Error(`There is no zvol "${name}"`);
    return volume;
  }

  has(name: string): boolean {
    return this.#volumes.has(name);
  }

  /** The file that holds a volume's content, or a snapshot's (`pool/zvol@snap`). */
  file(name: string): string {
    return `${this.#folder}/${encodeURIComponent(name)}${VOLUME_SUFFIX}`;
  }

  async create(name: string, size: number, origin?: string): Promise<void> {
    if (this.#volumes.has(name)) throw new Error(`There is a zvol "${name}" already`);
    if (origin === undefined) await (await open(this.file(name), "wx")).close();
    else await shareBlocks(this.file(origin), this.file(name));
    await truncate(this.file(name), size);
    this.#volumes.set(name, { name, size, origin, snapshots: [], users: 0 });
  }

  async resize(name: string, size: number): Promise<Volume> {
    const volume = this.get(name);
    await truncate(this.file(name), size);
    volume.size = size;
    await this.#refreshLoop(volume);
    return volume;
  }

  async rename(from: string, to: string): Promise<void> {
    const volume = this.get(from);
    if (this.#volumes.has(to)) throw new Error(`There is a zvol "${to}" already`);
    for (const snapshot of volume.snapshots) {
      await this.#moveSnapshot(`${from}@${snapshot}`, `${to}@${snapshot}`);
    }
    await rename(this.file(from), this.file(to));
    this.#volumes.delete(from);
    volume.name = to;
    this.#volumes.set(to, volume);
  }

  /** Throws {@link ZvolBusyError} while a LUN or a namespace uses the volume. */
  async destroy(name: string): Promise<void> {
    const volume = this.get(name);
    if (volume.users > 0) throw new ZvolBusyError(`zvol "${name}" has ${volume.users} users`);
    for (const snapshot of volume.snapshots) await rm(this.file(`${name}@${snapshot}`));
    await rm(this.file(name));
    this.#volumes.delete(name);
  }

  async createSnapshot(name: string, snapshot: string): Promise<void> {
    const volume = this.get(name);
    await shareBlocks(this.file(name), this.file(`${name}@${snapshot}`));
    volume.snapshots.push(snapshot);
  }

  async renameSnapshot(name: string, from: string, to: string): Promise<void> {
    const volume = this.get(name);
    await this.#moveSnapshot(`${name}@${from}`, `${name}@${to}`);
    volume.snapshots = volume.snapshots.map((one) => one === from ? to : one);
  }

  /** Fine when it has gone with its volume. */
  async destroySnapshot(name: string, snapshot: string): Promise<void> {
    const volume = this.#volumes.get(name);
    if (volume === undefined) return;
    await rm(this.file(`${name}@${snapshot}`));
    volume.snapshots = volume.snapshots.filter((one) => one !== snapshot);
  }

  /** The clone takes over the snapshots up to its own origin, and what it came from hangs on it. */
  async promote(name: string): Promise<void> {
    const clone = this.get(name);
    const [parentName = "", last = ""] = clone.origin?.split("@") ?? [];
    const parent = this.get(parentName);
    const older = parent.snapshots.splice(0, parent.snapshots.indexOf(last) + 1);
    clone.origin = parent.origin;
    for (const snapshot of older) {
      await this.#moveSnapshot(`${parentName}@${snapshot}`, `${name}@${snapshot}`);
    }
    clone.snapshots.unshift(...older);
    parent.origin = `${name}@${last}`;
  }

  /** Puts a snapshot's content into the volume's own file: whoever has that open goes on with it. */
  async rollback(name: string, snapshot: string): Promise<void> {
    const volume = this.get(name);
    const source = this.file(`${name}@${snapshot}`);
    await shareBlocks(source, this.file(name));
    // What is longer than its source keeps its end when blocks are shared.
    volume.size = (await stat(source)).size;
    await truncate(this.file(name), volume.size);
    await this.#refreshLoop(volume);
  }

  /** Counts one more user. */
  hold(volume: Volume): void {
    volume.users++;
  }

  /** Counts one user less; the last one takes the loop device away. */
  async release(volume: Volume): Promise<void> {
    volume.users--;
    if (volume.users > 0 || volume.loop === undefined) return;
    await runProgram("losetup", ["--detach", volume.loop]);
    delete volume.loop;
  }

  /**
   * The block device of a volume that is held. A namespace on a plain file would have blocks of the
   * file system's 4,096 bytes; on a loop device it has 512, as a zvol's namespace has.
   */
  async blockDevice(volume: Volume): Promise<string> {
    volume.loop ??= (await runProgram("losetup", ["--find", "--show", this.file(volume.name)]))
      .trim();
    return volume.loop;
  }

  async #refreshLoop(volume: Volume): Promise<void> {
    if (volume.loop !== undefined) await runProgram("losetup", ["--set-capacity", volume.loop]);
  }

  /** Clones that hang on a snapshot follow its name. */
  async #moveSnapshot(from: string, to: string): Promise<void> {
    await rename(this.file(from), this.file(to));
    for (const volume of this.#volumes.values()) {
      if (volume.origin === from) volume.origin = to;
    }
  }
}

const VOLUME_SUFFIX = ".zvol";

/** Fails where the file system cannot share blocks: a full copy would hide that it is no clone. */
function shareBlocks(from: string, to: string): Promise<void> {
  return copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
}
