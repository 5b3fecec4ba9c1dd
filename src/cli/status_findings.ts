/** What is not as it should be, in words, with what to do about it: a pure function of the state. */
import type { State, StorageState } from "../daemon/state.ts";
import { formatAge } from "./age.ts";

/** One thing to see to. */
export interface Finding {
  /** `unreachable`: nothing can be done through it at all; `degraded`: it works less well than configured. */
  readonly level: "degraded" | "unreachable";
  /** Null for what is about the node. */
  readonly storage: string | null;
  readonly text: string;
  readonly fix: string | null;
}

/** Why there is nothing from a daemon. */
export interface NoDaemon {
  readonly text: string;
  readonly fix: string;
}

/** What is known besides the state. */
export interface FindingContext {
  /** Of this program. */
  readonly version: string;
  readonly noDaemon?: NoDaemon | undefined;
}

/** Codes of an array that cannot be talked to, rather than one that refuses. */
const UNREACHABLE = ["unreachable", "timeout", "tls"];

/** Share of a storage's volumes from which its end is near. */
const NEARLY_FULL = 0.9;

/** Seconds; a caller would see it. */
const LONG_LAG = 1;

/** All of it, that of the node first. */
export function findingsOf(state: State, context: FindingContext): Finding[] {
  return [
    ...nodeFindings(state, context),
    ...state.storages.flatMap((storage) => storageFindings(storage, state)),
  ];
}

/** In one word, and as `tnblock status` exits. */
export function verdictOf(findings: readonly Finding[]): "ok" | "degraded" | "unreachable" {
  if (findings.some(({ level }) => level === "unreachable")) return "unreachable";
  return findings.length > 0 ? "degraded" : "ok";
}

function degraded(storage: string | null, text: string, fix: string | null = null): Finding {
  return { level: "degraded", storage, text, fix };
}

function nodeFindings(state: State, { version, noDaemon }: FindingContext): Finding[] {
  const { daemon, journal, storagesError } = state;
  const found: Finding[] = [];
  if (noDaemon !== undefined) found.push(degraded(null, noDaemon.text, noDaemon.fix));
  if (daemon !== null && daemon.version !== version) {
    found.push(
      degraded(
        null,
        `the daemon runs version ${daemon.version}, and this program is ${version}`,
        "systemctl restart tnblock",
      ),
    );
  }
  if (daemon !== null && daemon.loopLagSeconds >= LONG_LAG) {
    found.push(
      degraded(null, `the daemon was ${daemon.loopLagSeconds.toFixed(1)} s late with its work`),
    );
  }
  if (storagesError !== null) {
    found.push(degraded(null, storagesError.message, storagesError.hint));
  }
  for (const { op, zvol, storage, isGivenUp, failures, why } of journal.open) {
    if (!isGivenUp && failures === 0) continue;
    const what = isGivenUp ? "is left as it is" : "is not ended yet";
    const reason = why === null ? "" : `: ${why}`;
    found.push(degraded(storage, `${op} of "${zvol}", which was stopped, ${what}${reason}`));
  }
  for (const path of journal.unread) {
    found.push(degraded(null, `the journal's entry ${path} cannot be read, and is kept as it is`));
  }
  return found;
}

function storageFindings(storage: StorageState, state: State): Finding[] {
  const { id, error } = storage;
  if (error !== null) return [degraded(id, error.message, error.hint)];
  return [
    ...arrayFindings(storage),
    ...portalFindings(storage, state),
    ...diskFindings(storage),
    ...volumeFindings(storage),
  ];
}

/** The link's reason is the memory's too: it is told once. */
function arrayFindings({ id, array, memory }: StorageState): Finding[] {
  const error = array?.error ?? memory?.error ?? null;
  if (error !== null) {
    const level = UNREACHABLE.includes(error.code) ? "unreachable" : "degraded";
    return [{ level, storage: id, text: error.message, fix: error.hint }];
  }
  if (memory?.trust === "kept") {
    return [degraded(id, "the array has not been read since the daemon's start")];
  }
  if (memory?.trust === "none") return [degraded(id, "the array has not been read")];
  return [];
}

function portalFindings({ id, portals }: StorageState, { time }: State): Finding[] {
  // What the daemon has not looked at yet it will connect: no reason to worry anybody.
  const lost = portals.filter(({ state }) => state !== "live" && state !== "unseen");
  if (lost.length === 0) return [];
  const each = lost.map(({ address, state, since, error }) => {
    const how = state === "missing" ? "is not connected" : "is being reconnected";
    const age = since === null ? "" : `, for ${formatAge(since, time)}`;
    return `the portal ${address} ${how}${age}${error === null ? "" : `: ${error}`}`;
  });
  // Without a daemon, or before its first look, nobody may have wanted a disk yet.
  const isCutOff = lost.length === portals.length && lost.every(({ since }) => since !== null);
  const level = isCutOff ? "unreachable" : "degraded";
  return each.map((text) => ({ level, storage: id, text, fix: null }));
}

/** A portal that is lost takes a path from every disk: that has been said. */
function diskFindings({ id, portals, disks }: StorageState): Finding[] {
  const live = portals.filter(({ state }) => state === "live").length;
  const short = disks.filter(({ pathsUp, inUse }) => inUse === true && pathsUp < live);
  if (short.length === 0) return [];
  const names = short.slice(0, 3).map(({ name }) => name).join(", ");
  const more = short.length > 3 ? ` and ${short.length - 3} more` : "";
  return [degraded(id, `fewer paths than portals carry ${names}${more}`)];
}

function volumeFindings({ id, memory, pool, volumeLimit }: StorageState): Finding[] {
  const found: Finding[] = [];
  if (pool !== null && pool.status !== "ONLINE") {
    found.push(
      degraded(id, `the pool "${pool.name}" is ${pool.status}`, "Look at it in TrueNAS: Storage"),
    );
  }
  if (memory !== null && volumeLimit !== null && memory.volumes >= NEARLY_FULL * volumeLimit) {
    found.push(
      degraded(
        id,
        `${memory.volumes} volumes of at most ${volumeLimit} are there`,
        "Make another storage with a target or subsystem of its own",
      ),
    );
  }
  return found;
}
