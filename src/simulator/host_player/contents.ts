/**
 * What the simulated array's volumes hold: one sparse regular file for each zvol and snapshot. A
 * zvol keeps its inode for life, because the node's devices are further names of that file.
 */

import { execFile } from "node:child_process";
import { closeSync, mkdirSync, openSync, rmSync, statSync, truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";

/** Bytes copied at a time where the file system cannot share blocks. */
const CHUNK = 1 << 20;

/** A snapshot's bare name; callers may give `pool/zvol@name` or `name`. */
function bareName(snapshot: string): string {
  return snapshot.slice(snapshot.indexOf("@") + 1);
}

/** A zvol or snapshot. */
interface Content {
  readonly file: string;
  /** Grows with every one made: the order of a zvol's snapshots. */
  readonly made: number;
  /** Of a blank zvol whose file nobody has needed yet; it is made with this size. */
  blank: number | undefined;
  /** The snapshot that a clone hangs on. */
  origin: string | undefined;
}

/** The files behind the zvols and snapshots; the names are `pool/zvol` and `pool/zvol@snapshot`. */
export class Contents {
  readonly #directory: string;
  readonly #contents = new Map<string, Content>();
  #made = 0;

  /** @param directory Where the files go; it is made when missing. */
  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
  }

  has(name: string): boolean {
    return this.#contents.has(name);
  }

  /** The file of a zvol or snapshot, or undefined. */
  file(name: string): string | undefined {
    const content = this.#contents.get(name);
    return content === undefined ? undefined : this.#fileOf(content);
  }

  /** Registers a zvol that is exported although the array never said that it exists. */
  ensure(zvol: string, size: number): void {
    if (!this.#contents.has(zvol)) this.#contents.set(zvol, this.#newContent(size));
  }

  /** Nothing is written for a blank zvol before its file is needed: an array may have thousands. */
  async create(zvol: string, size: number, origin?: string): Promise<void> {
    if (this.#contents.has(zvol)) throw new Error(`Zvol exists: ${zvol}`);
    if (origin === undefined) {
      this.ensure(zvol, size);
      return;
    }
    const content = await this.#copyOf(origin);
    if (content.blank !== undefined) content.blank = size;
    else if (statSync(content.file).size !== size) truncateSync(content.file, size);
    content.origin = origin;
    this.#contents.set(zvol, content);
  }

  resize(zvol: string, size: number): void {
    const content = this.#known(zvol);
    if (content.blank === undefined) truncateSync(content.file, size);
    else content.blank = size;
  }

  /** The zvol's snapshots go with it. */
  rename(from: string, to: string): void {
    for (const name of [...this.#contents.keys()]) {
      if (name === from || name.startsWith(`${from}@`)) {
        this.#move(name, to + name.slice(from.length));
      }
    }
  }

  /** The zvol's snapshots go with it. */
  destroy(zvol: string): void {
    for (const name of [...this.#contents.keys()]) {
      if (name === zvol || name.startsWith(`${zvol}@`)) this.#forget(name);
    }
  }

  async snapshot(zvol: string, snapshot: string): Promise<void> {
    const name = `${zvol}@${bareName(snapshot)}`;
    if (this.#contents.has(name)) throw new Error(`Snapshot exists: ${name}`);
    this.#contents.set(name, await this.#copyOf(zvol));
  }

  renameSnapshot(zvol: string, from: string, to: string): void {
    this.#move(`${zvol}@${bareName(from)}`, `${zvol}@${bareName(to)}`);
  }

  /** Fine when it has gone with its zvol. */
  destroySnapshot(zvol: string, snapshot: string): void {
    this.#forget(`${zvol}@${bareName(snapshot)}`);
  }

  /** Puts the snapshot's content, and its size, back into the zvol's own file; gives the size. */
  async rollback(zvol: string, snapshot: string): Promise<number> {
    const file = this.#fileOf(this.#known(zvol));
    await copySparse(this.#fileOf(this.#known(`${zvol}@${bareName(snapshot)}`)), file);
    return statSync(file).size;
  }

  /** The clone takes over its origin's snapshots up to its own origin, and the origin hangs on it. */
  promote(zvol: string): void {
    const clone = this.#known(zvol);
    const { origin } = clone;
    if (origin === undefined) throw new Error(`Not a clone: ${zvol}`);
    const parentName = origin.slice(0, origin.indexOf("@"));
    const parent = this.#known(parentName);
    const last = this.#known(origin).made;
    clone.origin = parent.origin;
    parent.origin = origin;
    for (const [name, { made }] of [...this.#contents]) {
      if (name.startsWith(`${parentName}@`) && made <= last) {
        this.#move(name, zvol + name.slice(parentName.length));
      }
    }
  }

  async #copyOf(name: string): Promise<Content> {
    const source = this.#known(name);
    if (source.blank !== undefined) return this.#newContent(source.blank);
    const content = this.#newContent(undefined);
    await copySparse(source.file, content.file);
    return content;
  }

  #newContent(blank: number | undefined): Content {
    const made = ++this.#made;
    return { file: join(this.#directory, `volume-${made}`), made, blank, origin: undefined };
  }

  #fileOf(content: Content): string {
    if (content.blank === undefined) return content.file;
    closeSync(openSync(content.file, "wx", 0o660));
    truncateSync(content.file, content.blank);
    content.blank = undefined;
    return content.file;
  }

  #known(name: string): Content {
    const content = this.#contents.get(name);
    if (content === undefined) throw new Error(`No such volume or snapshot: ${name}`);
    return content;
  }

  /** Clones that hang on a snapshot follow its name. */
  #move(from: string, to: string): void {
    const content = this.#known(from);
    this.#contents.delete(from);
    this.#contents.set(to, content);
    for (const other of this.#contents.values()) {
      if (other.origin === from) other.origin = to;
    }
  }

  #forget(name: string): void {
    const content = this.#contents.get(name);
    if (content === undefined) return;
    rmSync(content.file, { force: true });
    this.#contents.delete(name);
  }
}

/** Copies into the target's own inode, leaving holes where there is nothing but zeros. */
async function copySparse(source: string, target: string): Promise<void> {
  // GNU cp shares blocks where the file system can, and asks it where the holes are; reading a
  // terabyte of them would take minutes. (Deno's `copyFile` knows neither: it fills the holes.)
  if (!await copyWithCp(source, target)) await copyChunks(source, target);
}

function copyWithCp(source: string, target: string): Promise<boolean> {
  const options = { env: { PATH: "/usr/bin:/bin", LC_ALL: "C" }, timeout: 60_000 };
  return new Promise((resolve) => {
    execFile(
      "cp",
      ["--sparse=always", "--reflink=auto", "--", source, target],
      options,
      (error) => resolve(error === null),
    );
  });
}

/** The way without a suitable `cp`. */
export async function copyChunks(source: string, target: string): Promise<void> {
  const from = await open(source, "r");
  try {
    const to = await open(target, "w", 0o660);
    try {
      const { size } = await from.stat();
      await to.truncate(size);
      const zeros = Buffer.alloc(CHUNK);
      const chunk = Buffer.alloc(CHUNK);
      for (let position = 0; position < size;) {
        const { bytesRead } = await from.read(chunk, 0, CHUNK, position);
        if (bytesRead === 0) break;
        const part = chunk.subarray(0, bytesRead);
        if (!part.equals(zeros.subarray(0, bytesRead))) {
          await to.write(part, 0, bytesRead, position);
        }
        position += bytesRead;
      }
    } finally {
      await to.close();
    }
  } finally {
    await from.close();
  }
}
