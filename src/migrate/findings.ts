/** What becomes of one option of a storage when its section changes its type. */

/** One option's fate. */
export interface Finding {
  /**
   * `carried`: the same under its new name. `changed`: something else from now on, which a person must know.
   * `dropped`: it has no meaning there. `refused`: the storage cannot be carried over while it is set like this.
   */
  readonly kind: "carried" | "changed" | "dropped" | "refused";
  /** As it stands in the section now. */
  readonly option: string;
  /** Its new name; undefined when there is none. */
  readonly becomes?: string;
  /** What a person should know. Never a secret. */
  readonly words?: string;
}

/** A section of another type, and how it came to be. */
export interface Mapped {
  /** What storage.cfg is to hold, without type and id, in order. */
  readonly config: Readonly<Record<string, string>>;
  /** What the secrets file is to hold. */
  readonly secrets: Readonly<Record<string, string>>;
  readonly findings: readonly Finding[];
}
