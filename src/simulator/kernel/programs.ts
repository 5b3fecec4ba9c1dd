/** Runs the few programs the kernel data side needs; argument arrays only, each with a deadline. */

import { execFile, execFileSync } from "node:child_process";

/** Under emulation with other work going on, the slowest of these took 3 s. */
const TIMEOUT_MS = 60_000;

/** Runs a program to its end; answers with what it printed, throws with what it complained. */
export function runProgram(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(program, [...args], { timeout: TIMEOUT_MS }, (error, stdout, stderr) => {
      if (error === null) resolve(stdout);
      else reject(new Error(`${program} ${args.join(" ")}: ${stderr.trim() || error.message}`));
    });
  });
}

/** As {@link runProgram}, for the one question that must be answered at once. */
export function runProgramNow(program: string, args: readonly string[]): string {
  return execFileSync(program, [...args], { timeout: TIMEOUT_MS, encoding: "utf8" });
}

/**
 * The command that runs another inside a network namespace. Not `ip netns exec`: that mounts a fresh
 * /sys, without configfs.
 */
export function insideNetns(netns: string | undefined, command: readonly string[]): string[] {
  return netns === undefined
    ? [...command]
    : ["nsenter", `--net=/run/netns/${netns}`, "--", ...command];
}
