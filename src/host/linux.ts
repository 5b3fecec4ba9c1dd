/**
 * The real node. This file and its parts (`linux_*.ts` beside it, imported by nobody else) are the
 * only ones that run programs and touch files, sockets and timers, and the only ones that know that
 * the node may be a folder: a simulated one, where a regular file below `/dev` counts as a block
 * device and control files are taken by the simulator instead of the kernel.
 */
import { randomInt, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { hostname } from "node:os";
import type { Host } from "./host.ts";
import { wait } from "./linux_deadline.ts";
import { linuxFabrics } from "./linux_fabrics.ts";
import { linuxFiles } from "./linux_files.ts";
import { linuxLocal } from "./linux_local.ts";
import { linuxLock } from "./linux_lock.ts";
import { readKernelLog } from "./linux_log.ts";
import { linuxLinkPlace, linuxPrepareLinks } from "./linux_mount.ts";
import { openRoot, type Root } from "./linux_root.ts";
import { runProgram } from "./linux_run.ts";
import { exchangeTcp } from "./linux_tcp.ts";
import { linuxUse } from "./linux_use.ts";

export { isJournal } from "./linux_journal.ts";
export { linuxPrograms } from "./linux_programs.ts";

/**
 * The node below `root` (the machine itself when absent).
 *
 * @throws TnblockError `host-fault` when there is no `root`.
 */
export function linuxHost(
  options: { root?: string | undefined; nodeName?: string | undefined } = {},
): Host {
  const root = openRoot(options.root ?? "/");
  const lock = linuxLock(root);
  const monotonicMs = () => performance.now();
  return {
    files: linuxFiles(root, lock),
    nodeName: options.nodeName ?? nameOf(root),
    now: () => Date.now(),
    monotonicMs,
    wait,
    randomUuid: () => randomUUID(),
    randomInteger: (limit) => randomInt(limit),
    run: (program, args, runOptions) => runProgram(root, program, args, runOptions),
    lock,
    exchangeTcp,
    ...linuxLocal(root),
    ...linuxFabrics(root, lock),
    ...linuxUse(root),
    linkPlace: linuxLinkPlace(root),
    prepareLinks: linuxPrepareLinks(root, lock),
    // A simulated kernel says all it has to say in its answers.
    kernelLog: (sinceMs) =>
      root.isFolder ? Promise.resolve([]) : readKernelLog(monotonicMs() - sinceMs),
  };
}

/** As PVE does it: the host name up to the first dot. */
function nameOf(root: Root): string {
  let name = hostname();
  if (root.isFolder) {
    try {
      name = readFileSync(`${root.directory}/etc/hostname`, "utf8").trim();
    } catch {
      // A folder without a name is played on this machine.
    }
  }
  return name.split(".")[0] ?? name;
}
