/** Going on with what was done to a volume that stays, or goes: free, resize, and what follows a rollback. */
import { tagOf } from "../../transport/transport.ts";
import * as zvols from "../../truenas/zvols.ts";
import { withVolumeLock } from "../attachment.ts";
import { type FreeToken, readToken } from "../free.ts";
import { guestsNaming, refuseRunningElsewhere } from "../guests.ts";
import type { JournalEntry } from "../journal.ts";
import { look } from "../look.ts";
import { resize } from "../resize.ts";
import { isResyncBegun, resyncSize } from "../resync_size.ts";
import { hasFence, raiseFence } from "../rollback_fence.ts";
import { forgetRollback } from "../rollback_notes.ts";
import { type Storage, zvolPath } from "../storage.ts";
import { isWithdrawn, unfinishedName } from "../unfinished_frees.ts";
import {
  decideFree,
  decidePromised,
  decideResize,
  decideRollback,
  type FreeView,
  type Verdict,
} from "./decide.ts";
import {
  type DetailsOf,
  type Ending,
  endingOf,
  freeIfStill,
  isHere,
  isSameZvol,
  NOT_SETTLED,
  type Recovery,
} from "./recovery.ts";
import { comingOfResize, mayAct } from "./settle.ts";

/** Recovers a free. */
export async function recoverFree(recovery: Recovery<DetailsOf<"free">>): Promise<Ending> {
  if (recovery.details.promised === true) return await recoverPromised(recovery);
  const { within, details: { token } } = recovery;
  const first = await decideFreeNow(recovery);
  if (first.do !== "act") return endingOf(first);
  const last = await freeIfStill(within, token, first, () => decideFreeNow(recovery));
  return last.do === "act" ? { outcome: "finished", why: last.why } : endingOf(last);
}

async function decideFreeNow(
  { storage, array, details }: Recovery<DetailsOf<"free">>,
): Promise<Verdict> {
  const plan = readToken(storage, details.token);
  const { zvol, found } = await look(storage, array, plan.zvol, storage.deadline);
  const isSame = zvol !== undefined && isPlannedZvol(plan, zvol);
  const exported = found.kind === "ours" ? found.export : undefined;
  const isPlanned = exported?.rows.every((row) =>
    plan.rows.some((one) => one.kind === row.kind && one.id === row.id)
  );
  const view: FreeView = {
    zvol: zvol === undefined ? "gone" : isSame ? "same" : "other",
    export: isPlanned === undefined ? "partly" : isPlanned ? "whole" : "other",
    named: await guestsNaming(storage, {
      zvol: plan.zvol,
      tag: exported === undefined ? undefined : tagOf(exported.identity),
    }),
    isHere: exported !== undefined && await isHere(storage, plan.zvol, exported.identity),
  };
  return decideFree(view);
}

/** Recovers a free that was promised: with an entry of its own, as its worker would. */
async function recoverPromised(recovery: Recovery<DetailsOf<"free">>): Promise<Ending> {
  const first = await decidePromisedNow(recovery);
  if (first.do !== "act") return endingOf(first);
  const { storage, details: { token } } = recovery;
  const last = await freeIfStill<Verdict>(
    storage,
    token,
    { do: "close", why: "it was handed out again, or made anew" },
    () => decidePromisedNow(recovery),
  );
  return last.do === "act" ? { outcome: "finished", why: last.why } : endingOf(last);
}

