/** Runs perl for the tests of the shim, or says why it cannot. */
import { fileURLToPath } from "node:url";
import { lastingCommand } from "../support/child.ts";

/** This folder, with a slash at its end. */
export const FOLDER = fileURLToPath(new URL(".", import.meta.url));

/** The shim itself. */
export const SHIM = fileURLToPath(
  new URL("../../src/pve/shim/TnblockPlugin.pm", import.meta.url),
);

/** What a run of perl left behind. */
export interface PerlRun {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs perl with taint mode on and the stand-ins of PVE's modules in its path. */
export async function runPerl(...args: string[]): Promise<PerlRun> {
  const command = lastingCommand("perl", {
    args: ["-T", "-I", `${FOLDER}lib`, ...args],
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Why the tests cannot run here; undefined if they can. */
async function whatIsMissing(): Promise<string | undefined> {
  try {
    const { code, stderr } = await runPerl("-MJSON::PP", "-MTest::More", "-e", "1");
    return code === 0 ? undefined : `perl lacks a core module: ${stderr.split("\n")[0]}`;
  } catch {
    return "perl is not installed";
  }
}

const missing = await whatIsMissing();

/** Registers a test that needs perl; without it the test is ignored, and its name says why. */
export function perlTest(name: string, run: (t: Deno.TestContext) => Promise<void>): void {
  const shown = missing === undefined ? name : `${name} (ignored: ${missing})`;
  Deno.test({ name: shown, ignore: missing !== undefined }, run);
}
