/** What commands that may ask get: the node, and whoever is at its terminal. */
import process from "node:process";
import type { Asker } from "../common/asking.ts";
import type { Host } from "../host/host.ts";
import { linuxHost } from "../host/linux.ts";
import { asker } from "./asker.ts";
import type { CommandContext } from "./framework.ts";

/** The node, and somebody in a terminal; undefined when there is nobody. */
export interface Surroundings {
  readonly host: Host;
  readonly asker: Asker | undefined;
}

/** Those of this process. Questions go to standard error: what is printed may go elsewhere. */
export function surroundings(context: CommandContext): Surroundings {
  const isTalking = process.stdin.isTTY === true && process.stderr.isTTY === true;
  return {
    host: linuxHost({ root: context.root }),
    asker: isTalking ? asker({ input: process.stdin, output: process.stderr }) : undefined,
  };
}
