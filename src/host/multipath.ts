/** Multipath maps: read from sysfs, changed by asking multipathd. */
import { TnblockError } from "../common/error.ts";
import { PROGRAM_MS } from "../common/timing.ts";
import { type Host, HostError } from "./host.ts";
import type { MultipathMap, ScsiScan } from "./scan/types.ts";

const MULTIPATHD = "/usr/sbin/multipathd";

/** The map over the volume of that naa (32 hex digits, lower case). */
export function mapFor(scan: Pick<ScsiScan, "maps">, naa: string): MultipathMap | undefined {
  return scan.maps.find((map) => map.naa === naa);
}

/** The wwid that multipath-tools derive from a naa; also the name of the map without friendly names. */
export function wwidOf(naa: string): string {
  return `3${naa}`;
}

/** Whether there is a multipathd that could be asked. */
export async function hasMultipathd(host: Host): Promise<boolean> {
  return await host.files.status(MULTIPATHD) !== undefined;
}

/** Puts a map over all paths of that naa. */
export async function addMap(host: Host, naa: string, signal?: AbortSignal): Promise<void> {
  await ask(host, `Cannot make the multipath map of "${naa}"`, ["add", "map", wwidOf(naa)], signal);
}

/** Hands multipathd a path (kernel name, e.g. `sda`) that it has not taken by itself. */
export async function addPath(host: Host, disk: string, signal?: AbortSignal): Promise<void> {
  await ask(host, `Cannot add the path "${disk}"`, ["add", "path", disk], signal);
}

/** Gives the map the size of its paths, all of which must have been rescanned before. */
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
  const deadlineMs = PROGRAM_MS;
  let output: string;
  try {
    const result = await host.run(
      MULTIPATHD,
      args,
      signal === undefined ? { deadlineMs } : { deadlineMs, signal },
    );
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
    const code = error.code === "ETIMEDOUT" ? "timeout" : "host-fault";
    throw new TnblockError(code, `${doing}: ${error.code}`, { cause: error });
  }
  if (/in use/.test(output)) throw new TnblockError("in-use", `${doing}: it is in use`);
  throw new TnblockError("host-fault", `${doing}: multipathd says ${output}`, {
    hint: "Run systemctl status multipathd",
  });
}
