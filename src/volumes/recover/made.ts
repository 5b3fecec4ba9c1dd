/** Taking back a volume or clone that nobody was told of. */
import { isDeepStrictEqual } from "node:util";
import { isAtLeast } from "../../truenas/dialect.ts";
import * as snapshots from "../../truenas/snapshots.ts";
import * as zvols from "../../truenas/zvols.ts";
import { type DiskIdentity, tagOf } from "../../transport/transport.ts";
import { attachName, withVolumeLock } from "../attachment.ts";
import { destroyZvol } from "../destroy.ts";
import { finishFree, tokenFor } from "../free.ts";
import { guestsNaming } from "../guests.ts";
import { readKnownDisk } from "../known_disks.ts";
import { isOfOperation } from "../ownership.ts";
import { letGoOfReading } from "../remove_reading.ts";
import { zvolPath } from "../storage.ts";
import { decideMade, type MadeView } from "./decide.ts";
import { type DetailsOf, type Ending, endingOf, type Recovery } from "./recovery.ts";

type Making = Recovery<DetailsOf<"alloc" | "import" | "clone" | "reading">>;

/** Recovers alloc, import, clone, and the clone for reading a snapshot. */
export async function recoverMade(recovery: Making): Promise<Ending> {
  const { storage, entry, details, settleMs } = recovery;
  const { zvol, view } = await look(recovery);
  const nowMs = storage.host.now();
  const verdict = decideMade(entry, view, nowMs, settleMs);
  if (verdict.do !== "act" || zvol === undefined) {
    return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
  }
  if (verdict.how === "note-unmarked") {
    const { guid, createdMs } = zvol;
    return {
      outcome: "waits",
      why: verdict.why,
      keep: { unmarked: { guid: guid ?? null, createdMs, sinceMs: nowMs } },
    };
  }
  if (verdict.how === "destroy-unmarked") return await destroyUnmarked(recovery, zvol, verdict.why);
  if (details.op === "reading") return await removeClone(recovery, details, verdict.why);
  // Everything is looked at once more under the volume's lock, and compared with this very zvol.
  await finishFree(recovery.within, tokenFor(storage, zvol));
  return { outcome: "undone", why: verdict.why };
}

async function look(
  { storage, array, entry, details }: Making,
): Promise<{ readonly zvol: zvols.Zvol | undefined; readonly view: MadeView }> {
  const path = zvolPath(storage, entry.zvol);
  const wait = storage.deadline.bounds();
  const [zvol, found] = await Promise.all([
    zvols.read(array, path, wait),
    storage.transport.lookUp(array, path, storage.deadline),
  ]);
  const names = zvol === undefined ? [] : await snapshots.names(array, path, wait);
  const identity = found.kind === "ours" ? found.export.identity : undefined;
  const tag = identity === undefined ? undefined : tagOf(identity);
  return {
    zvol,
    view: {
      zvol: zvol === undefined ? undefined : {
        isOfOperation: isOfOperation(zvol, details.operation),
        isUnmarkedClone: isUnmarkedClone(array, details, zvol),
        guid: zvol.guid ?? null,
        createdMs: zvol.createdMs,
        hasSnapshots: names.length > 0,
      },
      named: await guestsNaming(storage, { zvol: entry.zvol, tag }),
      isHere: identity !== undefined && await isHere(storage, entry.zvol, identity),
    },
  };
}

function isUnmarkedClone(
  array: Making["array"],
  details: Making["details"],
  zvol: zvols.Zvol,
): boolean {
  // Where the marks come with the clone, one without them is somebody else's.
  if (!("origin" in details) || !isAtLeast(array.release, 26, 0)) return false;
  return zvol.origin === details.origin &&
    zvol.userProperties["tnblock:op"] === undefined &&
    zvol.userProperties["tnblock:volume"] === undefined;
}

async function isHere(
  storage: Making["storage"],
  zvol: string,
  identity: DiskIdentity,
): Promise<boolean> {
  const known = await readKnownDisk(storage, zvol);
  if (known !== undefined && isDeepStrictEqual(known.identity, identity)) return true;
  return (await storage.transport.users(identity)).length > 0;
}

async function destroyUnmarked(
  { storage, within, array, entry, details }: Making,
  seen: zvols.Zvol,
  why: string,
): Promise<Ending> {
  return await withVolumeLock(storage, entry.zvol, async () => {
    const now = await zvols.read(array, seen.name, storage.deadline.bounds());
    if (now === undefined || now.guid !== seen.guid || !isUnmarkedClone(array, details, now)) {
      return { outcome: "waits", why: "it was changed a moment ago" };
    }
    await destroyZvol(within, array, now, storage.undoDeadline());
    return { outcome: "undone", why };
  });
}

async function removeClone(
  { storage, within, array, entry }: Making,
  { of, operation }: DetailsOf<"reading">,
  why: string,
): Promise<Ending> {
  return await withVolumeLock(storage, attachName({ ...of, tag: undefined }), async () => {
    const path = zvolPath(storage, entry.zvol);
    const now = await zvols.read(array, path, storage.deadline.bounds());
    if (now === undefined || !isOfOperation(now, operation)) {
      return { outcome: "closed", why: "what has its name is another's" };
    }
    await letGoOfReading(within, array, of, now, storage.undoDeadline());
    return { outcome: "undone", why };
  });
}
