/**
 * What the array cannot do for this storage's key, written down for the shim: `volume_has_feature` must
 * answer without a network, from `/run/tnblock/<storage>.features`. One call (`auth.me`) a day and key
 * keeps it true, and one more after a call was denied; without the file everything is promised.
 */
import * as v from "valibot";
import type { ApiSettings } from "../common/storage_settings.ts";
import type { Log } from "../common/log.ts";
import type { Bounds, Host } from "../host/host.ts";
import type { Caller } from "../truenas/caller.ts";
import type { Release } from "../truenas/dialect.ts";
import { isUnsupported } from "../truenas/errors.ts";
import { mayCall, type Privileges, readPrivileges } from "../truenas/privileges.ts";

/** How long a note is believed: privileges change by hand, and rarely. */
const BELIEVED_MS = 24 * 3600 * 1000;

const EVERYTHING: Privileges = { isFullAdmin: true, roles: new Set() };

/** The call is worth no more than this to the request that makes it. */
const ASK_MS = 5_000;

const noteSchema = v.object({
  v: v.literal(1),
  /** Whose privileges they are: address, user and number of the key, never the key. */
  key: v.string(),
  release: v.string(),
  /** Milliseconds since the epoch; 0 when it is to be asked again. */
  checkedMs: v.number(),
  /** Features as the shim names them: `<feature>-<base|current|snap>`. */
  without: v.array(v.string()),
});

type Note = v.InferOutput<typeof noteSchema>;

/** What notes are about, and what they are kept with. */
export interface FeatureNotes {
  readonly host: Host;
  readonly log: Log;
  /** The storage's name. */
  readonly storage: string;
  readonly api: Pick<ApiSettings, "hosts" | "user" | "key">;
}

/**
 * To be called after each login: asks what the key may do unless that is known, and writes it down when
 * it has changed. Never fails: what cannot be asked is left as it was.
 */
export async function noteFeatures(
  notes: FeatureNotes,
  session: Caller,
  bounds: Bounds,
): Promise<void> {
  const { host, log } = notes;
  try {
    const before = await readNote(notes);
    const key = keyOf(notes);
    const { release } = session;
    const age = host.now() - (before?.checkedMs ?? 0);
    const isSame = before?.key === key && before.release === release.text;
    if (isSame && age >= 0 && age < BELIEVED_MS) return;
    const privileges = await readPrivileges(session, {
      ...bounds,
      deadlineMs: Math.min(ASK_MS, bounds.deadlineMs),
    }).catch((error: unknown) => {
      // Over REST nobody says who we are: then only the release counts.
      if (isUnsupported(error)) return EVERYTHING;
      throw error;
    });
    const without = missingFeatures(release, privileges);
    if (without.length > 0 && without.join() !== before?.without.join()) {
      log.warning(
        `TrueNAS ${release.text} does not do this for the API key, so PVE is not offered it: ${
          without.join(", ")
        }`,
      );
    }
    await writeNote(notes, {
      v: 1,
      key,
      release: release.text,
      checkedMs: host.now(),
      without,
    });
  } catch (error) {
    log.info(`what the API key may do stays unknown: ${String(error)}`);
  }
}

/** To be called after a denial: the next login asks again. */
export async function distrustFeatures(notes: FeatureNotes): Promise<void> {
  const before = await readNote(notes).catch(() => undefined);
  if (before === undefined || before.checkedMs === 0) return;
  await writeNote(notes, { ...before, checkedMs: 0 }).catch(() => {});
}

/**
 * What raw volumes could do, and these cannot. A snapshot is no use that can neither be rolled back to
 * nor read: a backup of a container would fail on it, where without the feature PVE suspends it.
 */
export function missingFeatures(release: Release, privileges: Privileges): string[] {
  const can = (method: string) => mayCall(privileges, method);
  const { snapshots, rename } = release.can;
  const create = can(`${snapshots}.create`);
  const clone = can(`${snapshots}.clone`);
  const all = create && can(`${snapshots}.delete`) && can(`${snapshots}.rollback`);
  const move = rename && can("pool.dataset.rename");
  return [
    ...(all ? [] : ["snapshot-current", "snapshot-snap"]),
    ...(clone ? [] : ["clone-base", "clone-snap", "copy-snap"]),
    ...(move ? [] : ["rename-current"]),
    ...(move && create ? [] : ["template-current"]),
  ].sort();
}

function fileOf({ storage }: FeatureNotes): string {
  return `/run/tnblock/${storage}.features`;
}

/** Differs whenever another key, user or array may answer. */
function keyOf({ api }: FeatureNotes): string {
  return [api.hosts.join(","), api.user ?? "", /^\d+/.exec(api.key)?.[0] ?? ""].join(" ");
}

async function readNote(notes: FeatureNotes): Promise<Note | undefined> {
  const text = await notes.host.files.readText(fileOf(notes));
  if (text === undefined) return undefined;
  try {
    const parsed = v.safeParse(noteSchema, JSON.parse(text));
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

async function writeNote(notes: FeatureNotes, note: Note): Promise<void> {
  await notes.host.files.replaceText(fileOf(notes), `${JSON.stringify(note)}\n`, 0o644);
}
