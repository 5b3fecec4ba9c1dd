/**
 * Giving a volume an export again whose export was lost: deleted by hand, or not restored with the array's
 * configuration. Its bytes are there, and nothing on the array says which name a guest knew them by.
 */
import { TnblockError } from "../common/error.ts";
import { type ExportTag, sameTag, type VolumeRef } from "../common/volume.ts";
import { findGuests } from "../host/guest_configs.ts";
import { allLunsBut } from "../transport/numbers.ts";
import { type ExportLookup, type Groundwork, tagOf } from "../transport/transport.ts";
import type { Caller } from "../truenas/caller.ts";
import * as zvols from "../truenas/zvols.ts";
import { letGoOfKnown, withVolumeLock } from "./attachment.ts";
import { refuseRunningElsewhere } from "./guests.ts";
import { readJournal } from "./journal.ts";
import { readKnownDisk } from "./known_disks.ts";
import { look } from "./look.ts";
import { checkDataset, isRenameBegun, renamedFrom } from "./ownership.ts";
import { readingOf } from "./reading.ts";
import { requireOurs } from "./resolve.ts";
import { type Storage, zvolPath } from "./storage.ts";
import { tagText } from "./tag_text.ts";
import { unfinishedName } from "./unfinished_frees.ts";
import { isWeight } from "./weight.ts";

/** A guest whose configuration names the volume. */
export interface RebindGuest {
  readonly vmid: number;
  readonly node: string;
  readonly kind: "qemu" | "lxc";
  /** Snapshots of it that name the volume. */
  readonly snapshots: readonly string[];
}

/** What is to be done. */
export interface RebindPlan {
  readonly zvol: zvols.Zvol;
  /** What exports it now: nothing, or half of an export. */
  readonly now: "nothing" | "an extent without a LUN";
  /** The number or uuid that guests' configurations have; undefined when none names it. */
  readonly former: ExportTag | undefined;
  /** Whether the new name will be the former one: a LUN that is free can be had again, a uuid never. */
  readonly keepsName: boolean;
  readonly guests: readonly RebindGuest[];
}

/** What came of it. */
export interface Rebound {
  readonly volume: VolumeRef;
  readonly former: VolumeRef | undefined;
  readonly guests: readonly RebindGuest[];
}

/**
 * Looks whether a volume can be exported again, and what that changes. Changes nothing.
 *
 * @param zvol last component of its path.
 * @throws TnblockError `not-found`, `not-ours`; `exists` when it is exported; `in-use` or `busy` while somebody works on
 *   it or uses it; `invalid` when guests' configurations know it by different names.
 */
export async function planRebind(storage: Storage, zvol: string): Promise<RebindPlan> {
  return (await plan(storage, await storage.array(), zvol)).plan;
}

interface Planned {
  readonly plan: RebindPlan;
  readonly groundwork: Groundwork;
}

async function plan(storage: Storage, array: Caller, name: string): Promise<Planned> {
  const { deadline, settings, transport } = storage;
  const path = zvolPath(storage, name);
  const refuse = (why: string, hint?: string) =>
    new TnblockError(
      "busy",
      `Cannot export "${path}" again: ${why}`,
      hint === undefined ? {} : { hint },
    );
  const [{ zvol, found }, listing, groundwork] = await Promise.all([
    look(storage, array, name, deadline),
    zvols.list(array, settings.dataset, deadline.bounds()),
    transport.survey(array, deadline),
  ]);
  checkDataset(storage, listing.parent);
  if (zvol === undefined) {
    throw new TnblockError("not-found", `Cannot find the volume "${name}": there is no "${path}"`);
  }
  requireOurs(storage, zvol);
  if (isWeight(zvol) || readingOf(zvol) !== undefined) {
    throw new TnblockError("invalid", `Cannot export "${path}" again: it is no guest's volume`);
  }
  if (zvol.name !== path || isRenameBegun(zvol) || await isHalfRenamed(storage, array, zvol)) {
    throw refuse("a rename of it has not ended", "The tnblock daemon ends it within minutes");
  }
  const now = missingPart(path, found);
  const freeing = await unfinishedName(storage, name, zvol);
  if (freeing !== undefined) {
    throw refuse(
      "a free of it has begun",
      `To end it, and destroy its data: pvesm free ${settings.id}:${freeing}`,
    );
  }
  const { entries } = await readJournal(storage.host);
  const open = entries.find((entry) => entry.storage === settings.id && entry.zvol === name);
  if (open !== undefined) throw refuse(`an operation on it has not ended: ${open.details.op}`);
  if (groundwork.full !== undefined) throw groundwork.full;
  const { guests, former } = await whoNames(storage, name);
  const keepsName = former?.kind === "lun" && transport.kind === "iscsi" &&
    !groundwork.taken.has(former.lun);
  return { plan: { zvol, now, former, keepsName, guests }, groundwork };
}

