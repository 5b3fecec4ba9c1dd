/** What a section of the bench is given, and gives. */
import type { Measured } from "./row.ts";
import type { Point } from "./plot.ts";

/** How a section shall measure. */
export interface SectionContext {
  /** The program that is measured. */
  readonly binary: string;
  /** Fewer runs and smaller worlds. */
  readonly quick: boolean;
  /** Takes a point for the plot. */
  readonly plot: (series: string, point: Point) => void;
}

/** One part of the table. */
export interface Section {
  readonly title: string;
  measure(context: SectionContext): Promise<Measured[]>;
}
