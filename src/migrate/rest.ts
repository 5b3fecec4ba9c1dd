/** What comes after the section was replaced, for a run that was killed there, and for whoever runs it twice. */
import type { Host } from "../host/host.ts";
import { adoptOptions } from "../pve/adoption.ts";
import type { Cluster } from "../pve/cluster.ts";
import { readSecrets } from "../pve/secrets.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import { checkEverywhere } from "./check_storage.ts";
import { sectionBefore } from "./kept_files.ts";
import { type Prepared, WORK_MS } from "./prepared.ts";
import { refuseNodes } from "./refusals.ts";
import { type SectionText, sectionTexts } from "./section_text.ts";
import { adoptAll, claimDataset, lookAtVolumes } from "./volumes.ts";
import { attachEverywhere, withStorage } from "./with_storage.ts";
import type { MigrateWorld } from "./world.ts";

/** A section that a migration has replaced already; undefined when none did. */
export async function replacedSection(host: Host, id: string): Promise<SectionText | undefined> {
  if (await sectionBefore(host, id) === undefined) return undefined;
  const sections = sectionTexts(await host.files.readText(STORAGE_CFG) ?? "");
  return sections.find((one) => one.id === id && one.type === "tnblock");
}

/** Looks; changes nothing. */
export async function prepareRest(
  world: MigrateWorld,
  cluster: Cluster,
  { id, options: config }: SectionText,
): Promise<Prepared> {
  const { host, tell, signal } = world;
  await refuseNodes(world, cluster, id, "to-tnblock");
  const secrets = Object.fromEntries(
    Object.entries(await readSecrets(host.files, id)).map(([name, value]) => [name, String(value)]),
  );
  const mapped = { config, secrets, findings: [] };
  return {
    storage: id,
    findings: [],
    steps: [
      `the section ${id} in ${STORAGE_CFG} is of type tnblock already: what comes after is done again`,
      "mark the volumes that are left",
      `check pvesm status on ${cluster.nodes.map(({ name }) => name).join(", ")}`,
      "link the disks of guests that run",
    ],
    notes: [`The way back: tnblock migrate --back ${id}`],
    carryOut: async () => {
      await withStorage(world, id, mapped, WORK_MS, async (storage) => {
        const options = await adoptOptions(host.files);
        const { adoption } = await lookAtVolumes(host, storage, options);
        const noUndo = () => signal?.throwIfAborted();
        await claimDataset(storage, adoption, options, noUndo);
        await adoptAll(storage, adoption.adoptable, options, noUndo, tell);
      });
      await checkEverywhere(
        host,
        cluster,
        { storage: id, type: "tnblock", options: config },
        tell,
        signal,
      );
      return { attached: await attachEverywhere(world, cluster, id, config) };
    },
  };
}