/** Whether its export is still that of the name that it had: a rename that stopped is ended, not covered up. */
async function isHalfRenamed(
  { transport, deadline }: Storage,
  array: Caller,
  zvol: zvols.Zvol,
): Promise<boolean> {
  const former = renamedFrom(zvol);
  return former !== undefined && (await transport.lookUp(array, former, deadline)).kind !== "none";
}

function missingPart(path: string, found: ExportLookup): RebindPlan["now"] {
  if (found.kind === "none") return "nothing";
  if (found.kind === "half") return "an extent without a LUN";
  const how = found.kind === "ours"
    ? `it is exported as ${tagText(tagOf(found.export.identity))}`
    : `it is exported as ${found.what}`;
  throw new TnblockError("exists", `Cannot export "${path}" again: ${how}`, {
    hint: found.kind === "ours" && !found.export.enabled
      ? "It is switched off: switch it on in TrueNAS"
      : "Nothing is to be done when guests know it by this name",
  });
}

/** Who names the volume, and by which number or uuid: all by the same one, or somebody else's disk may be meant. */
async function whoNames(
  storage: Storage,
  zvol: string,
): Promise<{ readonly guests: readonly RebindGuest[]; readonly former: ExportTag | undefined }> {
  const tags: ExportTag[] = [];
  const { guests, unread } = await findGuests(storage.host, {
    storage: storage.settings.id,
    contains: zvol,
    isMeant: (volname) => {
      const own = volname.slice(volname.lastIndexOf("/") + 1);
      const parts = [own, ...volname.split("/")].filter((part) => part.startsWith(`vol-${zvol}-`));
      const tag = parts.map((part) => tagIn(part.slice(`vol-${zvol}-`.length)))
        .find((one) => one !== undefined);
      if (tag !== undefined && !tags.some((one) => sameTag(one, tag))) tags.push(tag);
      return tag !== undefined || own === zvol;
    },
    exceptNode: "",
  });
  const what = `Cannot export "${zvolPath(storage, zvol)}" again`;
  if (unread.length > 0) {
    throw new TnblockError("host-fault", `${what}: who names it is not known (${unread[0]})`);
  }
  if (tags.length > 1) {
    throw new TnblockError(
      "invalid",
      `${what}: guests know "${zvol}" by different names, ${tags.map(tagText).join(" and ")}`,
      { hint: "Look which of them means this disk, and take the other out of its configuration" },
    );
  }
  const owners = new Set(guests.map(({ vmid }) => vmid));
  // Several guests name a base only by its clones.
  if (owners.size > 1 && !zvol.startsWith("base-")) {
    throw new TnblockError(
      "invalid",
      `${what}: several guests name it, ${[...owners].join(", ")}`,
      { hint: "Look which of them it belongs to, and take it out of the others" },
    );
  }
  return { guests, former: tags[0] };
}

function tagIn(text: string): ExportTag | undefined {
  const [, lun, uuid] = /^(?:lun(\d{1,5})|ns([0-9a-f-]{36}))$/.exec(text) ?? [];
  if (lun !== undefined) return { kind: "lun", lun: Number(lun) };
  return uuid === undefined ? undefined : { kind: "namespace", uuid };
}

/**
 * Exports it again, after another look that must find the very same zvol in need of it.
 *
 * @throws TnblockError as {@link planRebind}, and `in-use` while its guest runs.
 */
export async function rebind(storage: Storage, name: string, seen: RebindPlan): Promise<Rebound> {
  return await withVolumeLock(storage, name, async () => {
    const { deadline, transport } = storage;
    const array = await storage.array();
    const { plan: now, groundwork } = await plan(storage, array, name);
    if (now.zvol.guid !== seen.zvol.guid || now.zvol.createdMs !== seen.zvol.createdMs) {
      throw new TnblockError(
        "volume-replaced",
        `Cannot export "${now.zvol.name}" again: it is another zvol by now`,
      );
    }
    if (JSON.stringify([now.former, now.now]) !== JSON.stringify([seen.former, seen.now])) {
      throw new TnblockError(
        "busy",
        `Cannot export "${now.zvol.name}" again: it is not as it was shown`,
        { hint: "Run tnblock rebind again" },
      );
    }
    await refuseRunningElsewhere(storage, { zvol: name, tag: undefined }, "export again");
    const known = await readKnownDisk(storage, name);
    if (known !== undefined) await letGoOfKnown(storage, { zvol: name, tag: undefined }, known);
    deadline.check();
    const wanted = now.keepsName && now.former?.kind === "lun"
      ? { ...groundwork, taken: allLunsBut(now.former.lun) }
      : groundwork;
    const isNew = () => Promise.resolve(false);
    const made = await transport.createExport(array, now.zvol.name, wanted, isNew, deadline);
    return {
      volume: { zvol: name, tag: tagOf(made.identity) },
      former: now.former === undefined ? undefined : { zvol: name, tag: now.former },
      guests: now.guests,
    };
  });
}
