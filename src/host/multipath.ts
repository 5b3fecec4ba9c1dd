/** Multipath maps: read from sysfs, changed by asking multipathd, or the kernel where multipathd would not. */
import { TnblockError } from "../common/error.ts";
import { PROGRAM_MS } from "../common/timing.ts";
import { hostFailure } from "./failure.ts";
import { type Bounds, type Host, HostError } from "./host.ts";
import type { MultipathMap } from "./scan/types.ts";

const MULTIPATHD = "/usr/sbin/multipathd";
const DMSETUP = "/usr/sbin/dmsetup";

/** The wwid that multipath-tools derive from a naa; also the name of the map without friendly names. */
export function wwidOf(naa: string): string {
  return `3${naa}`;
}

/** Puts a map over all paths of that naa. */
export async function addMap(host: Host, naa: string, signal?: AbortSignal): Promise<void> {
  await ask(host, `Cannot make the multipath map of "${naa}"`, ["add", "map", wwidOf(naa)], signal);
}

/** Hands multipathd a path (kernel name, e.g. `sda`) that it has not taken by itself. */
export async function addPath(host: Host, disk: string, signal?: AbortSignal): Promise<void> {
  await ask(host, `Cannot add the path "${disk}"`, ["add", "path", disk], signal);
}

/**
 * Takes a path out of its map: what is under way on it is waited for, at most for the session's recovery
 * time-out. multipathd does not take it back by itself, see {@link addPath}; that in turn is refused
 * while the path's size is not the map's (`cli_del_path`, `ev_add_path` in multipathd).
 */
export async function removePath(host: Host, disk: string, signal?: AbortSignal): Promise<void> {
  await ask(host, `Cannot take out the path "${disk}"`, ["del", "path", disk], signal);
}

/**
 * Gives the map the size of its paths, all of which must have been rescanned before: multipathd refuses
 * while their sizes differ (`cli_resize`), and the kernel takes no map that is larger than one of its paths.
 */
export async function resizeMap(
  host: Host,
  map: Pick<MultipathMap, "mapName">,
  signal?: AbortSignal,
): Promise<void> {
  const doing = `Cannot resize the multipath map "${map.mapName}"`;
  await ask(host, doing, ["resize", "map", map.mapName], signal);
}

/** Lets waiting commands of a map without paths fail; else its removal waits for them for ever. */
export async function disableQueueing(
  host: Host,
  map: Pick<MultipathMap, "mapName">,
  signal?: AbortSignal,
): Promise<void> {
  const doing = `Cannot disable queueing of the multipath map "${map.mapName}"`;
  await ask(host, doing, ["disablequeueing", "map", map.mapName], signal);
}

/**
 * Lets commands of a map wait while it has no path, for ever: a virtual machine rather waits than
 * gets errors. Tells the kernel (a message to its dm-multipath target), as `multipathd
 * restorequeueing` brings back only what multipath.conf says, and by default that is nothing
 * (`set_no_path_retry` in libmultipath/structs_vec.c). It holds until multipathd loads the map's table
 * anew, which it does when a path comes or goes: ask again after each. Where multipath.conf says
 * `no_path_retry fail` or a number, multipathd undoes it. Without dmsetup nothing is done.
 *
 * @throws TnblockError `host-fault` when the kernel refuses it, `timeout`.
 */
export async function enableQueueing(
  host: Host,
  map: Pick<MultipathMap, "mapName">,
  signal?: AbortSignal,
): Promise<void> {
  const doing = `Cannot enable queueing of the multipath map "${map.mapName}"`;
  const args = ["message", map.mapName, "0", "queue_if_no_path"];
  try {
    const result = await host.run(DMSETUP, args, bounds(signal));
    if (result.status === 0) return;
    const said = result.stderr.trim() || `status ${result.status}`;
    throw new TnblockError("host-fault", `${doing}: dmsetup says ${said}`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code !== "ENOENT") throw hostFailure(doing, error);
  }
}

/**
 * Removes a map that nobody has open.
 *
 * @throws TnblockError `in-use`, with nothing lost.
 */
export async function removeMap(
  host: Host,
  map: Pick<MultipathMap, "mapName">,
  signal?: AbortSignal,
): Promise<void> {
  const doing = `Cannot remove the multipath map "${map.mapName}"`;
  await ask(host, doing, ["remove", "map", map.mapName], signal);
}

/** multipathd answers `ok`, or `fail` or a reason, with status 1 or (older ones) 0. */
async function ask(
  host: Host,
  doing: string,
  args: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  let output: string;
  try {
    const result = await host.run(MULTIPATHD, args, bounds(signal));
    const said = result.stdout.trim();
    if (result.status === 0 && said === "ok") return;
    output = `${said} ${result.stderr.trim()}`.trim() || `status ${result.status}`;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code === "ENOENT") {
      throw new TnblockError("host-fault", `${doing}: multipathd is not installed`, {
        cause: error,
        hint: "Run apt install multipath-tools, or set tnb-use-multipath to 0",
      });
    }
    throw hostFailure(doing, error);
  }
  if (/in use/.test(output)) throw new TnblockError("in-use", `${doing}: it is in use`);
  throw new TnblockError("host-fault", `${doing}: multipathd says ${output}`, {
    hint: "Run systemctl status multipathd",
  });
}

function bounds(signal: AbortSignal | undefined): Bounds {
  return signal === undefined ? { deadlineMs: PROGRAM_MS } : { deadlineMs: PROGRAM_MS, signal };
}
