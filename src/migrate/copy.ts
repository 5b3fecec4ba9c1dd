/** The copy of what stood in storage.cfg, for the way back: `/etc/pve/priv/tnblock/migrate-<storage>.json`, root only. */
import * as v from "valibot";
import type { HostFiles } from "../host/host.ts";

const schema = v.object({
  schemaVersion: v.literal(1),
  storage: v.string(),
  /** Milliseconds since the epoch. */
  atMs: v.number(),
  /** The section as it stood there. */
  section: v.string(),
  /** The whole file as it was then, for a person to look at. */
  storageCfg: v.string(),
  /** What the secrets file held; null when there was none. */
  secrets: v.nullable(v.string()),
});

/** A copy. */
export type SectionCopy = v.InferOutput<typeof schema>;

/** Where it is; pmxcfs carries it to all nodes. */
export function copyPath(storage: string): string {
  return `/etc/pve/priv/tnblock/migrate-${storage}.json`;
}

/** Undefined where there is none, or none that can be read. */
export async function readCopy(
  files: HostFiles,
  storage: string,
): Promise<SectionCopy | undefined> {
  try {
    const parsed = v.safeParse(
      schema,
      JSON.parse(await files.readText(copyPath(storage)) ?? "null"),
    );
    return parsed.success ? parsed.output : undefined;
  } catch {
    return undefined;
  }
}

/** Writes it. */
export async function writeCopy(files: HostFiles, copy: SectionCopy): Promise<void> {
  await files.replaceText(copyPath(copy.storage), `${JSON.stringify(copy, null, 2)}\n`, 0o600);
}
