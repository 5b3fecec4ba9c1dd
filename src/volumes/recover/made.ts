/** Taking back a volume or clone that nobody was told of. */
import { isAtLeast } from "../../truenas/dialect.ts";
import * as snapshots from "../../truenas/snapshots.ts";
import * as zvols from "../../truenas/zvols.ts";
import { tagOf } from "../../transport/transport.ts";
import { attachName, withVolumeLock } from "../attachment.ts";
import { destroyZvol } from "../destroy.ts";
import { tokenFor } from "../free.ts";
import { guestsNaming } from "../guests.ts";
import { knownSinceMs } from "../known_disks.ts";
import { isOfOperation } from "../ownership.ts";
import { letGoOfReading } from "../remove_reading.ts";
import { zvolPath } from "../storage.ts";
import { decideMade, type MadeHow, type MadeView, type Verdict } from "./decide.ts";
import {
  type DetailsOf,
  type Ending,
  endingOf,
  freeIfStill,
  isHere,
  type Recovery,
} from "./recovery.ts";

type Making = Recovery<DetailsOf<"alloc" | "import" | "clone" | "reading">>;

/** Recovers alloc, import, clone, and the clone for reading a snapshot. */
export async function recoverMade(recovery: Making): Promise<Ending> {
  const { storage, details } = recovery;
  const { zvol, verdict } = await decideNow(recovery);
  if (verdict.do !== "act" || zvol === undefined) {
    return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
  }
  if (verdict.how === "note-unmarked") {
    const { guid, createdMs } = zvol;
    return {
      outcome: "waits",
      why: verdict.why,
      keep: { unmarked: { guid: guid ?? null, createdMs, sinceMs: storage.host.now() } },
    };
  }
  if (verdict.how === "destroy-unmarked") return await destroyUnmarked(recovery, zvol);
  if (details.op === "reading") return await removeClone(recovery, details);
  // Compared with this very zvol under the volume's lock.
  const last = await freeIfStill<Verdict>(
    recovery.within,
    tokenFor(storage, zvol),
    verdict,
    async () => onlyTo("free", (await decideNow(recovery)).verdict),
  );
  return last.do === "act" ? { outcome: "undone", why: last.why } : endingOf(last);
}

/** What is decided from a look at this moment. */
async function decideNow(
  recovery: Making,
): Promise<{ readonly zvol: zvols.Zvol | undefined; readonly verdict: Verdict<MadeHow> }> {
  const { storage, entry, settleMs } = recovery;
  const { zvol, view } = await look(recovery);
  return { zvol, verdict: decideMade(entry, view, storage.host.now(), settleMs) };
}

/** What was decided first asks for one way: whatever asks for another one now begins anew later. */
function onlyTo(how: MadeHow, verdict: Verdict<MadeHow>): Verdict {
  if (verdict.do !== "act" || verdict.how === how) return verdict;
  return { do: "wait", why: "it was changed a moment ago" };
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
      isHere: details.op === "reading"
        ? await isReadSince(storage, entry, details)
        : identity !== undefined && await isHere(storage, entry.zvol, identity),
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

/** Whether a snapshot was activated by another process than the dead one, which may have done so itself. */
async function isReadSince(
  storage: Making["storage"],
  { deadMs }: Making["entry"],
  { of }: DetailsOf<"reading">,
): Promise<boolean> {
  if (deadMs === undefined) return false;
  const sinceMs = await knownSinceMs(storage, attachName({ ...of, tag: undefined }));
  return sinceMs !== undefined && sinceMs > deadMs;
}

async function destroyUnmarked(recovery: Making, seen: zvols.Zvol): Promise<Ending> {
  const { storage, within, array, entry } = recovery;
  return await withVolumeLock(storage, entry.zvol, async () => {
    const now = await decideNow(recovery);
    const verdict = onlyTo("destroy-unmarked", now.verdict);
    if (verdict.do !== "act") return endingOf(verdict);
    if (now.zvol === undefined || now.zvol.guid !== seen.guid) {
      return { outcome: "waits", why: "it was changed a moment ago" };
    }
    await destroyZvol(within, array, now.zvol, storage.undoDeadline());
    return { outcome: "undone", why: verdict.why };
  });
}

async function removeClone(recovery: Making, { of }: DetailsOf<"reading">): Promise<Ending> {
  const { storage, within, array } = recovery;
  return await withVolumeLock(storage, attachName({ ...of, tag: undefined }), async () => {
    const { zvol, verdict: found } = await decideNow(recovery);
    const verdict = onlyTo("free", found);
    if (verdict.do !== "act") return endingOf(verdict);
    if (zvol === undefined) return endingOf({ do: "close", why: "it is gone" });
    await letGoOfReading(within, array, of, zvol, storage.undoDeadline());
    return { outcome: "undone", why: verdict.why };
  });
}
