/** Checks of what is installed on the node: the program, the shim, Proxmox VE and its services. */
import { check, type Problem, Skipped } from "../check.ts";
import { guide } from "../guide.ts";
import { PROGRAM, sha256, SHIM_PATH } from "../node_context.ts";

/** Storage API versions that the shim was written against (`OLDEST_API`, `NEWEST_API` in it). */
export const OLDEST_API = 11;
/** See {@link OLDEST_API}. */
export const NEWEST_API = 16;

const storageCfg = check({
  id: "storage-cfg",
  title: "storage.cfg can be read and has a storage of type tnblock for this node",
  needs: "node",
  run: async (node) => {
    const text = await node.storageCfg().catch(() => undefined);
    if (text === undefined) {
      return [{
        severity: "error",
        text: "/etc/pve/storage.cfg cannot be read, so that nobody knows which storages there are",
        guide: guide(
          node.again("storage-cfg"),
          "See whether the file system of the cluster runs: systemctl status pve-cluster",
          "See whether this node has quorum: pvecm status",
          "Start it where it does not run: systemctl restart pve-cluster",
          "See that the file is there: ls -l /etc/pve/storage.cfg",
        ),
      }];
    }
    if ((await node.sections()).length > 0) return [];
    const others = await node.allSections();
    return [{
      severity: "warning",
      text: others.length === 0
        ? "there is no storage of type tnblock"
        : `no storage of type tnblock is for this node: ${others.map(({ id }) => id).join(", ")} ` +
          `is disabled or for other nodes`,
      guide: guide(
        node.again("storage-cfg"),
        "See which storages Proxmox VE knows: grep -A3 tnblock: /etc/pve/storage.cfg",
        `Allow this node where one is for others only: pvesm set ${
          others[0]?.id ?? "STORAGE"
        } --nodes NODE,NODE`,
        `Enable one that is disabled: pvesm set ${others[0]?.id ?? "STORAGE"} --disable 0`,
        "Make one where there is none: tnblock setup",
      ),
    }];
  },
});

const binary = check({
  id: "binary",
  title: "the program is installed where the shim and systemd look for it",
  needs: "node",
  run: async (node) => {
    const status = await node.host.files.status(PROGRAM);
    const isThere = status?.kind === "file" && (status.mode & 0o111) !== 0;
    const isSafe = status !== undefined && (status.mode & 0o022) === 0;
    if (isThere && isSafe) return [];
    const what = status === undefined
      ? "is not there"
      : isThere
      ? "can be changed by others than root"
      : "cannot be run";
    return [{
      severity: "error",
      text: `${PROGRAM} ${what}`,
      guide: guide(
        node.again("binary"),
        `See what is there: ls -l ${PROGRAM}`,
        "Copy the program of this version to the node, e.g. to /root/tnblock, and make it executable: chmod 755 /root/tnblock",
        "Install it: /root/tnblock install",
        "See that the daemon runs again: systemctl status tnblock",
      ),
    }];
  },
});

const shim = check({
  id: "shim",
  title: "the storage plugin that Proxmox VE loads is that of this version",
  needs: "node",
  run: async (node) => {
    const installed = await node.installedShim();
    if (installed === sha256(node.shim)) return [];
    return [{
      severity: "error",
      text: installed === undefined
        ? `${SHIM_PATH} is not there: Proxmox VE does not know the type tnblock, and whoever edits a storage on this ` +
          `node removes its sections for the whole cluster`
        : `${SHIM_PATH} is not that of tnblock ${node.version}: it is of another version, or was changed`,
      guide: guide(
        node.again("shim"),
        `Compare what is installed with what belongs there: tnblock version --shim | diff ${SHIM_PATH} -`,
        "Edit no storage on this node until this is right, in the web interface neither",
        "Install it anew, which checks it before any service loads it: tnblock install",
        "See that Proxmox VE loads it without a complaint: pvesm apiinfo",
      ),
    }];
  },
});

const pveApi = check({
  id: "pve-api",
  title:
    "Proxmox VE's storage API is one that the plugin knows, and it is loaded without a complaint",
  needs: "node",
  run: async (node) => {
    const api = await node.pveApi();
    const steps = (fourth: string) =>
      guide(
        node.again("pve-api"),
        "See what Proxmox VE says while it loads the plugins: pvesm apiinfo",
        "See which version of it is installed: pveversion -v | grep libpve-storage-perl",
        "See which versions this tnblock knows: tnblock version",
        fourth,
      );
    if (api === undefined) {
      return [{
        severity: "error",
        text: "pvesm does not run: no service of Proxmox VE can use any storage of this node",
        guide: steps(
          `Take the plugin away for the moment if it is what fails: mv ${SHIM_PATH} /root/, then systemctl reload-or-try-restart pvedaemon pvestatd pveproxy, and edit no storage meanwhile`,
        ),
      }];
    }
    const { version, age, complaints } = api;
    const own = complaints.split("\n").filter((line) => /tnblock/i.test(line));
    const problems: Problem[] = [];
    if (version < OLDEST_API || version - age > NEWEST_API) {
      const which = version < OLDEST_API ? "older" : "newer";
      problems.push({
        severity: "error",
        text:
          `Proxmox VE has the storage API ${version}, which is ${which} than this tnblock knows (${OLDEST_API} to ${NEWEST_API})`,
        guide: steps(
          which === "older"
            ? "Update Proxmox VE: apt update && apt full-upgrade"
            : "Update tnblock on all nodes: tnblock install --all-nodes, with the newer program",
        ),
      });
    } else if (own.length > 0) {
      problems.push({
        severity: "error",
        text: `Proxmox VE complains about the plugin: ${own[0]?.slice(0, 300)}`,
        guide: steps("Install the plugin of this version anew: tnblock install"),
      });
    } else if (version > NEWEST_API) {
      problems.push({
        severity: "warning",
        text:
          `Proxmox VE has the storage API ${version}; this tnblock was tried up to ${NEWEST_API}`,
        guide: steps(
          "Update tnblock on all nodes when there is a newer one: tnblock install --all-nodes",
        ),
      });
    }
    return problems;
  },
});

const pveServices = check({
  id: "pve-services",
  title: "the services of Proxmox VE that use storages run",
  needs: "node",
  run: async (node) => {
    const names = ["pve-cluster", "pvedaemon", "pvestatd"];
    const states = await Promise.all(names.map((name) => node.unit(`${name}.service`)));
    if (states.every(({ active }) => active === "")) throw new Skipped("systemd does not answer");
    const down = names.filter((_, index) => states[index]?.active !== "active");
    return down.map((name) => ({
      severity: "error",
      text: `${name} does not run`,
      guide: guide(
        node.again("pve-services"),
        `See why it ended: systemctl status ${name}`,
        `Read its last words: journalctl -u ${name} -e`,
        "See whether a storage plugin keeps it from starting: pvesm apiinfo",
        `Start it: systemctl restart ${name}`,
      ),
    }));
  },
});

/** All of them. */
export const NODE_CHECKS = [storageCfg, binary, shim, pveApi, pveServices] as const;
