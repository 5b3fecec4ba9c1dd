/**
 * What install has put on this node, what was there before, and what it is in the middle of: kept on disk, so
 * that a run that was killed is put right by the next one.
 */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { HostFiles } from "../host/host.ts";
import { NOTES_FOLDER } from "./places.ts";

const RECORD_FILE = `${NOTES_FOLDER}/record.json`;

/** The parts of an installation, in the order in which they are put in place. */
export const STEP_IDS = [
  "program",
  "units",
  "shim",
  "completions",
  "lvm-filter",
  "multipath",
  "nvme-rule",
  "daemon",
  "pve-services",
] as const;

/** One of {@link STEP_IDS}. */
export type StepId = typeof STEP_IDS[number];

const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));
const placed = v.object({ digest, mode: v.number() });
/** A copy of a file that was there; null: there was none. */
const before = v.nullable(v.object({ ...placed.entries, copy: v.string() }));

const schema = v.object({
  schemaVersion: v.literal(1),
  /** Of what is installed; null before the first installation has come to its end. */
  version: v.nullable(v.string()),
  /** What we put where. */
  files: v.record(v.string(), placed),
  /** What `--roll-back` brings back. */
  previous: v.nullable(v.object({ version: v.string(), files: v.record(v.string(), before) })),
  /** What was begun and has not come to its end. */
  pending: v.nullable(v.object({
    kind: v.picklist(["install", "roll-back", "uninstall"]),
    begun: v.array(v.picklist(STEP_IDS)),
    before: v.record(v.string(), before),
    services: v.object({ isEnabled: v.boolean(), isActive: v.boolean() }),
  })),
});

/** The notes of this node. */
export type InstallRecord = v.InferOutput<typeof schema>;
/** A copy of a file as it was, or null where there was none. */
export type Before = v.InferOutput<typeof before>;
/** What was begun. */
export type Pending = NonNullable<InstallRecord["pending"]>;

/** Of a node where nothing was installed. */
export const NO_RECORD: InstallRecord = {
  schemaVersion: 1,
  version: null,
  files: {},
  previous: null,
  pending: null,
};

/** Reads the notes; {@link NO_RECORD} where there are none. */
export async function readRecord(files: HostFiles): Promise<InstallRecord> {
  const text = await attempt(
    `Cannot tell what is installed`,
    () => files.readText(RECORD_FILE),
  );
  if (text === undefined) return NO_RECORD;
  const parsed = v.safeParse(schema, jsonOf(text));
  if (parsed.success) return parsed.output;
  throw new TnblockError("host-fault", `Cannot tell what is installed: ${RECORD_FILE} is damaged`, {
    hint:
      `Move ${RECORD_FILE} away and run tnblock install: it then takes what is there for its own`,
  });
}

/** Writes the notes; they are there after a loss of power too. */
export async function writeRecord(files: HostFiles, record: InstallRecord): Promise<void> {
  const { schemaVersion, version, files: placed, previous, pending } = record;
  const ordered = { schemaVersion, version, files: placed, previous, pending };
  const text = `${JSON.stringify(ordered, null, 2)}\n`;
  await files.replaceText(RECORD_FILE, text, 0o644, { durable: true });
}

/** Removes the notes, when nothing is installed any more. */
export async function removeRecord(files: HostFiles): Promise<void> {
  await files.remove(RECORD_FILE, { durable: true });
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
