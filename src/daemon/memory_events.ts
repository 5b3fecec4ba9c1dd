/**
 * What the array's events mean for one storage's memory: which of its paths are to be read again. What
 * they lack (clones, renames, rollbacks, what a cascade removed) the next read of everything finds.
 */
import * as v from "valibot";
import { isDirectChild } from "../transport/direct_child.ts";
import { zvolOfDevicePath } from "../truenas/request.ts";
import type { ArrayEvent, Session } from "../truenas/session.ts";
import { pathOfRow, type Picture } from "./memory_picture.ts";

/** What an event says: paths, everything, or nothing that concerns the storage. */
export type Meaning =
  | { readonly kind: "paths"; readonly paths: readonly string[] }
  | { readonly kind: "all" }
  | { readonly kind: "nothing" };

/** Extents of the storage that events told of, and no read has yet: id to path. */
export type RecentExtents = Map<number, string>;

/** So many are kept: those of some storms. */
const MOST_EXTENTS = 1_000;

const NOTHING: Meaning = { kind: "nothing" };
const ALL: Meaning = { kind: "all" };

/** The collections that a storage follows; a role that lacks for one leaves the others. */
export function collectionsOf(kind: "iscsi" | "nvme-tcp"): readonly string[] {
  return kind === "iscsi"
    ? ["pool.dataset.query", "pool.query", "iscsi.extent.query", "iscsi.targetextent.query"]
    : ["pool.dataset.query", "pool.query", "nvmet.namespace.query"];
}

const fieldsSchema = v.object({
  disk: v.nullish(v.string()),
  path: v.nullish(v.string()),
  device_path: v.nullish(v.string()),
  extent: v.nullish(v.number()),
  name: v.nullish(v.string()),
});

/** Says what an event means; keeps in `recent` which extent is on which path. */
export function meaningOf(
  event: ArrayEvent,
  dataset: string,
  picture: Picture,
  recent: RecentExtents,
): Meaning {
  const parsed = v.safeParse(fieldsSchema, event.fields);
  // 25.04 tells of iSCSI rows without their fields, and nobody of removed ones with them.
  const fields = parsed.success ? parsed.output : undefined;
  switch (event.collection) {
    case "pool.dataset.query":
      return datasetMeaning(String(event.id), event.kind, dataset);
    case "pool.query": {
      const isOther = fields?.name !== undefined && fields.name !== dataset.split("/")[0];
      return isOther ? NOTHING : ALL;
    }
    case "iscsi.extent.query":
    case "nvmet.namespace.query": {
      const kind = event.collection === "iscsi.extent.query" ? "extent" : "namespace";
      const id = Number(event.id);
      const before = pathOfRow(picture, kind, id);
      const now = zvolOfDevicePath(fields?.device_path ?? fields?.disk ?? fields?.path);
      if (kind === "extent" && now !== undefined && isDirectChild(now, dataset)) {
        keep(recent, id, now);
      }
      if (fields === undefined && before === undefined) return unknownRow(event);
      return pathsOf([before, now], dataset);
    }
    case "iscsi.targetextent.query": {
      const before = pathOfRow(picture, "mapping", Number(event.id));
      const extent = fields?.extent ?? undefined;
      const now = extent === undefined
        ? undefined
        : pathOfRow(picture, "extent", extent) ?? recent.get(extent);
      if (fields === undefined && before === undefined) return unknownRow(event);
      return pathsOf([before, now], dataset);
    }
    default:
      return NOTHING;
  }
}

function datasetMeaning(id: string, kind: string, dataset: string): Meaning {
  if (isDirectChild(id, dataset)) return { kind: "paths", paths: [id] };
  // The dataset itself, or what it is in: its space, its key, its end.
  const isAbove = dataset === id || dataset.startsWith(`${id}/`);
  return isAbove && kind !== "added" ? ALL : NOTHING;
}

/** A row that nothing is known of: a removed one was not ours, any other may be. */
function unknownRow(event: ArrayEvent): Meaning {
  return event.kind === "removed" ? NOTHING : ALL;
}

function pathsOf(paths: readonly (string | undefined)[], dataset: string): Meaning {
  const ours = paths.filter((path) => path !== undefined && isDirectChild(path, dataset));
  const found = [...new Set(ours)].filter((path) => path !== undefined);
  return found.length === 0 ? NOTHING : { kind: "paths", paths: found };
}

function keep(recent: RecentExtents, id: number, path: string): void {
  recent.delete(id);
  recent.set(id, path);
  const [oldest] = recent.keys();
  if (recent.size > MOST_EXTENTS && oldest !== undefined) recent.delete(oldest);
}

/** Told of each event; `undefined` says that the array has ended a subscription. */
export type EventListener = (event: ArrayEvent | undefined) => void;

interface Followed {
  readonly listeners: Set<EventListener>;
  readonly begun: Promise<void>;
}

/** One subscription a collection and session, whatever the number of storages on the array. */
export class SharedEvents {
  readonly #sessions = new WeakMap<Session, Map<string, Followed>>();

  /**
   * Follows a collection for as long as the session lasts.
   *
   * @throws ArrayError `denied` without the role for it, `unsupported` over REST.
   */
  async follow(session: Session, collection: string, listener: EventListener): Promise<void> {
    const all = this.#sessions.get(session) ?? new Map<string, Followed>();
    this.#sessions.set(session, all);
    const followed = all.get(collection) ?? this.#begin(session, collection, all);
    followed.listeners.add(listener);
    await followed.begun;
  }

  /** Tells a listener of nothing more. */
  leave(session: Session, listener: EventListener): void {
    for (const { listeners } of this.#sessions.get(session)?.values() ?? []) {
      listeners.delete(listener);
    }
  }

  #begin(session: Session, collection: string, all: Map<string, Followed>): Followed {
    const listeners = new Set<EventListener>();
    const tell = (event: ArrayEvent) => {
      const isOver = event.kind === "unsubscribed";
      if (isOver) all.delete(collection);
      for (const listener of [...listeners]) listener(isOver ? undefined : event);
    };
    const begun = session.subscribe(collection, tell).then(() => {}, (error) => {
      // Whoever comes next tries again.
      all.delete(collection);
      throw error;
    });
    const followed = { listeners, begun };
    all.set(collection, followed);
    return followed;
  }
}
