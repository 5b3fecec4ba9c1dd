/** One storage back to the Perl plugin, its id, volumes and running guests as they are. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { type Cluster, readCluster } from "../pve/cluster.ts";
import { readSecrets, secretsPath } from "../pve/secrets.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import { checkEverywhere } from "./check_storage.ts";
import { copyPath } from "./copy.ts";
import type { Mapped } from "./findings.ts";
import { keepCopy, putBack, restore, sectionBefore } from "./kept_files.ts";
import { dialectOf } from "./node_facts.ts";
import { PERL_TYPE } from "./perl_options.ts";
import type { Done, Prepared } from "./prepared.ts";
import { findSection, refuseNodes, refuseOptions } from "./refusals.ts";
import { type SectionText, sectionText } from "./section_text.ts";
import { swapSection } from "./swap_section.ts";
import { toPerl } from "./to_perl.ts";
import { undoAll, type Undoing } from "./undo.ts";
import type { MigrateWorld } from "./world.ts";

/**
 * Looks at nodes and section. Changes nothing; the array is not asked: its volumes keep their marks, which mean
 * nothing to the plugin, and are ours again when the storage comes back.
 *
 * @throws TnblockError for what is in the way.
 */
export async function prepareBack(world: MigrateWorld, id: string): Promise<Prepared> {
  const { host } = world;
  const cluster = await readCluster(host);
  const section = await findSection(host, id, "tnblock");
  const asked = await refuseNodes(world, cluster, id, "to-perl");
  const dialect = dialectOf(asked);
  if (dialect === undefined) {
    throw new TnblockError(
      "unsupported",
      `Cannot migrate storage "${id}": the nodes have Perl plugins of different generations`,
      { hint: "Bring all of them to one version" },
    );
  }
  const secrets = Object.fromEntries(
    Object.entries(await readSecrets(host.files, id)).map(([name, value]) => [name, String(value)]),
  );
  const before = await sectionBefore(host, id);
  const mapped = toPerl(section.options, secrets, dialect, before);
  refuseOptions(id, mapped);
  return {
    storage: id,
    findings: mapped.findings,
    steps: [
      `write ${copyPath(id)}: the section as it is`,
      `replace the section ${id} in ${STORAGE_CFG} by one of the Perl plugin, ${dialect}`,
      `check pvesm status on ${cluster.nodes.map(({ name }) => name).join(", ")}`,
      `remove ${secretsPath(id)}`,
    ],
    notes: [
      "The volumes keep the marks of tnblock, which the plugin does not look at",
      ...(dialect === "1.x"
        ? [
          "Cloud-init drives that tnblock made have names that this version of the plugin may not know",
        ]
        : []),
    ],
    carryOut: () => carryOut(world, cluster, section, mapped),
  };
}

async function carryOut(
  world: MigrateWorld,
  cluster: Cluster,
  section: SectionText,
  { config }: Mapped,
): Promise<Done> {
  const { host, tell, signal } = world;
  const { id } = section;
  const undoing: Undoing = [];
  const onFailure = (what: string, undo: () => Promise<void>) => {
    signal?.throwIfAborted();
    undoing.push({ what, undo });
  };
  try {
    await refuseNodes(world, cluster, id, "to-perl");
    await keepCopy(host, section, onFailure);
    onFailure(`the section ${id} in ${STORAGE_CFG}`, () => putBack(host, section, config));
    await swapSection(host, section.text, sectionText(PERL_TYPE, id, config));
    tell(`replaced: the section ${id} in ${STORAGE_CFG}`);
    await checkEverywhere(
      host,
      cluster,
      { storage: id, type: PERL_TYPE, options: config },
      tell,
      signal,
    );
    const path = secretsPath(id);
    const secrets = await host.files.readText(path);
    onFailure(path, () => restore(host, path, secrets));
    await attempt(`Cannot remove ${path}`, () => host.files.remove(path));
  } catch (error) {
    await undoAll(undoing, tell, error);
  }
  return { attached: [] };
}
