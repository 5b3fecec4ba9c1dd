/** Plays `blockdev` of util-linux, the one command that tnblock gives: `--flushbufs`. */

import type { Answer } from "./scripts.ts";
import type { Tree } from "./tree.ts";

/** Runs one command line; the devices are noted in `flushed`, up to the first that is not there. */
export function blockdev(tree: Tree, args: readonly string[], flushed: string[]): Answer {
  const [command, ...devices] = args;
  if (command !== "--flushbufs" || devices.length === 0) {
    return { status: 1, err: `blockdev: unknown command: ${args.join(" ")}\n` };
  }
  for (const device of devices) {
    if (!tree.has(device)) {
      return {
        status: 1,
        err: `blockdev: cannot open ${device}: No such file or directory\n`,
      };
    }
    flushed.push(device);
  }
  return { status: 0 };
}
