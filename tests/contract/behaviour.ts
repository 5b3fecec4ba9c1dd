/** How a verb behaves, as a table is written: from what, which call, to what. */
import type { Column } from "./column.ts";
import type { Stage } from "./stage.ts";

/** One row. */
export interface Behaviour {
  /** The method, and in words what is special about the case. */
  readonly row: string;
  readonly method: string;
  /** Brings about {@link before}, and gives the arguments of the call. */
  readonly arrange: (stage: Stage) => Promise<Record<string, unknown>> | Record<string, unknown>;
  /** What array and nodes hold of the case's guests when the call comes; see `picture.ts`. */
  readonly before: Lines;
  /** What they hold when it has succeeded; as before unless given. */
  readonly after?: Lines;
  /** Checks the answer of a call that succeeded. */
  // deno-lint-ignore no-explicit-any
  readonly result?: (result: any, stage: Stage) => void | Promise<void>;
  /**
   * What the same call says a second time: `same` answers as the first and changes nothing; or it is
   * refused, with one of these codes; or it does its work once more, and then this is held.
   */
  readonly again: "same" | { readonly refused: readonly string[] } | { readonly holds: Lines };
  /** The call itself is refused, with one of these codes and a message that contains the text. */
  readonly refused?: { readonly codes: readonly string[]; readonly says?: string };
  /**
   * What a failure may leave besides {@link before}: `finished` when the verb may have done its work
   * (a resize is not taken back); a test of the lines for a free, which goes on where it stopped.
   */
  readonly mayLeave?: "finished" | ((lines: readonly string[]) => boolean);
  /** Why this column cannot do it; the call is then refused as `unsupported`. */
  readonly unsupported?: (column: Column) => string | undefined;
  /** What the call starts from cannot come about in this column; the table has no cell then. */
  readonly absent?: (column: Column) => boolean;
  /** The call names a volume whose name may be stale. */
  readonly named?: boolean;
  /** Its steps are those of another row: only first and repeated call are tried. */
  readonly brief?: boolean;
}

/** Lines of a picture; where the protocols differ, a function. */
export type Lines = readonly string[] | ((column: Column) => readonly string[]);

/** The lines of a column. */
export function linesOf(lines: Lines, column: Column): readonly string[] {
  return typeof lines === "function" ? lines(column) : lines;
}
