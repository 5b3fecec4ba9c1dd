/** What a suite of tests in the VM is made of. */

import type { Vm } from "./vm.ts";

/** What a case may use. */
export interface CaseContext {
  readonly vm: Vm;
  /**
   * Another node: a machine with a kernel of its own, wired to the array of `vm`. It boots when it is
   * first asked for.
   */
  secondVm(): Promise<Vm>;
  /** Prints a line below the case's own: what was seen, for a fact worth knowing. */
  note(line: string): void;
}

/** One test; it passes when `run` resolves. */
export interface VmCase {
  /** A sentence that must hold. */
  readonly name: string;
  run(context: CaseContext): Promise<void>;
}

/** Cases that share a machine, in their order; each leaves the machine as it found it. */
export interface VmSuite {
  readonly name: string;
  readonly cases: readonly VmCase[];
  /** Needs `dist/tnblock`; it is in the machine then, and makes as many logins as it likes. */
  readonly needsProduct?: boolean;
  /** Runs only when it is named. */
  readonly isSlow?: boolean;
  /** A machine of its own, with these words on its kernel's command line. */
  readonly kernelArguments?: readonly string[];
}
