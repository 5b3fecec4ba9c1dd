/** Taking back a volume or clone that nobody was told of. */
import { isDeepStrictEqual } from "node:util";
import { isAtLeast } from "../../truenas/dialect.ts";
import * as snapshots from "../../truenas/snapshots.ts";
import * as zvols from "../../truenas/zvols.ts";
import { type ExportRow, tagOf } from "../../transport/transport.ts";
import { attachName, withVolumeLock } from "../attachment.ts";
import { destroyZvol } from "../destroy.ts";
import { removeRows } from "../export_rows.ts";
import { tokenFor } from "../free.ts";
import { guestsNaming } from "../guests.ts";
import { knownSinceMs } from "../known_disks.ts";
import { isOfOperation } from "../ownership.ts";
import { letGoOfReading } from "../remove_reading.ts";
import { zvolPath } from "../storage.ts";
import { decideMade, type MadeHow, type MadeView, type Verdict } from "./decide.ts";
import { findLeftover, type Leftover, tokenForRows } from "./leftover.ts";
import {
  CHANGED,
  type DetailsOf,
  type Ending,
  endingOf,
  freeIfStill,
  ifVolumeIsIdle,
  isHere,
  NOT_SETTLED,
  type Recovery,
} from "./recovery.ts";
import { type Coming, comingOfMade, mayAct } from "./settle.ts";

type Making = Recovery<DetailsOf<"alloc" | "import" | "clone" | "reading">>;

/** What is there at this moment, and what is decided from it. */
interface Now {
  readonly zvol: zvols.Zvol | undefined;
  readonly leftover: Leftover;
  readonly verdict: Verdict<MadeHow>;
  readonly coming: Coming;
}

/** Recovers alloc, import, clone, and the clone for reading a snapshot. */
export async function recoverMade(recovery: Making): Promise<Ending> {
  const { storage, within, details, entry } = recovery;
  const { zvol, leftover, verdict, coming } = await decideNow(recovery);
  if (verdict.do !== "act") return endingOf(verdict);
  if (!mayAct(recovery.pace, coming)) return NOT_SETTLED;
  if (verdict.how === "remove-rows" && leftover.kind === "its") {
    if (details.op === "reading") return await removeRowsOfReading(recovery, details);
    const token = tokenForRows(storage, entry.zvol, leftover.rows);
    return await undone(() =>
      freeIfStill<Verdict>(within, token, CHANGED, () => stillTheRows(recovery, leftover.rows))
    );
  }
  if (zvol === undefined) return endingOf({ do: "close", why: "it is gone" });
  if (verdict.how === "note-unmarked") {
    const { guid, createdMs } = zvol;
    return {
      outcome: "waits",
      why: verdict.why,
      keep: { unmarked: { guid: guid ?? null, createdMs, sinceMs: storage.host.monotonicMs() } },
    };
  }
  if (verdict.how === "destroy-unmarked") return await destroyUnmarked(recovery, zvol);
  if (details.op === "reading") return await removeClone(recovery, details);
  // Compared with this very zvol under the volume's lock.
  return await undone(() =>
    freeIfStill<Verdict>(
      within,
      tokenFor(storage, zvol),
      CHANGED,
      async () => onlyTo("free", (await decideNow(recovery)).verdict),
    )
  );
}

async function undone(work: () => Promise<Verdict>): Promise<Ending> {
  const last = await work();
  return last.do === "act" ? { outcome: "undone", why: last.why } : endingOf(last);
}

/** What is decided from a look at this moment. */
async function decideNow(recovery: Making): Promise<Now> {
  const { storage, entry, settleMs, seen } = recovery;
  const { zvol, leftover, view } = await look(recovery);
  const nowMs = storage.host.monotonicMs();
  const verdict = decideMade(entry, view, seen.unmarked, nowMs, settleMs);
  return { zvol, leftover, verdict, coming: comingOfMade(view) };
}

/** What was decided first asks for one way: whatever asks for another one now begins anew later. */
function onlyTo(how: MadeHow, verdict: Verdict<MadeHow>): Verdict {
  return verdict.do !== "act" || verdict.how === how ? verdict : CHANGED;
}

async function stillTheRows(recovery: Making, rows: readonly ExportRow[]): Promise<Verdict> {
  const { leftover, verdict } = await decideNow(recovery);
  if (leftover.kind === "its" && !isDeepStrictEqual(leftover.rows, rows)) return CHANGED;
  return onlyTo("remove-rows", verdict);
}

async function look(
  { storage, array, entry, details }: Making,
): Promise<Pick<Now, "zvol" | "leftover"> & { readonly view: MadeView }> {
  const path = zvolPath(storage, entry.zvol);
  const wait = storage.deadline.bounds();
  const [zvol, found] = await Promise.all([
    zvols.read(array, path, wait),
    storage.transport.lookUp(array, path, storage.deadline),
  ]);
  const names = zvol === undefined ? [] : await snapshots.names(array, path, wait);
  const identity = found.kind === "ours" ? found.export.identity : undefined;
  const tag = identity === undefined ? undefined : tagOf(identity);
  const leftover: Leftover = zvol === undefined
    ? await findLeftover(storage, array, entry.zvol, details.operation, found)
    : { kind: "none" };
  return {
    zvol,
    leftover,
    view: {
      isExported: identity !== undefined,
      rows: leftover.kind,
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
      return endingOf(CHANGED);
    }
    await destroyZvol(within, array, now.zvol, storage.undoDeadline());
    return { outcome: "undone", why: verdict.why };
  });
}

async function removeClone(recovery: Making, { of }: DetailsOf<"reading">): Promise<Ending> {
  const { storage, within, array } = recovery;
  return await ifVolumeIsIdle(storage, attachName({ ...of, tag: undefined }), async () => {
    const { zvol, verdict: found } = await decideNow(recovery);
    const verdict = onlyTo("free", found);
    if (verdict.do !== "act") return endingOf(verdict);
    if (zvol === undefined) return endingOf({ do: "close", why: "it is gone" });
    await letGoOfReading(within, array, of, zvol, storage.undoDeadline());
    return { outcome: "undone", why: verdict.why };
  });
}

/** Lets go of what the dead process may have attached, and removes the rows, all under the lock of who would use it. */
async function removeRowsOfReading(
  recovery: Making,
  { of }: DetailsOf<"reading">,
): Promise<Ending> {
  const { storage, within, array, entry } = recovery;
  return await ifVolumeIsIdle(storage, attachName({ ...of, tag: undefined }), async () => {
    const { leftover, verdict: found } = await decideNow(recovery);
    const verdict = onlyTo("remove-rows", found);
    if (verdict.do !== "act") return endingOf(verdict);
    if (leftover.kind !== "its") return endingOf(CHANGED);
    await letGoOfReading(within, array, of, undefined, storage.undoDeadline());
    const last = await stillTheRows(recovery, leftover.rows);
    if (last.do !== "act") return endingOf(last);
    await removeRows(within, entry.zvol, leftover.rows, storage.undoDeadline());
    return { outcome: "undone", why: verdict.why };
  });
}
