/** What a migration writes in /etc/pve, and the way back of each: the copy, the secrets, the section. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import { secretsPath } from "../pve/secrets.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import { copyPath, readCopy, type SectionCopy, writeCopy } from "./copy.ts";
import { PERL_TYPE } from "./perl_options.ts";
import { sameOptions, type SectionText, sectionTexts } from "./section_text.ts";
import { swapSection } from "./swap_section.ts";
import type { OnFailure } from "./undo.ts";

/** Keeps what stands there now. */
export async function keepCopy(
  host: Host,
  section: SectionText,
  onFailure: OnFailure,
): Promise<void> {
  const { id } = section;
  const before = await host.files.readText(copyPath(id));
  const copy: SectionCopy = {
    ...{ schemaVersion: 1, storage: id, atMs: host.now(), section: section.text },
    storageCfg: await host.files.readText(STORAGE_CFG) ?? "",
    secrets: await host.files.readText(secretsPath(id)) ?? null,
  };
  onFailure(copyPath(id), () => restore(host, copyPath(id), before));
  await attempt(`Cannot write ${copyPath(id)}`, () => writeCopy(host.files, copy));
}

/** Writes the secrets file. */
export async function writeSecrets(
  host: Host,
  id: string,
  secrets: Readonly<Record<string, string>>,
  onFailure: OnFailure,
): Promise<void> {
  const path = secretsPath(id);
  const before = await host.files.readText(path);
  onFailure(path, () => restore(host, path, before));
  await attempt(
    `Cannot write ${path}`,
    () => host.files.replaceText(path, `${JSON.stringify(secrets)}\n`, 0o600),
  );
}

/** A file as it was. */
export async function restore(
  host: Host,
  path: string,
  before: string | undefined,
): Promise<void> {
  if (await host.files.readText(path) === before) return;
  if (before === undefined) await host.files.remove(path);
  else await host.files.replaceText(path, before, 0o600);
}

/**
 * Puts a section back where ours stands now, in whatever order its lines are; what a person has changed since stays.
 */
export async function putBack(
  host: Host,
  section: SectionText,
  ours: Readonly<Record<string, string>>,
): Promise<void> {
  const text = await host.files.readText(STORAGE_CFG) ?? "";
  const now = sectionTexts(text).find(({ id }) => id === section.id);
  if (now?.text === section.text) return;
  if (now === undefined || now.type === section.type || !sameOptions(now.options, ours)) {
    throw new TnblockError("busy", "somebody has changed it meanwhile");
  }
  await swapSection(host, now.text, section.text);
}

/** The Perl plugin's section as it was before a migration; undefined when no copy is there. */
export async function sectionBefore(
  host: Host,
  id: string,
): Promise<Readonly<Record<string, string>> | undefined> {
  const copy = await readCopy(host.files, id);
  const section = sectionTexts(copy?.section ?? "").find((one) => one.id === id);
  return section?.type === PERL_TYPE ? section.options : undefined;
}