async function decidePromisedNow(
  { storage, array, details }: Recovery<DetailsOf<"free">>,
): Promise<Verdict> {
  const plan = readToken(storage, details.token);
  const { zvol, found } = await look(storage, array, plan.zvol, storage.deadline);
  const exported = found.kind === "ours" ? found.export : undefined;
  const rows = found.kind === "ours" ? found.export.rows : found.kind === "half" ? found.rows : [];
  const isPlanned = found.kind !== "foreign" &&
    rows.every((row) => plan.rows.some((one) => one.kind === row.kind && one.id === row.id));
  const isNoted = zvol !== undefined &&
    await unfinishedName(storage, plan.zvol, zvol) !== undefined;
  return decidePromised({
    zvol: zvol === undefined ? "gone" : isPlannedZvol(plan, zvol) ? "same" : "other",
    export: isPlanned ? "same" : "other",
    note: !plan.noted || await isWithdrawn(storage, plan.zvol)
      ? "withdrawn"
      : isNoted
      ? "stands"
      : "unknown",
    named: await guestsNaming(storage, { zvol: plan.zvol, tag: undefined }),
    isHere: exported !== undefined && await isHere(storage, plan.zvol, exported.identity),
  });
}

function isPlannedZvol({ made }: FreeToken, zvol: zvols.Zvol): boolean {
  return made !== null && made.guid === (zvol.guid ?? null) && made.createdMs === zvol.createdMs;
}

/** Recovers a resize. */
export async function recoverResize(
  { storage, within, array, entry, details, pace }: Recovery<DetailsOf<"resize">>,
): Promise<Ending> {
  const path = zvolPath(storage, entry.zvol);
  const found = await zvols.read(array, path, storage.deadline.bounds());
  const same = found !== undefined && isSameZvol(details.made, found) ? found : undefined;
  const view = { volsize: same?.volsize, reserved: same?.reserved ?? 0 };
  const verdict = decideResize(details, view);
  if (verdict.do !== "act" || same === undefined) {
    return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
  }
  if (!mayAct(pace, comingOfResize(details, view))) return NOT_SETTLED;
  const volume = { zvol: entry.zvol, tag: details.tag };
  // Grows when it must; lets this node follow in any case.
  await resize(within, volume, Math.max(details.to, same.volsize), false);
  if (details.thick && verdict.how === "follow" && same.reserved < same.volsize) {
    await zvols.reserve(array, path, same.volsize);
  }
  return { outcome: "finished", why: verdict.why };
}

/**
 * Keeps a rollback whose process has ended from being done under the guest, should somebody unlock and start it
 * before it is surely over.
 */
export async function fenceRollback(storage: Storage, entry: JournalEntry): Promise<void> {
  const { zvol: name, details } = entry;
  if (details.op !== "rollback" || details.isOver === true) return;
  await withVolumeLock(storage, name, async () => {
    const array = await storage.array();
    const path = zvolPath(storage, name);
    const zvol = await zvols.read(array, path, storage.deadline.bounds());
    if (zvol === undefined || !isSameZvol(details.made, zvol)) return;
    // By an earlier daemon: whoever rolls back takes away what was there before.
    if (await hasFence(storage, array, path)) return;
    await raiseFence(storage, array, { zvol: name, tag: details.tag }, zvol);
  });
}

/** Recovers what follows a rollback. */
export async function recoverRollback(
  { storage, within, array, entry, details }: Recovery<DetailsOf<"rollback">>,
): Promise<Ending> {
  const volume = { zvol: entry.zvol, tag: details.tag };
  return await withVolumeLock(storage, entry.zvol, async () => {
    const { zvol, found } = await look(storage, array, entry.zvol, storage.deadline);
    const exported = found.kind === "ours" ? found.export : undefined;
    const isSame = zvol !== undefined && isSameZvol(details.made, zvol);
    const isBegun = zvol !== undefined && isResyncBegun(zvol);
    await forgetRollback(storage, entry.zvol);
    const verdict = decideRollback({
      isSame: isSame && exported !== undefined,
      isResyncBegun: isBegun,
      isEnabled: exported?.enabled === true,
      isUsed: isBegun && exported !== undefined && exported.enabled &&
        (await storage.transport.users(exported.identity)).length > 0,
    });
    if (verdict.do !== "act" || zvol === undefined || exported === undefined) {
      return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
    }
    if (exported.enabled) await refuseRunningElsewhere(storage, volume, "show the new size of");
    await resyncSize(within, array, { zvol, export: exported }, storage.undoDeadline());
    return { outcome: "finished", why: verdict.why };
  });
}
