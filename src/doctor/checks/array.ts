/** Checks of the array below the exports: service, dataset, space, pool. */
import { mayCall } from "../../truenas/privileges.ts";
import { OWNER_PROPERTY, ownerValue } from "../../volumes/ownership.ts";
import { ifKnown, isIscsi } from "../array_facts.ts";
import { check, Skipped } from "../check.ts";
import { adopt, cleanUp } from "../commands.ts";
import { guide } from "../guide.ts";

const service = check({
  id: "service",
  title: "the array's service for the storage's transport runs, and starts at boot",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const state = await array.service();
    const name = isIscsi(array) ? "iSCSI" : "NVMe-oF";
    if (state === undefined || (state.running && state.enabled)) return [];
    return [{
      severity: state.running ? "warning" : "error",
      text: state.running
        ? `the array's ${name} service does not start at boot: after one no disk is there`
        : `the array's ${name} service does not run: no disk is there, and new ones seem to be made and never appear`,
      guide: guide(
        storage.again("service"),
        `Open the services in TrueNAS: ${menus.services}`,
        `Start ${name} there where it is stopped, and let it start automatically`,
        "Where it does not start, read why: the bell at the top right, and System > Audit",
        "See that the portals are connected again, by themselves: tnblock status",
      ),
    }];
  },
});

const dataset = check({
  id: "dataset",
  title: "the dataset is there, can hold volumes, and belongs to this storage",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const { dataset } = storage.settings;
    const listing = await array.listing();
    const steps = (second: string, third: string, fourth: string) =>
      guide(
        storage.again("dataset"),
        `Look at it in TrueNAS: ${menus.datasets} > ${dataset}`,
        second,
        third,
        fourth,
      );
    if (listing === undefined) {
      return [{
        severity: "error",
        text: `the dataset "${dataset}" is not there`,
        guide: steps(
          `See whether its pool is imported: ${menus.pools}`,
          "See whether it was renamed: nobody but you knows then which volumes are meant; give it its old name back",
          `Make it where it never was: ${menus.datasets} > Add Dataset; no volume of a guest comes back by that`,
        ),
      }];
    }
    const owner = listing.parent.userProperties[OWNER_PROPERTY];
    if (listing.parent.type !== "FILESYSTEM") {
      return [{
        severity: "error",
        text: `"${dataset}" is a zvol, and no dataset that can hold volumes`,
        guide: steps(
          "Choose another dataset, or make one: Datasets > Add Dataset",
          `Remove the storage and add it with that one: pvesm remove ${storage.id}, then tnblock setup`,
          "Leave the zvol alone: it may be somebody's disk",
        ),
      }];
    }
    if (await array.isLocked()) {
      return [{
        severity: "error",
        text: `the dataset "${dataset}" is encrypted, and its key is not loaded`,
        guide: steps(
          "Unlock it there: Unlock, with the passphrase or the key file",
          "Let it be unlocked at boot where a key file may be kept: ZFS Encryption > Edit",
          "See that the disks come back by themselves: tnblock scan",
        ),
      }];
    }
    if (owner === ownerValue(storage.storage)) return [];
    if (owner === undefined) {
      return [{
        severity: "warning",
        text:
          `the dataset "${dataset}" does not say that it belongs to this storage: another one could take it`,
        guide: steps(
          "See that no other storage of any cluster uses it",
          `Let tnblock mark it: pvesm set ${storage.id} --tnb-debug 0, which checks the storage anew`,
          `See the mark in a shell of TrueNAS: zfs get ${OWNER_PROPERTY} ${dataset}`,
        ),
      }];
    }
    const other = owner.slice(owner.indexOf("/") + 1);
    const whose = owner.startsWith(`${storage.clusterId}/`) ? "this cluster" : "another cluster";
    return [{
      severity: "error",
      text: `the dataset "${dataset}" belongs to the storage "${other}" of ${whose}`,
      guide: steps(
        `See whether that storage is there still: grep -A3 "tnblock: ${other}" /etc/pve/storage.cfg`,
        `Give this one a dataset of its own: pvesm remove ${storage.id}, which leaves the volumes, then tnblock setup`,
        `Where the other one is gone for good, or this was its name: ${adopt(storage.id)}`,
      ),
    }];
  },
});

/** Shares of all space that must be free. */
const LITTLE = 0.1;
const NOTHING = 0.02;

const space = check({
  id: "space",
  title: "there is room in the dataset",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const parent = (await array.listing())?.parent;
    if (parent === undefined || parent.type !== "FILESYSTEM") return [];
    const { available, used, name } = parent;
    const share = available / Math.max(1, available + used);
    if (share >= LITTLE) return [];
    const gib = (available / 1024 ** 3).toFixed(1);
    return [{
      severity: share < NOTHING ? "error" : "warning",
      text: `${gib} GiB are free in "${name}", ${(share * 100).toFixed(1)} % of what it can hold` +
        (share < NOTHING ? "; thin volumes fail their guests when there is none left" : ""),
      guide: guide(
        storage.again("space"),
        `See what takes the room: ${menus.datasets} > ${name}; snapshots count too`,
        `See which volumes are large: pvesm list ${storage.id}`,
        `Delete snapshots and volumes that nobody needs: qm listsnapshot VMID, and ${
          cleanUp(storage.id)
        }`,
        `Make the pool larger: ${menus.pools} > (the pool)`,
      ),
    }];
  },
});

const pool = check({
  id: "pool",
  title: "the pool is healthy",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const privileges = await ifKnown(() => array.privileges());
    if (privileges !== undefined && !mayCall(privileges, "pool.query")) {
      throw new Skipped("the API key may not read pools, which no volume needs");
    }
    const pool = await array.pool();
    if (pool === undefined || (pool.healthy && pool.status === "ONLINE")) return [];
    const works = ["ONLINE", "DEGRADED"].includes(pool.status);
    return [{
      severity: works ? "warning" : "error",
      text: `the pool "${pool.name}" is ${pool.status}${
        pool.status === "ONLINE" ? ", and not healthy" : ""
      }`,
      guide: guide(
        storage.again("pool"),
        `Look at it in TrueNAS: ${menus.pools} > ${pool.name}`,
        "Read what TrueNAS says of its disks: the bell at the top right",
        `See which disk failed, in a shell of TrueNAS: zpool status -v ${pool.name}`,
        works
          ? "Replace that disk: Storage > (the pool) > its devices > the disk > Replace; guests go on meanwhile"
          : "Bring its disks back, cables and enclosures first; guests wait meanwhile and go on by themselves",
      ),
    }];
  },
});

/** All of them. */
export const ARRAY_CHECKS = [service, dataset, space, pool] as const;
