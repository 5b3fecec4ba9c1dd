/** What differs from one TrueNAS release to the next, as data; the rest of the simulator asks here. */

/** The releases that the simulator plays. */
export type ReleaseName = "25.04" | "25.10.0" | "25.10" | "26";

/** The version of the request and result models. */
export type Dialect = "v25_04_2" | "v25_10_0" | "v26_0_0";

export interface Release {
  readonly name: ReleaseName;
  /** As `system.version` tells it. */
  readonly version: string;
  readonly versionShort: string;
  /** 25.04, 25.10 or 26: for comparing. */
  readonly major: 2504 | 2510 | 2600;
  /** Names below `/api/`, oldest first; `current` is not among them. */
  readonly dialects: readonly string[];
  readonly dialect: Dialect;
  /** The front proxy cuts a connection after this long without data from the server, in ms. */
  readonly idleMs: number;
}

const OLD = ["v24.10", "v25.04.0", "v25.04.1", "v25.04.2"];
const V2510 = ["v25.10.0", "v25.10.1", "v25.10.2", "v25.10.3", "v25.10.4", "v25.10.5"];

const RELEASES: Record<ReleaseName, Release> = {
  "25.04": {
    name: "25.04",
    version: "25.04.2.6",
    versionShort: "25.04.2.6",
    major: 2504,
    dialects: ["v25.04.0", "v25.04.1", "v25.04.2"],
    dialect: "v25_04_2",
    idleMs: 60_000,
  },
  "25.10.0": {
    name: "25.10.0",
    version: "25.10.0",
    versionShort: "25.10.0",
    major: 2510,
    dialects: [...OLD, "v25.10.0"],
    dialect: "v25_10_0",
    idleMs: 60_000,
  },
  "25.10": {
    name: "25.10",
    version: "25.10.6",
    versionShort: "25.10.6",
    major: 2510,
    dialects: [...OLD, ...V2510],
    dialect: "v25_10_0",
    idleMs: 60_000,
  },
  "26": {
    name: "26",
    version: "26.0.0-BETA.3",
    versionShort: "26.0.0",
    major: 2600,
    dialects: [...OLD, ...V2510, "v26.0.0"],
    dialect: "v26_0_0",
    idleMs: 3_600_000,
  },
};

export function releaseOf(name: ReleaseName): Release {
  const release = RELEASES[name];
  if (release === undefined) throw new Error(`Cannot play TrueNAS "${name}": unknown release`);
  return release;
}

/** The models behind a dialect name as it stands in the URL, or undefined when it is not offered. */
export function dialectOf(release: Release, path: string): Dialect | undefined {
  if (path === "current") return release.dialect;
  if (!release.dialects.includes(path)) return undefined;
  if (path.startsWith("v26")) return "v26_0_0";
  return path.startsWith("v25.10") ? "v25_10_0" : "v25_04_2";
}
