/** What install works with, and who hears of its progress. */
import type { Host } from "../host/host.ts";
import type { Programs } from "../host/programs.ts";

/** The surroundings of one run. */
export interface InstallWorld {
  readonly host: Host;
  readonly programs: Programs;
  /** Of the program that runs. */
  readonly version: string;
  /** Whether this process may do everything; below another root nothing of that kind is asked. */
  readonly isRoot: boolean;
  /** As `process.platform` names it. */
  readonly platform: string;
  /** Completions of shells: texts by the paths where the shells look. */
  readonly completions: Readonly<Record<string, string>>;
  /** Hears one line at a time of what is being done. */
  readonly tell: (line: string) => void;
  /** Milliseconds that an installation which is under way on this node is waited for. */
  readonly turnMs?: number;
  /** Aborted when the user wants to leave: what was begun is undone then. */
  readonly signal?: AbortSignal;
}

/** What is left out, and what is allowed. */
export interface InstallOptions {
  readonly lvmFilter: boolean;
  readonly multipath: boolean;
  readonly nvmeRule: boolean;
  /** Whether a version that is older than the installed one may take its place. */
  readonly allowOlder: boolean;
}
