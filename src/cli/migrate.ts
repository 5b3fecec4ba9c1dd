/** `tnblock migrate`: moves a storage between the Perl plugin and tnblock, after showing what becomes of it. */
import { Cancelled } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { lineLog } from "../common/log.ts";

import { type Attached, attachHere } from "../migrate/attach.ts";
import type { Finding } from "../migrate/findings.ts";
import { certificateToTrust, prepareMigration } from "../migrate/migrate.ts";
import type { Prepared } from "../migrate/prepared.ts";
import { prepareBack } from "../migrate/migrate_back.ts";
import { gatherNodeFacts } from "../migrate/node_facts.ts";
import type { Trust } from "../migrate/to_tnblock.ts";
import type { MigrateWorld } from "../migrate/world.ts";
import { readSections } from "../pve/storage_cfg.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import type { Surroundings } from "./surroundings.ts";
import { printable, renderTable } from "./table.ts";

/** What the user says. */
export interface MigrateFlags {
  readonly storage: string;
  readonly back: boolean;
  /** SHA-256 of the certificate that is to be trusted, where the plugin trusted any. */
  readonly trust: string | undefined;
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
  /** Another node asks. */
  readonly nodeFacts: boolean;
  /** Another node says that the section has changed. */
  readonly nodeAttach: boolean;
}

/** Looks, asks, does it; ends with the exit status. */
export async function runMigrate(
  context: CommandContext,
  flags: MigrateFlags,
  { host, asker, version }: Surroundings & { readonly version: string },
): Promise<number> {
  if (flags.yes && flags.dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
  const leaving = new AbortController();
  const world: MigrateWorld = {
    ...{ host, version, signal: leaving.signal },
    log: lineLog((line) => context.err(`${printable(line)}\n`), () => 0),
    limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
    tell: (line) => flags.json || context.err(`${printable(line)}\n`),
  };
  if (flags.nodeFacts) {
    context.out(`${JSON.stringify(await gatherNodeFacts(host, version))}\n`);
    return EXIT.done;
  }
  if (flags.nodeAttach) return await tellAttached(context, world, flags.storage);
  try {
    const prepared = flags.back
      ? await prepareBack(world, flags.storage)
      : await prepareMigration(world, flags.storage, await trustOf(world, flags, asker));
    const isReport = flags.dryRun || (!flags.yes && (flags.json || asker === undefined));
    if (isReport) {
      context.out(flags.json ? documentText(prepared, undefined) : render(prepared));
      if (!flags.json) context.err("Nothing was changed. To do it: the same with --yes\n");
      return EXIT.done;
    }
    if (!flags.json) context.err(render(prepared));
    if (!flags.yes && asker !== undefined) {
      const isAgreed = await asker.confirmTyped({
        flag: "--yes",
        message: `Do this with storage ${flags.storage}?`,
        word: flags.storage,
      });
      if (!isAgreed) throw new Cancelled();
    }
    void context.stopped().then(() => leaving.abort(new Cancelled()));
    const { attached } = await prepared.carryOut();
    if (flags.json) context.out(documentText(prepared, attached));
    else context.err(closing(flags, attached));
    return attached.some(({ failed }) => failed.length > 0) ? EXIT.partly : EXIT.done;
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    context.err("Left. Nothing was changed.\n");
    return EXIT.interrupted;
  }
}

/** Whom to trust from now on: where the plugin trusted any certificate, a person looks at the one that is there. */
async function trustOf(
  world: MigrateWorld,
  { storage, trust, yes, dryRun }: MigrateFlags,
  asker: Surroundings["asker"],
): Promise<Trust> {
  const certificate = await certificateToTrust(world, storage);
  if (certificate === undefined) return { kind: "verified" };
  const seen = certificate.fingerprint.toLowerCase();
  const pin: Trust = { kind: "pin", sha256: seen };
  if (trust !== undefined) {
    if (trust.replaceAll(":", "").toLowerCase() === seen) return pin;
    throw new TnblockError(
      "tls",
      `Cannot trust TrueNAS: its certificate has the fingerprint ${seen}, not the one that was given`,
      { field: "--trust" },
    );
  }
  if (certificate.isVerified) return { kind: "verified" };
  // A plan is shown with the certificate in it: that is what there is to be compared.
  if (dryRun) return pin;
  if (yes || asker === undefined) {
    throw new TnblockError(
      "tls",
      `Cannot trust TrueNAS: the Perl plugin took any certificate (api_insecure), tnblock takes one that somebody has compared`,
      { field: "--trust", hint: `Compare it in TrueNAS, then give: --trust ${seen}` },
    );
  }
  const isRight = await asker.confirm({
    flag: "--trust",
    message: `The certificate of ${
      certificate.name ?? "TrueNAS"
    } has the SHA-256 fingerprint ${seen}. Is it the right one?`,
  });
  if (!isRight) throw new Cancelled();
  return pin;
}

async function tellAttached(
  context: CommandContext,
  { host, log, limitLogins }: MigrateWorld,
  storage: string,
): Promise<number> {
  const section = (await readSections(host.files, host.nodeName)).find(({ id }) => id === storage);
  // Not for this node, or disabled: no guest here has a disk on it.
  const attached = section === undefined
    ? { schemaVersion: 1, node: host.nodeName, linked: [], failed: [] }
    : await attachHere(
      { host, log, limitLogins, setDebugLevel: () => {} },
      storage,
      section.config,
    );
  context.out(`${JSON.stringify(attached)}\n`);
  return EXIT.done;
}

const KINDS: Readonly<Record<Finding["kind"], string>> = {
  carried: "as it is",
  changed: "CHANGES",
  dropped: "goes",
  refused: "refused",
};

function render({ storage, findings, steps, notes }: Prepared): string {
  const order: readonly Finding["kind"][] = ["carried", "changed", "dropped", "refused"];
  const rows = [...findings].sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind))
    .map(({ kind, option, becomes }) => [option, becomes ?? "-", KINDS[kind]]);
  return [
    `Storage ${printable(storage)}\n\n`,
    renderTable(["OPTION", "BECOMES", ""], rows),
    "\n",
    ...findings.flatMap(({ option, words }) =>
      words === undefined ? [] : [`  ${printable(`${option}: ${words}`)}\n`]
    ),
    "\nWill be done:\n",
    ...steps.map((step, index) => `  ${index + 1}. ${printable(step)}\n`),
    ...notes.map((note) => `note: ${printable(note)}\n`),
  ].join("");
}

function closing({ storage, back }: MigrateFlags, attached: readonly Attached[]): string {
  const lines = attached.flatMap(({ node, linked, failed }) => [
    ...(linked.length > 0 ? [`${node}: linked ${linked.length} disks of running guests`] : []),
    ...failed.map(({ volname, why }) => `${node}: not linked: ${volname}: ${why}`),
  ]);
  lines.push(
    back
      ? `Storage ${storage} is the Perl plugin's again.`
      : `Storage ${storage} is tnblock's. Try: pvesm list ${storage}. Back: tnblock migrate --back ${storage}`,
  );
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function documentText(
  { storage, findings, steps, notes }: Prepared,
  attached: readonly Attached[] | undefined,
): string {
  const document = { schemaVersion: 1, storage, findings, steps, notes };
  return `${JSON.stringify({ ...document, attached: attached ?? null }, null, 2)}\n`;
}
