/** Removing one orphan, by the verbs that remove such things, after asking again whether it still is one. */
import { TnblockError } from "../common/error.ts";
import { withVolumeLock } from "../volumes/attachment.ts";
import { attachName } from "../volumes/attachment.ts";
import { destroyZvol } from "../volumes/destroy.ts";
import { finishFree, tokenFor } from "../volumes/free.ts";
import { requireOurs } from "../volumes/resolve.ts";
import { placeOf, readingOf } from "../volumes/reading.ts";
import { tokenForRows } from "../volumes/recover/leftover.ts";
import { letGoOfReading, removeReading } from "../volumes/remove_reading.ts";
import type { Storage } from "../volumes/storage.ts";
import * as zvols from "../truenas/zvols.ts";
import type { Orphan } from "./orphan.ts";

/**
 * Removes it.
 *
 * @param again asked under the volume's lock, right before the first write; throws when it is no orphan any more.
 * @throws TnblockError what `again` and the verbs throw.
 */
export async function removeOrphan(
  storage: Storage,
  orphan: Orphan,
  again: () => Promise<void>,
): Promise<void> {
  const array = await storage.array();
  const mayGo = async () => {
    await again();
    return true;
  };
  const { kind, zvol, rows } = orphan;
  const name = orphan.name.slice(orphan.name.lastIndexOf("/") + 1);
  if (kind === "mapping") {
    await again();
    return await storage.transport.removeExport(array, rows);
  }
  if (kind === "extent" || kind === "namespace") {
    await finishFree(storage, tokenForRows(storage, name, rows), mayGo);
    return;
  }
  if (zvol === undefined) throw new TnblockError("internal", `Cannot remove "${name}": no zvol`);
  requireOurs(storage, zvol);
  if (kind === "volume" || kind === "import") {
    await finishFree(storage, tokenFor(storage, zvol), mayGo);
  } else if (kind === "weight") {
    await withVolumeLock(storage, name, async () => {
      await again();
      await destroyZvol(storage, array, zvol, storage.undoDeadline());
    });
  } else {
    const reading = readingOf(zvol);
    if (reading === undefined) {
      throw new TnblockError("internal", `Cannot tell what "${name}" reads`);
    }
    const place = placeOf(reading);
    await withVolumeLock(storage, attachName({ ...place, tag: undefined }), async () => {
      await again();
      const deadline = storage.undoDeadline();
      await (reading.node === storage.node
        ? letGoOfReading(storage, array, place, zvol, deadline)
        : removeReading(storage, array, zvol, deadline));
    });
  }
  if (await zvols.read(array, zvol.name) === undefined) return;
  throw new TnblockError("busy", `Cannot remove "${zvol.name}": it is still there`, {
    hint: "Run tnblock cleanup-orphans again",
  });
}
