/** Checking a storage when it is added or changed: everything that its use needs, in one round of reads. */
import * as datasets from "../truenas/datasets.ts";
import * as zvols from "../truenas/zvols.ts";
import { refuseShared } from "./exclusive.ts";
import { checkDataset, OWNER_PROPERTY, ownerValue } from "./ownership.ts";
import type { Storage } from "./storage.ts";
import { ensureWeight } from "./weight.ts";

/**
 * Logs in, checks the dataset, the service, the target or subsystem and its portals, and that none of
 * them is another storage's; then writes on the dataset that it belongs to this storage, unless it says so
 * already, and gives an iSCSI target its weight.
 *
 * @throws TnblockError for the first thing that is not as it must be.
 */
export async function validateStorage(storage: Storage): Promise<null> {
  const { settings, transport, deadline, log } = storage;
  const array = await storage.array();
  const [listing, groundwork] = await Promise.all([
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.survey(array, deadline),
  ]);
  checkDataset(storage, listing.parent);
  groundwork.warnings.forEach((text) => log.warning(text));
  await refuseShared(storage, array, listing, deadline);
  if (listing.parent.userProperties[OWNER_PROPERTY] === undefined) {
    deadline.check();
    await datasets.setUserProperties(array, settings.dataset, {
      [OWNER_PROPERTY]: ownerValue(storage),
    });
    const written = await datasets.read(array, settings.dataset, deadline.bounds());
    // Two storages may have claimed it at the same moment: the one whose mark stays has it.
    if (written !== undefined) checkDataset(storage, written);
    log.info(`dataset "${settings.dataset}" now belongs to storage "${settings.id}"`);
  }
  await ensureWeight(storage, array, listing, groundwork, deadline, true);
  return null;
}
