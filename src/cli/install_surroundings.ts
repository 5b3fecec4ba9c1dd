/** What `install` takes from this process: its version, its own file, and the terminal. */
import process from "node:process";
import { asker } from "./asker.ts";
import type { InstallSurroundings } from "./install.ts";
import { VERSION, versionFacts } from "./version.ts";

/** Of the program as it runs. */
export function installSurroundings(): InstallSurroundings {
  const isCompiled = versionFacts()["target"] !== "source";
  return {
    version: VERSION,
    executable: isCompiled ? process.execPath : undefined,
    asker: asker({ input: process.stdin, output: process.stderr }),
  };
}
