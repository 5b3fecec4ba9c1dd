/** One line of the bench's table: a measured value and, where design.md names one, what it must reach. */

/** What a value is counted in. */
export type Unit =
  | "ms"
  | "s"
  | "MiB"
  | "bytes"
  | "x"
  | "calls"
  | "writes"
  | "logins"
  | "failed"
  | "";

/** A measured value. */
export interface Measured {
  readonly what: string;
  readonly value: number;
  readonly unit: Unit;
  /** The most that it may be; absent for what is only told. */
  readonly target?: number | undefined;
  /** How it was measured, and what it is made of. */
  readonly note?: string;
}

/** A measured value, judged. */
export interface Row extends Measured {
  readonly section: string;
  /** Absent without a target. */
  readonly met?: boolean;
}

/** Judges a value. The targets bind as they are shown: 1.5 means 1.50. */
export function rowOf(section: string, measured: Measured): Row {
  const { target } = measured;
  if (target === undefined) return { section, ...measured };
  return { section, ...measured, met: Number(shown(measured.value)) <= target };
}

/** A number as the table shows it: whole above a hundred, else with so many digits as mean something. */
export function shown(value: number): string {
  if (Number.isInteger(value)) return String(value);
  if (value >= 100) return value.toFixed(0);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}
