/** Going on with what was done to a volume that stays, or goes: free, resize, and what follows a rollback. */
import { tagOf } from "../../transport/transport.ts";
import * as zvols from "../../truenas/zvols.ts";
import { withVolumeLock } from "../attachment.ts";
import { readToken } from "../free.ts";
import { guestsNaming, refuseRunningElsewhere } from "../guests.ts";
import { look } from "../look.ts";
import { resize } from "../resize.ts";
import { isResyncBegun, resyncSize } from "../resync_size.ts";
import { zvolPath } from "../storage.ts";
import { decideFree, decideResize, decideRollback, type FreeView, type Verdict } from "./decide.ts";
import {
  type DetailsOf,
  type Ending,
  endingOf,
  freeIfStill,
  isHere,
  isSameZvol,
  type Recovery,
} from "./recovery.ts";

/** Recovers a free. */
export async function recoverFree(recovery: Recovery<DetailsOf<"free">>): Promise<Ending> {
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
  const isSame = zvol !== undefined && plan.made !== null &&
    plan.made.guid === (zvol.guid ?? null) && plan.made.createdMs === zvol.createdMs;
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

/** Recovers a resize. */
export async function recoverResize(
  { storage, within, array, entry, details }: Recovery<DetailsOf<"resize">>,
): Promise<Ending> {
  const path = zvolPath(storage, entry.zvol);
  const found = await zvols.read(array, path, storage.deadline.bounds());
  const same = found !== undefined && isSameZvol(details.made, found) ? found : undefined;
  const verdict = decideResize(details, { volsize: same?.volsize });
  if (verdict.do !== "act" || same === undefined) {
    return endingOf(verdict.do === "act" ? { do: "close", why: "it is gone" } : verdict);
  }
  const volume = { zvol: entry.zvol, tag: details.tag };
  // Grows when it must; lets this node follow in any case.
  await resize(within, volume, Math.max(details.to, same.volsize), false);
  if (details.thick && verdict.how === "follow" && same.reserved < same.volsize) {
    await zvols.reserve(array, path, same.volsize);
  }
  return { outcome: "finished", why: verdict.why };
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
