/** `tnblock adopt`: takes over volumes that are there already, after showing them. */
import { Cancelled } from "../common/asking.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import {
  adoptDataset,
  type Adoption,
  adoptOptions,
  adoptVolume,
  findAdoptable,
  volidOfAdoptable,
} from "../pve/adoption.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import { reportError } from "./report_error.ts";
import type { Surroundings } from "./surroundings.ts";
import { formatBytes, printable, renderTable } from "./table.ts";
import { withStorage } from "./with_storage.ts";

/** What the user says. */
export interface AdoptFlags {
  readonly storage: string;
  /** Names of zvols; all unless given. */
  readonly volumes: readonly string[];
  readonly ofCluster: string | undefined;
  readonly unexported: boolean;
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
}

/** For a look, and for each volume. */
const LOOK_MS = 120_000;
const EACH_MS = 60_000;

/** Looks, asks, marks; ends with the exit status. */
export async function runAdopt(
  context: CommandContext,
  flags: AdoptFlags,
  { host, asker }: Surroundings,
): Promise<number> {
  if (flags.yes && flags.dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
  const { ofCluster, unexported } = flags;
  const options = await adoptOptions(host.files, { ofCluster, unexported });
  const found = chosen(
    await withStorage(
      context,
      host,
      flags.storage,
      LOOK_MS,
      (storage) => findAdoptable(storage, options),
    ),
    flags.volumes,
  );
  const { adoptable, formerOwner } = found;
  const isReport = flags.dryRun || (!flags.yes && (flags.json || asker === undefined));
  if (isReport || adoptable.length === 0 && formerOwner === undefined) {
    context.out(flags.json ? documentText(found, flags.storage, []) : render(found, flags.storage));
    if (!flags.json && adoptable.length > 0) {
      context.err("Nothing was changed. To adopt what is shown: tnblock adopt --yes\n");
    }
    // What was asked for by name and may not be taken is a refusal.
    return flags.volumes.length > 0 && found.refused.length > 0 ? EXIT.inUse : EXIT.done;
  }
  if (!flags.json) context.err(render(found, flags.storage));
  try {
    if (!flags.yes && asker !== undefined) {
      const isAgreed = await asker.confirmTyped({
        flag: "--yes",
        message:
          `Mark ${adoptable.length} as volumes of storage ${flags.storage}? From then on it lists, changes and frees them`,
        word: flags.storage,
      });
      if (!isAgreed) throw new Cancelled();
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    context.err("Left. Nothing was changed.\n");
    return EXIT.interrupted;
  }
  const adopted: string[] = [];
  let status: number = EXIT.done;
  let isLeaving = false;
  void context.stopped().then(() => isLeaving = true);
  await withStorage(
    context,
    host,
    flags.storage,
    EACH_MS * (1 + adoptable.length),
    async (storage) => {
      if (formerOwner !== undefined) await adoptDataset(storage, formerOwner, options);
      for (const one of adoptable) {
        if (isLeaving) break;
        try {
          await adoptVolume(storage, one, options);
          adopted.push(one.zvol);
          if (!flags.json) {
            context.err(
              `adopted: ${printable(volidOfAdoptable(flags.storage, one) ?? one.zvol)}\n`,
            );
          }
        } catch (error) {
          status = reportError(error, context);
          // The array is away, and so are all others.
          if (["unreachable", "timeout", "auth"].includes(asTnblockError(error).code)) break;
        }
      }
    },
  );
  if (flags.json) context.out(documentText(found, flags.storage, adopted));
  if (adopted.length === adoptable.length) return EXIT.done;
  if (isLeaving) return EXIT.interrupted;
  return adopted.length > 0 ? EXIT.partly : status;
}

/** What the user has named, or all. */
function chosen(found: Adoption, wanted: readonly string[]): Adoption {
  if (wanted.length === 0) return found;
  const all = [...found.adoptable, ...found.refused].map(({ zvol }) => zvol);
  const missing = wanted.filter((name) => !all.includes(name));
  if (missing.length > 0) {
    throw new TnblockError(
      "not-found",
      `Cannot adopt ${
        missing.map((name) => `"${name}"`).join(", ")
      }: there is no such zvol in the dataset, or it is this storage's already`,
      { hint: "Name the last component of the zvol's path, e.g. vm-100-disk-0" },
    );
  }
  return {
    formerOwner: found.formerOwner,
    adoptable: found.adoptable.filter(({ zvol }) => wanted.includes(zvol)),
    refused: found.refused.filter(({ zvol }) => wanted.includes(zvol)),
  };
}

function render({ formerOwner, adoptable, refused }: Adoption, storage: string): string {
  const lines: string[] = [];
  if (formerOwner !== undefined) {
    const former = formerOwner.slice(formerOwner.indexOf("/") + 1);
    lines.push(`The dataset is marked as that of storage ${printable(former)}, which is gone.\n`);
  }
  if (adoptable.length === 0) lines.push("Nothing to adopt.\n");
  else {
    lines.push(renderTable(
      ["VOLUME", "SIZE", "CREATED", "WAS"],
      adoptable.map((one) => [
        volidOfAdoptable(storage, one) ?? one.zvol,
        formatBytes(one.found.volsize).replace(" ", ""),
        new Date(one.found.createdMs).toISOString().slice(0, 10),
        one.was,
      ]),
    ));
  }
  if (refused.length > 0) {
    lines.push("Not adopted:\n");
    for (const { zvol, why } of refused) lines.push(`  ${printable(`${zvol}: ${why}`)}\n`);
  }
  return lines.join("");
}

function documentText(
  { formerOwner, adoptable, refused }: Adoption,
  storage: string,
  adopted: readonly string[],
): string {
  const document = {
    ...{ schemaVersion: 1, storage, formerOwner: formerOwner ?? null },
    adoptable: adoptable.map((one) => ({
      ...{ zvol: one.zvol, volid: volidOfAdoptable(storage, one) ?? null },
      ...{ size: one.found.volsize, created: new Date(one.found.createdMs).toISOString() },
      was: one.was,
    })),
    ...{ refused, adopted },
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}
