/**
 * Which TrueNAS this is and what it can do. TrueNAS pins a dialect of its API by the path that one
 * connects to; the capabilities follow from release and dialect together.
 *
 * The newest dialect is asked for first: `zfs.resource.destroy`, the only way to destroy on 26 that
 * reports a failure, has no model in the 25.10 dialect and is refused there (ENOMETHOD). A dialect
 * that the server does not know is a 404 at the upgrade and costs one TLS handshake; whoever
 * remembers the dialect of the last session pays nothing. `GET /api/versions` would cost a
 * connection of its own every time.
 */
import { ArrayError } from "./errors.ts";

/** The dialects we speak. 25.04 has models for its storage methods in `current` only. */
export const DIALECTS = ["v26.0.0", "v25.10.0", "current"] as const;

/** One of {@link DIALECTS}: the last part of the path `/api/<dialect>`. */
export type Dialect = typeof DIALECTS[number];

/** What a release in a dialect offers. */
export interface Capabilities {
  /** `zfs.resource.query` (25.10+), which opens only the datasets that are asked for. */
  readonly zfsResource: boolean;
  /** `max_depth` of `zfs.resource.query`, and `zfs.resource.destroy` and `zfs.resource.snapshot.*` (26+). */
  readonly zfsResourceWrites: boolean;
  /** The name space of the snapshot methods: `pool.snapshot` from 25.10 on. */
  readonly snapshots: "zfs.snapshot" | "pool.snapshot";
  /** NVMe over TCP, `nvmet.*` (25.10+). */
  readonly nvmet: boolean;
  /** `core.set_options({legacy_jobs: false})` makes job methods answer with their result (25.10+). */
  readonly jobResults: boolean;
  /** `pool.dataset.rename` (25.10+). */
  readonly rename: boolean;
  /** A recursive destroy also takes clones and held snapshots with it (26+): never ask for one. */
  readonly recursiveDestroysClones: boolean;
  /**
   * `pool.dataset.create` of this line crashes after the commit, in some updates, when optional
   * fields are left out (seen in the field with 25.10.4).
   */
  readonly needsExplicitFields: boolean;
}

/** A release of TrueNAS as the session found it. */
export interface Release {
  /** As the array says it, e.g. `25.10.6` or `26.0.0-BETA.3`. */
  readonly text: string;
  /** E.g. `[25, 10, 6]`. */
  readonly numbers: readonly number[];
  /** What follows the numbers of a preview, e.g. `BETA.3`. */
  readonly preview: string | undefined;
  readonly dialect: Dialect;
  readonly can: Capabilities;
}

/** Compares two releases by their numbers; a preview comes before its release. */
export function compareReleases(
  a: Pick<Release, "numbers" | "preview">,
  b: Pick<Release, "numbers" | "preview">,
): number {
  for (let index = 0; index < Math.max(a.numbers.length, b.numbers.length); index++) {
    const difference = (a.numbers[index] ?? 0) - (b.numbers[index] ?? 0);
    if (difference !== 0) return difference;
  }
  if (a.preview === b.preview) return 0;
  if (a.preview === undefined) return 1;
  if (b.preview === undefined) return -1;
  return a.preview < b.preview ? -1 : 1;
}

/** Whether the release is of this line or a later one; a preview of a line counts as the line. */
export function isAtLeast(
  release: Pick<Release, "numbers">,
  major: number,
  minor: number,
): boolean {
  const [haveMajor = 0, haveMinor = 0] = release.numbers;
  return haveMajor > major || (haveMajor === major && haveMinor >= minor);
}

/**
 * Reads the answer of `system.version`: `25.10.6`, `TrueNAS-25.04.2.6`, `TrueNAS-SCALE-24.10.2.4`,
 * `26.0.0-BETA.3`.
 *
 * @throws ArrayError `unsupported` for what is older than 25.04 or not understood.
 */
export function parseRelease(text: string, dialect: Dialect): Release {
  const match = /^(?:TrueNAS-)?(?:SCALE-)?(\d+(?:\.\d+)+)(?:-(.+))?$/.exec(text.trim());
  const numbers = match?.[1]?.split(".").map(Number) ?? [];
  if (match === null || !isAtLeast({ numbers }, 25, 4)) {
    throw new ArrayError(
      "unsupported",
      `Cannot use TrueNAS "${text.trim()}": tnblock needs TrueNAS 25.04 or newer`,
      { outcome: "answered", hint: "Update TrueNAS to 25.04 or newer" },
    );
  }
  const since2510 = isAtLeast({ numbers }, 25, 10);
  const since26 = isAtLeast({ numbers }, 26, 0);
  return {
    text: text.trim(),
    numbers,
    preview: match[2],
    dialect,
    can: {
      zfsResource: since2510,
      zfsResourceWrites: since26 && dialect !== "v25.10.0",
      snapshots: since2510 ? "pool.snapshot" : "zfs.snapshot",
      nvmet: since2510,
      jobResults: since2510,
      rename: since2510,
      recursiveDestroysClones: since26,
      needsExplicitFields: since2510 && !since26,
    },
  };
}

/** The dialect that suits a release best. A session in another one was opened on an old memory. */
export function bestDialect(release: Pick<Release, "numbers">): Dialect {
  if (isAtLeast(release, 26, 0)) return "v26.0.0";
  return isAtLeast(release, 25, 10) ? "v25.10.0" : "current";
}
