/** `tnblock simulate`: runs the simulator, tells in one line where it is, and stops when told. */

import type { SimulatorOptions } from "../simulator/simulator.ts";
import { startSimulator } from "../simulator/simulator.ts";

/** What the command may touch. */
export interface SimulateIo {
  /** Writes one line to the standard output. */
  print(line: string): void;
  /** Resolves when the user or the system wants it to end. */
  readonly untilStopped: Promise<void>;
  /** How long stopping may take, in ms; just under a second unless told. */
  readonly stopMs?: number;
}

/** Stopping is bounded: a data side that hangs does not keep the process. */
const STOP_MS = 900;

/**
 * Prints the ready line, waits, stops.
 *
 * @returns the exit status.
 */
export async function runSimulate(options: SimulatorOptions, io: SimulateIo): Promise<number> {
  const simulator = await startSimulator(options);
  io.print(JSON.stringify(simulator.ready));
  await io.untilStopped;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const patience = new Promise<void>((resolve) =>
    timer = setTimeout(resolve, io.stopMs ?? STOP_MS)
  );
  await Promise.race([simulator.stop(), patience]);
  clearTimeout(timer);
  return 0;
}
