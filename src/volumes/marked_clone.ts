/**
 * A clone that is never left without marks: from TrueNAS 26 on it gets them only by a second write, and
 * what is interrupted between the two must still be known as this operation's.
 */
import { TnblockError } from "../common/error.ts";
import type { Caller } from "../truenas/caller.ts";
import { isAtLeast } from "../truenas/dialect.ts";
import { isUnknownOutcome } from "../truenas/errors.ts";
import * as zvols from "../truenas/zvols.ts";
import { NameTaken } from "./make_exported.ts";
import { isOfOperation } from "./ownership.ts";
import type { Storage } from "./storage.ts";

/** What is to be made. */
export interface NewMarkedClone {
  /** Full path with `@`. */
  readonly snapshot: string;
  /** Full path of the clone. */
  readonly path: string;
  /** The token among its marks. */
  readonly operation: string;
  readonly marks: zvols.CloneMarks;
}

/** One clone under way: its functions are what `makeExported` asks for. */
export class MarkedClone {
  #isMade = false;

  constructor(
    private readonly storage: Pick<Storage, "array">,
    private readonly wanted: NewMarkedClone,
  ) {}

  /** Clones and marks; a lost answer is looked up. */
  async make(array: Caller): Promise<void> {
    const { snapshot, path, operation, marks } = this.wanted;
    // What is there before the call is not made by it, whatever becomes of its answer.
    if (await zvols.read(array, path) !== undefined) throw nameTaken(path);
    const onCloned = () => void (this.#isMade = true);
    let lost: unknown;
    try {
      await zvols.clone(array, snapshot, path, marks, onCloned);
    } catch (error) {
      if (!isUnknownOutcome(error)) throw error;
      lost = error;
    }
    // The answer may be lost, or the release have dropped the marks: only what is there counts.
    const fresh = await this.storage.array();
    const found = await zvols.read(fresh, path);
    if (found !== undefined && isOfOperation(found, operation)) return;
    // Where the marks come with the clone, one without them is somebody else's.
    const mayBeOurs = this.#isMade || isAtLeast(array.release, 26, 0);
    if (found === undefined || !mayBeOurs || !this.#isUnknown(found)) {
      throw lost ?? new TnblockError(
        "array-fault",
        `Cannot clone "${snapshot}" to "${path}": TrueNAS answered that it did, but it is not there`,
      );
    }
    this.#isMade = true;
    await zvols.markClone(fresh, path, marks);
    // Two that marked the same clone: the last one has it.
    const now = await zvols.read(fresh, path);
    if (now !== undefined && isOfOperation(now, operation)) return;
    throw lost ?? new TnblockError(
      "array-fault",
      `Cannot mark the clone "${path}": TrueNAS answered that it did, but the marks are not there`,
    );
  }

  /** Whether this is what was made here, before its marks. */
  isUnmarked(found: zvols.Zvol): boolean {
    return this.#isMade && this.#isUnknown(found);
  }

  /** A clone of the same snapshot that nobody has marked. */
  #isUnknown(found: zvols.Zvol): boolean {
    return found.origin === this.wanted.snapshot &&
      !Object.keys(found.userProperties).some((key) =>
        key === "tnblock:op" || key === "tnblock:volume"
      );
  }
}

function nameTaken(path: string): NameTaken {
  return new NameTaken("taken", {
    cause: new TnblockError("exists", `Cannot clone to "${path}": it exists already`),
  });
}
