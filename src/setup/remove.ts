/** `tnblock setup --remove`: takes a storage out of Proxmox VE. Nothing on the array is touched. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { guestVolnames } from "../host/guest_volnames.ts";
import { readCluster } from "../pve/cluster.ts";
import { parseStorageCfg, STORAGE_CFG } from "../pve/storage_cfg.ts";
import { secretsPath } from "../pve/secrets.ts";
import { runPvesm } from "./pvesm.ts";
import type { SetupWorld } from "./world.ts";

/** What is planned, and the way to do it. */
export interface PreparedRemoval {
  readonly steps: readonly string[];
  /** What stays. */
  readonly notes: readonly string[];
  readonly carryOut: () => Promise<void>;
}

/**
 * Looks whether the storage can go.
 *
 * @throws TnblockError `not-found`; `in-use` while guests name volumes of it; `busy` without a quorum.
 */
export async function prepareRemoval(world: SetupWorld, id: string): Promise<PreparedRemoval> {
  const { host } = world;
  const text = await attempt(
    "Cannot read the storages",
    async () => await host.files.readText(STORAGE_CFG) ?? "",
  );
  const section = parseStorageCfg(text).find((one) => one.id === id);
  if (section === undefined) {
    throw new TnblockError(
      "not-found",
      `Cannot remove storage "${id}": there is no tnblock storage of that name`,
      {
        field: "--remove",
      },
    );
  }
  const { isQuorate } = await readCluster(host);
  if (!isQuorate) {
    throw new TnblockError("busy", `Cannot remove storage "${id}": the cluster has no quorum`);
  }
  await refuseUsed(world, id);
  const { config } = section;
  const target = config["tnb-target-iqn"] ?? config["tnb-subsystem-nqn"];
  return {
    steps: [`pvesm remove ${id}`, `its secrets go with it: ${secretsPath(id)}`],
    notes: [
      `On TrueNAS all stays: dataset ${
        config["tnb-dataset"]
      } with its volumes, ${target}, hosts, secrets there.`,
      `The same name, dataset and target bring it back: tnblock setup --storage ${id}`,
    ],
    carryOut: async () => {
      // Somebody may have attached a disk while the question was on the screen.
      await refuseUsed(world, id);
      await runPvesm(host, ["remove", id]);
    },
  };
}

async function refuseUsed({ host }: SetupWorld, id: string): Promise<void> {
  const { volnames, unread } = await guestVolnames(host, id);
  const refuse = (why: string, hint: string) =>
    new TnblockError("in-use", `Cannot remove storage "${id}": ${why}`, { hint });
  if (unread.length > 0) {
    throw refuse(
      `${unread[0]} cannot be read, and may name volumes of it`,
      "See that pve-cluster runs",
    );
  }
  const [first] = volnames;
  if (first === undefined) return;
  throw refuse(
    `guests name ${volnames.size} volumes of it, ${first} among them`,
    `Move or remove these disks first: grep -r '${id}:' /etc/pve/nodes`,
  );
}
