/** `tnblock status` for people: plain tables that fit their terminal, then what is to be seen to. */
import type { DaemonState, State, StorageState } from "../daemon/state.ts";
import { formatAge, formatSeconds } from "./age.ts";
import type { Finding } from "./status_findings.ts";
import { formatBytes, renderTable } from "./table.ts";

/** Columns of a text that nobody asked to be narrower; nothing is cut or left out. */
const WIDE = Infinity;

/** Narrower than this nothing can be read anyway. */
const NARROWEST = 30;

/** What stands for what is not known. */
const NOTHING = "-";

/** @param columns of the terminal; undefined when it is none. */
export function renderStatus(
  state: State,
  findings: readonly Finding[],
  columns: number | undefined,
): string {
  const width = columns === undefined ? WIDE : Math.max(NARROWEST, columns);
  const { storages } = state;
  const parts = [
    headLines(state).map((line) => wrapped(line, width)).join(""),
    storages.length === 0 && state.storagesError === null
      ? wrapped("No storage of type tnblock is configured for this node", width)
      : storageTable(state, findings, width),
    arrayTable(state, width),
    portalTable(state, width),
    unseenLines(state, width),
    lastErrors(state, width),
    findingLines(findings, width),
  ];
  return parts.filter((part) => part !== "").join("\n");
}

function headLines({ daemon, node, time, journal }: State): string[] {
  const open = journal.open.length;
  const inJournal = open === 0 ? [] : [`${open} in the journal`];
  if (daemon === null) {
    return [
      [`tnblock on ${node}: nothing from a daemon; this is what the node shows`, ...inJournal]
        .join(", "),
    ];
  }
  const { requests } = daemon;
  return [
    `tnblock ${daemon.version} on ${node}: running for ${formatAge(daemon.startedAt, time)}, ` +
    `process ${daemon.pid}, ${formatBytes(daemon.residentBytes)} of memory`,
    [
      `${requests.total} requests answered`,
      `${requests.failed} failed`,
      `${requests.underWay} under way`,
      ...inJournal,
    ].join(", "),
  ];
}

function storageTable({ storages }: State, findings: readonly Finding[], width: number): string {
  const head = ["STORAGE", "STATE", "PORTALS", "IN-USE", "IDLE", "USED", "FREE", "VOLUMES", "AGE"];
  const rows = storages.map((storage) => {
    const { portals, disks, space, memory, error } = storage;
    const known = error === null;
    const used = disks.filter(({ inUse }) => inUse === true).length;
    const live = portals.filter(({ state }) => state === "live").length;
    return [
      storage.id,
      stateOf(storage, findings),
      known ? `${live}/${portals.length}` : NOTHING,
      known ? String(used) : NOTHING,
      known ? String(disks.length - used) : NOTHING,
      space === null ? NOTHING : cellOf(space.used),
      space === null ? NOTHING : cellOf(space.available),
      memory === null ? NOTHING : String(memory.volumes),
      ageOf(memory),
    ];
  });
  return fitted(head, rows, width, ["FREE", "IDLE", "USED", "AGE", "IN-USE"]);
}

function stateOf({ id, error }: StorageState, findings: readonly Finding[]): string {
  const own = findings.filter(({ storage }) => storage === id);
  if (error !== null) return "error";
  if (own.some(({ level }) => level === "unreachable")) return "down";
  return own.length > 0 ? "degraded" : "ok";
}

function ageOf(memory: StorageState["memory"]): string {
  if (memory === null || memory.trust === "none") return NOTHING;
  return memory.trust === "kept" ? "old" : formatSeconds(memory.ageSeconds ?? 0);
}

function arrayTable({ storages, time }: State, width: number): string {
  const head = ["STORAGE", "TRANSPORT", "ARRAY", "TRUENAS", "SESSION", "QUEUE"];
  const rows = storages.filter(({ error }) => error === null).map(({ id, transport, array }) => {
    if (array === null) return [id, transport ?? NOTHING, NOTHING, NOTHING, NOTHING, NOTHING];
    const waiting = Object.values(array.queued).reduce((sum, count) => sum + count, 0);
    return [
      id,
      transport ?? NOTHING,
      array.address ?? array.hosts.join(","),
      shortRelease(array.release),
      array.state === "up" ? formatAge(array.since, time) : array.state,
      `${waiting}+${array.writing}`,
    ];
  });
  return rows.length === 0 ? "" : fitted(head, rows, width, ["TRANSPORT", "TRUENAS", "QUEUE"]);
}

