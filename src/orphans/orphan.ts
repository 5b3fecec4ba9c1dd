/** What an orphan is, and what one that stays. */
import type { ExportRow } from "../transport/transport.ts";
import type { Zvol } from "../truenas/zvols.ts";

/** What kind of thing is left. */
export type OrphanKind =
  /** A mapping of the target whose extent is gone. */
  | "mapping"
  /** An extent whose zvol is gone, with its mapping. */
  | "extent"
  /** A namespace whose zvol is gone. */
  | "namespace"
  /** A zvol that nothing refers to, with its export. */
  | "volume"
  /** The same, whose bytes never all came. */
  | "import"
  /** A hidden clone through which a node read a snapshot. */
  | "reading"
  /** The weight of a target that is not there. */
  | "weight";

/** One that nobody needs. */
export interface Orphan {
  readonly kind: OrphanKind;
  /** A full path, or of a mapping `mapping 12 (LUN 5)`. */
  readonly name: string;
  /** Bytes; undefined for rows. */
  readonly size: number | undefined;
  /** Bytes on disk. */
  readonly used: number | undefined;
  /** Milliseconds since the epoch; undefined for rows, of which the array does not tell it. */
  readonly createdMs: number | undefined;
  /** Why it is thought to be one. */
  readonly why: string;
  /** Names of snapshots that go with it. */
  readonly snapshots: readonly string[];
  /** What exports it, or what it is. */
  readonly rows: readonly ExportRow[];
  /** The zvol; undefined for rows. */
  readonly zvol: Zvol | undefined;
}

/** One that looks like an orphan and stays. */
export interface Kept {
  readonly kind: OrphanKind;
  readonly name: string;
  /** At least one. */
  readonly reasons: readonly string[];
}

/** What may be an orphan, with all that speaks against it. */
export interface Candidate {
  readonly orphan: Orphan;
  readonly reasons: readonly string[];
}
