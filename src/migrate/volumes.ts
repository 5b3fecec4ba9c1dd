/** The volumes of a storage whose section is to become one of ours: shown, marked, and unmarked when it comes to nothing. */
import { TnblockError } from "../common/error.ts";
import { guestVolnames } from "../host/guest_volnames.ts";
import type { Host } from "../host/host.ts";
import {
  type Adoptable,
  adoptDataset,
  type Adoption,
  type AdoptOptions,
  adoptVolume,
  findAdoptable,
  volidOfAdoptable,
} from "../pve/adoption.ts";
import { parseVolumeName } from "../pve/volume_name.ts";
import * as datasets from "../truenas/datasets.ts";
import * as zvols from "../truenas/zvols.ts";
import { checkDataset, OWNER_PROPERTY, ownerValue } from "../volumes/ownership.ts";
import type { Storage } from "../volumes/storage.ts";
import type { OnFailure } from "./undo.ts";

/** What a look at the array found. */
export interface Volumes {
  readonly adoption: Adoption;
  /** Volids that guests name and that will not be there after: each with the reason. */
  readonly lost: readonly string[];
  /** What the array says about service, portals and access. */
  readonly warnings: readonly string[];
}

/**
 * Looks at the array with the settings to come: dataset, target or subsystem, portals, volumes. Changes nothing.
 *
 * @throws TnblockError for what the storage could not work with.
 */
export async function lookAtVolumes(
  host: Host,
  storage: Storage,
  options: AdoptOptions,
): Promise<Volumes> {
  const { settings, transport, deadline } = storage;
  const { warnings } = await transport.survey(await storage.array(), deadline);
  const adoption = await findAdoptable(storage, options);
  const refused = new Map(adoption.refused.map(({ zvol, why }) => [zvol, why]));
  const volids = new Map(
    adoption.adoptable.map((one) => [one.zvol, volidOfAdoptable(settings.id, one)]),
  );
  const { volnames, unread } = await guestVolnames(host, settings.id);
  if (unread.length > 0) {
    throw new TnblockError(
      "host-fault",
      `Cannot tell which volumes guests use: ${unread[0]} cannot be read`,
      { hint: "See that pve-cluster runs" },
    );
  }
  const lost: string[] = [];
  for (const volname of volnames) {
    const zvol = zvolOf(volname);
    const volid = `${settings.id}:${volname}`;
    if (zvol === undefined) {
      lost.push(`${volid}: tnblock does not know names of this form`);
      continue;
    }
    const why = refused.get(zvol);
    if (why !== undefined) lost.push(`${volid}: ${why}`);
    const now = volids.get(zvol);
    const own = volname.slice(volname.lastIndexOf("/") + 1);
    if (now !== undefined && !isCloudInit(own) && now !== `${settings.id}:${own}`) {
      lost.push(`${volid}: on the array it is ${now}`);
    }
  }
  return { adoption, lost, warnings };
}

function zvolOf(volname: string): string | undefined {
  try {
    return parseVolumeName(volname).zvol;
  } catch {
    return undefined;
  }
}

/** In either form of its name. */
function isCloudInit(volname: string): boolean {
  return zvolOf(volname)?.endsWith("-cloudinit") === true;
}

/** Marks the dataset as this storage's, unless it says so. */
export async function claimDataset(
  storage: Storage,
  { formerOwner }: Adoption,
  options: AdoptOptions,
  onFailure: OnFailure,
): Promise<void> {
  const { settings: { dataset }, deadline } = storage;
  const array = await storage.array();
  const before = await datasets.read(array, dataset, deadline.bounds());
  const owner = before?.userProperties[OWNER_PROPERTY];
  if (owner === ownerValue(storage)) return;
  onFailure(`the mark of dataset ${dataset}`, async () => {
    await datasets.setUserProperties(await storage.array(), dataset, { [OWNER_PROPERTY]: owner });
  });
  if (formerOwner !== undefined) return await adoptDataset(storage, formerOwner, options);
  if (before !== undefined) checkDataset(storage, before);
  await datasets.setUserProperties(array, dataset, { [OWNER_PROPERTY]: ownerValue(storage) });
  const after = await datasets.read(array, dataset, deadline.bounds());
  // Two storages may have claimed it at the same moment: the one whose mark stays has it.
  if (after !== undefined) checkDataset(storage, after);
}

/** The marks that adopting writes or takes away. */
const MARKS = [
  ...["schema", "cluster", "storage", "volume", "op"],
  ...["rename-to", "rename-id", "importing", "reads", "node"],
].map((name) => `tnblock:${name}`);

/** Marks them, one after the other. */
export async function adoptAll(
  storage: Storage,
  adoptable: readonly Adoptable[],
  options: AdoptOptions,
  onFailure: OnFailure,
  tell: (line: string) => void,
): Promise<void> {
  for (const one of adoptable) {
    const { name, guid, userProperties } = one.found;
    onFailure(`the marks of ${name}`, async () => {
      const array = await storage.array();
      const now = await zvols.read(array, name);
      // What was freed and made again meanwhile never had other marks.
      if (now === undefined || now.guid !== guid) return;
      await zvols.setUserProperties(
        array,
        name,
        Object.fromEntries(
          MARKS.filter((mark) => now.userProperties[mark] !== userProperties[mark])
            .map((mark) => [mark, userProperties[mark]]),
        ),
      );
    });
    await adoptVolume(storage, one, options);
    tell(`adopted ${volidOfAdoptable(storage.settings.id, one) ?? name}`);
  }
}