function portalTable({ storages, time }: State, width: number): string {
  const head = ["STORAGE", "PORTAL", "STATE", "FOR", "SPEED", "INTERFACE"];
  const rows = storages.flatMap(({ id, portals }) =>
    portals.map((portal) => [
      id,
      portal.address,
      portal.state,
      portal.since === null ? NOTHING : formatAge(portal.since, time),
      portal.bytesPerSecond === null ? NOTHING : speedOf(portal.bytesPerSecond),
      portal.interface ?? NOTHING,
    ])
  );
  return rows.length === 0 ? "" : fitted(head, rows, width, ["INTERFACE", "SPEED", "FOR"]);
}

/** In the first seconds of a daemon nothing is wrong yet, and nothing right. */
function unseenLines({ storages }: State, width: number): string {
  return storages.flatMap(({ id, portals }) => {
    const unseen = portals.filter(({ state }) => state === "unseen").map(({ address }) => address);
    if (unseen.length === 0) return [];
    return [wrapped(`${id}: not looked at yet, and not connected: ${unseen.join(", ")}`, width)];
  }).join("");
}

/** The newest failure of each storage. */
function lastErrors({ daemon, time }: State, width: number): string {
  const newest = new Map<string, DaemonState["errors"][number]>();
  for (const error of daemon?.errors ?? []) newest.set(error.storage, error);
  return [...newest.values()].map(({ storage, at, method, code, message, hint, count }) => {
    const often = count > 1 ? `, ${count} times` : "";
    const what = storage === "" ? method : `${method} on ${storage}`;
    return wrapped(`Last error of ${what}, ${formatAge(at, time)} ago${often}:`, width) +
      wrapped(`${message} [${code}]`, width, "  ") +
      (hint === null ? "" : wrapped(`hint: ${hint}`, width, "  "));
  }).join("");
}

function findingLines(findings: readonly Finding[], width: number): string {
  return findings.map(({ level, storage, text, fix }) => {
    const mark = level === "unreachable" ? "[x]" : "[!]";
    return wrapped(`${mark} ${storage === null ? "" : `${storage}: `}${text}`, width, "", "    ") +
      (fix === null ? "" : wrapped(`fix: ${fix}`, width, "    "));
  }).join("");
}

/** A table without those of the columns to drop, in their order, that are too many. */
function fitted(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  width: number,
  drop: readonly string[],
): string {
  const table = renderTable(head, rows);
  const widest = Math.max(...table.split("\n").map(({ length }) => length));
  const [first, ...others] = drop;
  if (widest <= width || first === undefined) return table;
  const keep = (_: string, index: number) => head[index] !== first;
  return fitted(head.filter(keep), rows.map((row) => row.filter(keep)), width, others);
}

/** Breaks a line between words; a word that is too long stays whole, so that it can be copied. */
function wrapped(text: string, width: number, indent = "", hanging = indent): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of printable(text).split(/\s+/).filter((word) => word !== "")) {
    const isEmpty = line.trim() === "";
    if (!isEmpty && line.length + 1 + word.length > width) {
      lines.push(line);
      line = hanging + word;
    } else line += isEmpty ? word : ` ${word}`;
  }
  return [...lines, line].map((each) => `${each}\n`).join("");
}

/** Messages hold names from arrays: no control character of theirs reaches the terminal. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x08\x0b-\x1f\x7f-\x9f]/g, "?");
}

/** A cell holds no blanks: what follows can be taken apart by them. */
function cellOf(bytes: number): string {
  return formatBytes(bytes).replace(" ", "");
}

/** In bits, as interfaces are sold. */
function speedOf(bytesPerSecond: number): string {
  const megabits = bytesPerSecond / 125_000;
  return megabits >= 1000 ? `${megabits / 1000}Gb/s` : `${megabits}Mb/s`;
}

/** `TrueNAS-SCALE-25.10.1` is 25.10.1. */
function shortRelease(release: string | null): string {
  return release?.replace(/^.*?(?=\d+\.\d)/, "") ?? NOTHING;
}
