/** The secrets of a storage: `/etc/pve/priv/storage/<storage>.tnblock`, a JSON object, root only. */
import { TnblockError } from "../common/error.ts";
import { type Log, silentLog } from "../common/log.ts";
import type { HostFiles } from "../host/host.ts";

/** Where the secrets of a storage are kept; pmxcfs carries the file to all nodes. */
export function secretsPath(storage: string): string {
  return `/etc/pve/priv/storage/${storage}.tnblock`;
}

/**
 * Reads the secrets file; no file is an empty object.
 *
 * @throws TnblockError `config` when it is not a JSON object. The content is never part of the message.
 */
export async function readSecrets(
  files: HostFiles,
  storage: string,
  log: Log = silentLog,
): Promise<Record<string, unknown>> {
  const path = secretsPath(storage);
  const mode = (await files.status(path))?.mode ?? 0;
  if ((mode & 0o077) !== 0) {
    log.warning(
      `${path} can be read by others than root (mode ${mode.toString(8)}): set it to 600`,
    );
  }
  const text = await files.readText(path);
  if (text === undefined) return {};
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return { ...value };
  } catch {
    // The parser's message would repeat a piece of the secret.
  }
  throw new TnblockError(
    "config",
    `Cannot read the secrets of "${storage}": ${path} is not a JSON object`,
    {
      hint: `Set the key again: pvesm set ${storage} --tnb-api-key KEY`,
    },
  );
}
