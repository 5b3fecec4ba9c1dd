/** A column of the table: one protocol on one release. */
import type { ReleaseName } from "../../src/simulator/simulator.ts";
import type { TransportKind } from "../support/place.ts";

/** One of {@link COLUMNS}. */
export interface Column {
  readonly transport: TransportKind;
  readonly release: ReleaseName;
  /** Whether the node's daemon answers, over its socket, instead of the hook. */
  readonly byDaemon?: boolean;
}

/** All that exist; NVMe/TCP starts with 25.10. */
export const COLUMNS: readonly Column[] = [
  { transport: "iscsi", release: "25.04" },
  { transport: "iscsi", release: "25.10.0" },
  { transport: "iscsi", release: "25.10" },
  { transport: "iscsi", release: "26" },
  { transport: "nvme-tcp", release: "25.10.0" },
  { transport: "nvme-tcp", release: "25.10" },
  { transport: "nvme-tcp", release: "26" },
  { transport: "iscsi", release: "25.10", byDaemon: true },
  { transport: "nvme-tcp", release: "26", byDaemon: true },
];

/** A column's heading: protocol and release, as TrueNAS names it. */
export function titleOf({ transport, release, byDaemon = false }: Column): string {
  const name = `${transport} ${release === "25.10" ? "25.10.6" : release}`;
  return byDaemon ? `${name} by daemon` : name;
}

/**
 * The name of a cell's test. `scripts/run_tests.ts` reads the table out of these names, so that what
 * is printed is what ran.
 *
 * @param refused why the column cannot do it.
 */
export function cellName(row: string, column: Column, refused?: string): string {
  const name = `contract: ${row}, ${titleOf(column)}`;
  return refused === undefined ? name : `${name}: refused (${refused})`;
}
