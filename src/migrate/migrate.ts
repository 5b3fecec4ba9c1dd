/**
 * One storage from the Perl plugin to tnblock, its id, volumes and running guests as they are. storage.cfg is one file
 * for all nodes: so all of them are looked at first, the section is replaced in one step, and put back when it does
 * not work on every node.
 */
import { adoptOptions } from "../pve/adoption.ts";
import { TnblockError } from "../common/error.ts";
import { type Cluster, readCluster } from "../pve/cluster.ts";
import { secretsPath } from "../pve/secrets.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import { parseAddress } from "../truenas/address.ts";
import { readCertificate, type ShownCertificate } from "../truenas/socket_certificate.ts";
import { checkEverywhere } from "./check_storage.ts";
import { copyPath } from "./copy.ts";
import type { Mapped } from "./findings.ts";
import { keepCopy, putBack, writeSecrets } from "./kept_files.ts";
import { PERL_TYPE } from "./perl_options.ts";
import { type Done, type Prepared, WORK_MS } from "./prepared.ts";
import { findSection, refuseNeighbours, refuseNodes, refuseOptions } from "./refusals.ts";
import { prepareRest, replacedSection } from "./rest.ts";
import { type SectionText, sectionText } from "./section_text.ts";
import { swapSection } from "./swap_section.ts";
import { apiOf, isInsecure, toTnblock, type Trust } from "./to_tnblock.ts";
import { undoAll, type Undoing } from "./undo.ts";
import { adoptAll, claimDataset, lookAtVolumes, type Volumes } from "./volumes.ts";
import { attachEverywhere, withStorage } from "./with_storage.ts";
import type { MigrateWorld } from "./world.ts";

/** Milliseconds for a look at the array. */
const LOOK_MS = 120_000;
/** Milliseconds for a certificate. */
const CERTIFICATE_MS = 15_000;

/** The certificate that a storage's API shows now; undefined when the section has it checked already. */
export async function certificateToTrust(
  { host }: MigrateWorld,
  id: string,
): Promise<ShownCertificate | undefined> {
  const section = await replacedSection(host, id) ?? await findSection(host, id, PERL_TYPE);
  if (section.type !== PERL_TYPE || !isInsecure(section.options)) return undefined;
  const api = apiOf(section.options);
  return await readCertificate({
    ...{ endpoint: parseAddress(api.host, api.port), deadlineMs: CERTIFICATE_MS },
    clock: host,
  });
}

/**
 * Looks at nodes, section and array. Changes nothing.
 *
 * @throws TnblockError for the first thing that is in the way; the message holds all that the nodes say.
 */
export async function prepareMigration(
  world: MigrateWorld,
  id: string,
  trust: Trust,
): Promise<Prepared> {
  const { host } = world;
  const cluster = await readCluster(host);
  const begun = await replacedSection(host, id);
  if (begun !== undefined) return await prepareRest(world, cluster, begun);
  const section = await findSection(host, id, PERL_TYPE);
  await refuseNodes(world, cluster, id, "to-tnblock");
  const mapped = toTnblock(id, section.options, trust);
  refuseOptions(id, mapped);
  await refuseNeighbours(host, id, mapped.config);
  const volumes = await withStorage(world, id, mapped, LOOK_MS, async (storage) => {
    return await lookAtVolumes(host, storage, await adoptOptions(host.files));
  });
  const { adoptable, refused } = volumes.adoption;
  refuseLost(id, volumes);
  return {
    storage: id,
    findings: mapped.findings,
    steps: [
      `write ${copyPath(id)}: the section as it is, for the way back`,
      `write ${secretsPath(id)}: ${Object.keys(mapped.secrets).join(", ")}`,
      `mark ${adoptable.length} volumes of ${mapped.config["tnb-dataset"]} as those of ${id}`,
      `replace the section ${id} in ${STORAGE_CFG}`,
      `check pvesm status on ${cluster.nodes.map(({ name }) => name).join(", ")}`,
      "link the disks of guests that run",
    ],
    notes: [
      ...volumes.warnings,
      ...refused.map(({ zvol, why }) => `stays without a mark: ${zvol}: ${why}`),
      `The secrets were in clear in ${STORAGE_CFG}, and are in its backups: make a new key when all works`,
    ],
    carryOut: () => carryOut(world, cluster, section, mapped, volumes),
  };
}

/** A guest would lose a disk. */
function refuseLost(id: string, { lost }: Volumes): void {
  if (lost.length === 0) return;
  throw new TnblockError(
    "in-use",
    `Cannot migrate storage "${id}": guests name volumes that it would not have: ${
      lost.slice(0, 5).join("; ")
    }`,
    { hint: "Put these right first: on the array, or in the guests' configurations" },
  );
}

async function carryOut(
  world: MigrateWorld,
  cluster: Cluster,
  section: SectionText,
  mapped: Mapped,
  { adoption }: Volumes,
): Promise<Done> {
  const { host, tell, signal } = world;
  const { id } = section;
  const next = sectionText("tnblock", id, mapped.config);
  return await withStorage(world, id, mapped, WORK_MS, async (storage) => {
    const undoing: Undoing = [];
    const onFailure = (what: string, undo: () => Promise<void>) => {
      signal?.throwIfAborted();
      undoing.push({ what, undo });
    };
    try {
      await keepCopy(host, section, onFailure);
      await writeSecrets(host, id, mapped.secrets, onFailure);
      tell(`written: ${secretsPath(id)}`);
      const options = await adoptOptions(host.files);
      await claimDataset(storage, adoption, options, onFailure);
      await adoptAll(storage, adoption.adoptable, options, onFailure, tell);
      // A task may have begun, and a node may have gone, while a person read the summary.
      await refuseNodes(world, cluster, id, "to-tnblock");
      onFailure(`the section ${id} in ${STORAGE_CFG}`, () => putBack(host, section, mapped.config));
      await swapSection(host, section.text, next);
      tell(`replaced: the section ${id} in ${STORAGE_CFG}`);
      // What the plugin made in the last moment.
      const late = await lookAtVolumes(host, storage, options);
      refuseLost(id, late);
      await adoptAll(storage, late.adoption.adoptable, options, onFailure, tell);
      const wanted = { storage: id, type: "tnblock", options: mapped.config };
      await checkEverywhere(host, cluster, wanted, tell, signal);
    } catch (error) {
      await undoAll(undoing, tell, error);
    }
    return { attached: await attachEverywhere(world, cluster, id, mapped.config) };
  });
}
