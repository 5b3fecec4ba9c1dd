/** Files too large for {@link HostFiles}: programs, which are hashed and copied piece by piece. */

/** Hashes and copies. Paths are absolute and those of the node; failures are {@link HostError}s. */
export interface Programs {
  /** The file that this process runs from; undefined when the source runs uncompiled. */
  readonly own: OwnProgram | undefined;
  /** SHA-256 of a file in hex digits; undefined when it does not exist. */
  digest(path: string): Promise<string | undefined>;
  /**
   * Copies a file by a temporary name (`.NAME.new` beside it) and a rename, so that there is the old one or
   * the new one at any time, after a loss of power too. The directory is made when missing.
   */
  copy(from: string, to: string, mode: number): Promise<void>;
}

/** What this process runs. */
export interface OwnProgram {
  /** As {@link Programs.digest}. */
  digest(): Promise<string>;
  /** As {@link Programs.copy}. */
  copyTo(path: string, mode: number): Promise<void>;
}
