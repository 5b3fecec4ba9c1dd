/**
 * The size of one LUN, as its paths tell it: all of them, or at least one, while those that stay behind
 * are left out. A path knows its size from its last rescan only.
 */
import type { Deadline } from "../../common/deadline.ts";
import type { Bounds } from "../../host/host.ts";
import { findScsiPaths } from "../../host/scan/scsi.ts";
import type { IscsiSession, ScsiDisk } from "../../host/scan/types.ts";
import { type Awaited, waitUntil } from "../../host/wait_until.ts";
import { fits, type WantedSize } from "../wanted_size.ts";
import { type IscsiNodeParts, liveSessions } from "./node.ts";
import { type LunIdentity, lunOf, refuseOthers, rescanAll } from "./paths.ts";

/** A path that has another size is asked again this often ... */
const ASK_AGAIN_MS = 500;
/** ... and left out after this long, when another path has the right one: the array resizes them as one. */
const LEAVE_OUT_MS = 3_000;

/** Paths that can be used together. */
export interface AgreedPaths {
  readonly paths: readonly ScsiDisk[];
  /** Bytes; what each of them has. */
  readonly bytes: number;
}

/**
 * Waits until the paths through these sessions are there and have the wanted size. What lies on
 * sessions that do not answer says nothing, right or wrong.
 *
 * @throws TnblockError `volume-replaced` when another disk answers at the LUN.
 */
export async function agreeOnSize(
  parts: IscsiNodeParts,
  identity: LunIdentity,
  carrying: readonly IscsiSession[],
  wanted: WantedSize,
  limit: Bounds,
  deadline: Deadline,
): Promise<Awaited<AgreedPaths> | undefined> {
  const { host, log } = parts;
  const start = host.monotonicMs();
  let askedAt = start;
  return await waitUntil(host, limit, async () => {
    const paths = (await findScsiPaths(host.files, lunOf(parts, identity)))
      .filter((path) => carrying.some((session) => session.name === path.session));
    refuseOthers(identity, paths);
    const bytes = typeof wanted === "number"
      ? wanted
      : Math.max(0, ...paths.map((path) => path.sizeBytes));
    if (!fits(bytes, wanted)) return await askAgain([...paths]);
    const right = paths.filter((path) => path.node !== undefined && path.sizeBytes === bytes);
    if (right.length > 0 && right.length === paths.length) return { paths: right, bytes };
    const behind = paths.filter((path) => path.sizeBytes !== bytes);
    if (right.length > 0 && right.length + behind.length === paths.length) {
      const live = await liveSessions(parts);
      const mayFollow = host.monotonicMs() - start < LEAVE_OUT_MS &&
        behind.some((path) => live.some((session) => session.name === path.session));
      if (!mayFollow) {
        for (const { name, sizeBytes } of behind) {
          log.warning(
            `path ${name} is left out: it has ${sizeBytes} bytes still, the others ${bytes}`,
          );
        }
        return { paths: right, bytes };
      }
    }
    return await askAgain(behind);
  });

  /** A rescan may have come a moment before the array had the new size, or before the path was up. */
  async function askAgain(paths: readonly ScsiDisk[]): Promise<undefined> {
    if (paths.length === 0 || host.monotonicMs() - askedAt < ASK_AGAIN_MS) return undefined;
    await rescanAll(parts, paths, await liveSessions(parts), deadline);
    askedAt = host.monotonicMs();
    return undefined;
  }
}
