/** What a migration is refused for: the section, the nodes, the options, other storages. Nothing is changed here. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import type { Cluster } from "../pve/cluster.ts";
import { STORAGE_CFG } from "../pve/storage_cfg.ts";
import type { Mapped } from "./findings.ts";
import { type AskedNode, askNodes, nodeProblems } from "./node_facts.ts";
import { baseName, PERL_TYPE } from "./perl_options.ts";
import { type SectionText, sectionTexts } from "./section_text.ts";
import type { MigrateWorld } from "./world.ts";

/** The one section of this id and type. */
export async function findSection(host: Host, id: string, type: string): Promise<SectionText> {
  const text = await attempt(
    "Cannot read the storages",
    async () => await host.files.readText(STORAGE_CFG) ?? "",
  );
  const [found, second] = sectionTexts(text).filter((one) => one.id === id);
  if (found?.type === type && second === undefined) return found;
  const why = found === undefined
    ? "there is no storage of that name"
    : second !== undefined
    ? `${STORAGE_CFG} has two sections of that name`
    : `it is of type ${found.type}, not ${type}`;
  throw new TnblockError("not-found", `Cannot migrate storage "${id}": ${why}`, {
    ...(found?.type === "tnblock"
      ? { hint: `To give it back to the Perl plugin: tnblock migrate --back ${id}` }
      : {}),
  });
}

/** Refuses unless every node is there and as it must be. */
export async function refuseNodes(
  { host, version }: MigrateWorld,
  cluster: Cluster,
  id: string,
  direction: "to-tnblock" | "to-perl",
): Promise<readonly AskedNode[]> {
  if (!cluster.isQuorate) {
    throw new TnblockError("busy", `Cannot migrate storage "${id}": the cluster has no quorum`, {
      hint: "See pvecm status",
    });
  }
  const asked = await askNodes(host, version, cluster, id);
  const problems = nodeProblems(asked, version, direction);
  if (problems.length === 0) return asked;
  throw new TnblockError("busy", `Cannot migrate storage "${id}": ${problems.join("; ")}`, {
    hint: problems.some((one) => /task/.test(one))
      ? "Wait for the tasks, or stop them; then run the same again"
      : "Bring all nodes to the same state: tnblock install --all-nodes; " +
        "and systemctl reload-or-restart the services that are named",
  });
}

/** Refuses what cannot be carried over. */
export function refuseOptions(id: string, { findings }: Mapped): void {
  const refused = findings.filter(({ kind }) => kind === "refused");
  if (refused.length === 0) return;
  throw new TnblockError(
    "unsupported",
    `Cannot migrate storage "${id}": ${
      refused.map(({ option, words }) => `${option}: ${words}`).join("; ")
    }`,
    { hint: "Nothing was changed" },
  );
}

/** Other storages on the same dataset, target or subsystem would lose their volumes to this one. */
export async function refuseNeighbours(
  host: Host,
  id: string,
  config: Readonly<Record<string, string>>,
): Promise<void> {
  const text = await host.files.readText(STORAGE_CFG) ?? "";
  const dataset = config["tnb-dataset"] ?? "";
  for (const other of sectionTexts(text).filter((one) => one.id !== id)) {
    const of = (base: string, ours: string) =>
      Object.entries(other.options).find(([name]) => name === ours || baseName(name) === base)?.[1];
    if (![PERL_TYPE, "tnblock"].includes(other.type)) continue;
    const theirs = of("dataset", "tnb-dataset") ?? "";
    // One array may be known by several addresses; two may have targets of the same name.
    const isSameArray = of("api_host", "tnb-api-host") === config["tnb-api-host"] ||
      of("discovery_portal", "tnb-discovery-portal") === config["tnb-discovery-portal"];
    const isNested = `${theirs}/`.startsWith(`${dataset}/`) ||
      `${dataset}/`.startsWith(`${theirs}/`);
    const target = ["target_iqn", "tnb-target-iqn", "subsystem_nqn", "tnb-subsystem-nqn"] as const;
    const shared = [of(target[0], target[1]), of(target[2], target[3])].find((name) =>
      name !== undefined &&
      [config["tnb-target-iqn"], config["tnb-subsystem-nqn"]].includes(name)
    );
    const what = isNested ? `the dataset ${theirs}` : shared;
    if (!isSameArray || what === undefined) continue;
    throw new TnblockError(
      "in-use",
      `Cannot migrate storage "${id}": storage "${other.id}" uses ${what} too`,
      { hint: "Give each storage a dataset and a target or subsystem of its own" },
    );
  }
}
