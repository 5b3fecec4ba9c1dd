/** Checks that compare the nodes of the cluster. */
import { TnblockError } from "../../common/error.ts";
import { admission, admits, ifKnown } from "../array_facts.ts";
import { check, type Problem } from "../check.ts";
import type { ClusterContext } from "../cluster_context.ts";
import { count } from "../commands.ts";
import { guide } from "../guide.ts";
import type { NodeFacts } from "../node_facts.ts";
import type { StorageContext } from "../storage_context.ts";

/** The nodes that told something, with what they told. */
function told({ reports }: ClusterContext): { readonly name: string; readonly facts: NodeFacts }[] {
  return reports.flatMap(({ name, told }) =>
    told instanceof TnblockError ? [] : [{ name, facts: told }]
  );
}

/** Values that nodes have, each with the nodes that have it; nodes without one are left out. */
function byValue(
  context: ClusterContext,
  value: (facts: NodeFacts) => string | number | null,
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (const { name, facts } of told(context)) {
    const one = value(facts);
    if (one === null) continue;
    found.set(String(one), [...found.get(String(one)) ?? [], name]);
  }
  return found;
}

const nodes = check({
  id: "cluster-nodes",
  title: "every node of the cluster can be asked",
  needs: "cluster",
  run: ({ node, cluster, reports }) => {
    const silent = reports.flatMap(({ name, told }): Problem[] =>
      told instanceof TnblockError
        ? [{
          severity: "warning",
          text: `node ${name} does not tell how it is: ${told.message}`,
          guide: guide(
            `${node.again("cluster-nodes")} --cluster`,
            "See whether the cluster has it: pvecm nodes",
            `See whether this node reaches it as root: ssh -o BatchMode=yes ${name} true; where keys are missing: pvecm updatecerts`,
            `See whether tnblock is there: ssh ${name} /usr/local/bin/tnblock version`,
            "Install it there too: tnblock install --all-nodes",
          ),
        }]
        : []
    );
    if (cluster.isQuorate) return Promise.resolve(silent);
    return Promise.resolve<Problem[]>([...silent, {
      severity: "error",
      text: "the cluster has no quorum: no volume can be made, changed or freed",
      guide: guide(
        `${node.again("cluster-nodes")} --cluster`,
        "See who is missing: pvecm status",
        "See that the nodes reach each other in the cluster's network: corosync-cfgtool -s",
        "Bring the missing nodes back: systemctl restart corosync pve-cluster on them",
        "Only when a node is gone for good: pvecm expected 1, which takes on you that it writes to no disk any more",
      ),
    }]);
  },
});

const versions = check({
  id: "cluster-versions",
  title: "all nodes have the same tnblock, plugin and storage API",
  needs: "cluster",
  run: (context) => {
    const kinds: [string, (facts: NodeFacts) => string | number | null][] = [
      ["tnblock", ({ version }) => version],
      ["the plugin's file", ({ shim }) => shim?.slice(0, 12) ?? "none"],
      ["the daemon", ({ daemon }) => daemon],
      ["Proxmox VE's storage API", ({ pveApi }) => pveApi],
    ];
    return Promise.resolve(kinds.flatMap(([what, value]): Problem[] => {
      const found = byValue(context, value);
      if (found.size < 2) return [];
      const list = [...found].map(([one, names]) => `${one} on ${names.join(", ")}`).join("; ");
      return [{
        severity: what === "Proxmox VE's storage API" ? "warning" : "error",
        text: `the nodes differ in ${what}: ${list}`,
        guide: guide(
          `${context.node.again("cluster-versions")} --cluster`,
          "Edit no storage meanwhile: a node that does not know an option removes it for the whole cluster",
          "See what each node has: ssh NODE /usr/local/bin/tnblock version; ssh NODE pveversion",
          what === "Proxmox VE's storage API"
            ? "Update Proxmox VE node by node to the same version: apt update && apt full-upgrade"
            : "Install the newest on all of them: tnblock install --all-nodes",
          "Start daemons that are of an older version anew, which stops no guest: ssh NODE systemctl restart tnblock",
        ),
      }];
    }));
  },
});

const identities = check({
  id: "cluster-identity",
  title: "no two nodes have the same host NQN, host id or initiator name",
  needs: "cluster",
  run: (context) => {
    const kinds: [string, (facts: NodeFacts) => string | null, string][] = [
      ["host NQN", ({ hostNqn }) => hostNqn, "/etc/nvme/hostnqn"],
      ["host id", ({ hostId }) => hostId, "/etc/nvme/hostid"],
      ["initiator name", ({ initiator }) => initiator, "/etc/iscsi/initiatorname.iscsi"],
    ];
    return Promise.resolve(
      kinds.flatMap(([what, value, path]) =>
        [...byValue(context, value)].filter(([, names]) => names.length > 1).map((
          [same, names],
        ): Problem => ({
          severity: "error",
          text:
            `${
              names.join(" and ")
            } have the same ${what} (${same}): the array takes them for one host, and reservations ` +
            `and access would be mixed up`,
          guide: guide(
            `${context.node.again("cluster-identity")} --cluster`,
            `See it on each node: cat ${path}`,
            `Move the guests away from ${names.at(-1)}, which keeps none of its disks open then`,
            path === "/etc/iscsi/initiatorname.iscsi"
              ? `Give ${
                names.at(-1)
              } a name of its own: echo "InitiatorName=$(iscsi-iname)" > ${path}`
              : `Give ${
                names.at(-1)
              } a pair of its own: U=$(cat /proc/sys/kernel/random/uuid); echo $U > /etc/nvme/hostid; echo nqn.2014-08.org.nvmexpress:uuid:$U > /etc/nvme/hostnqn`,
            `Allow the new name on the array, then boot ${names.at(-1)}`,
          ),
        }))
      ),
    );
  },
});

/** Milliseconds by which the clocks of nodes may differ. */
const SKEW_MS = 5_000;

const clocks = check({
  id: "cluster-clock",
  title: "the clocks of the nodes agree",
  needs: "cluster",
  run: ({ node, reports }) => {
    const wrong = reports.filter(({ clockAheadMs }) => Math.abs(clockAheadMs ?? 0) > SKEW_MS);
    return Promise.resolve(wrong.map(({ name, clockAheadMs = 0 }): Problem => ({
      severity: "warning",
      text: `the clock of node ${name} is ${Math.round(Math.abs(clockAheadMs) / 1000)} s ${
        clockAheadMs > 0 ? "ahead of" : "behind"
      } this node's`,
      guide: guide(
        `${node.again("cluster-clock")} --cluster`,
        `See both clocks: date; ssh ${name} date`,
        `See how it is kept there: ssh ${name} chronyc tracking`,
        `See that it reaches its time servers: ssh ${name} chronyc sources`,
        `Set it right: ssh ${name} systemctl restart chrony, then ssh ${name} chronyc makestep`,
      ),
    })));
  },
});

const parity = check({
  id: "cluster-parity",
  title: "every node reads the same sections, and is connected to the same portals",
  needs: "cluster",
  run: (context) => {
    const all = told(context);
    const ids = [
      ...new Set(all.flatMap(({ facts }) => facts.storages.map(({ id }) => id))),
    ];
    return Promise.resolve(ids.flatMap((id): Problem[] => {
      const having = all.flatMap(({ name, facts }) => {
        const storage = facts.storages.find((one) => one.id === id);
        return storage === undefined ? [] : [{ name, ...storage }];
      });
      const again = `${context.node.again("cluster-parity")} --cluster`;
      if (new Set(having.map(({ section }) => section)).size > 1) {
        return [{
          severity: "error",
          text:
            `the nodes read different sections for "${id}": the cluster's file system is not the same everywhere`,
          guide: guide(
            again,
            "See whether all nodes are in the quorum: pvecm status, on each",
            "Compare the file: sha256sum /etc/pve/storage.cfg, on each",
            "Let the node that differs join again: systemctl restart pve-cluster, on it",
            "Read why it had left: journalctl -u pve-cluster -u corosync -e",
          ),
        }];
      }
      const most = having.reduce<readonly string[]>(
        (best, { live }) => live.length > best.length ? live : best,
        [],
      );
      // A node whose daemon is away tells of no portal; that is another finding of its own.
      const fewer = having.filter(({ live, name }) =>
        live.length < most.length && all.find((one) => one.name === name)?.facts.daemon !== null
      );
      return fewer.map(({ name, live }): Problem => ({
        severity: "warning",
        text: `node ${name} is connected to ${
          count(live.length, "portal")
        } of "${id}", others to ${most.length}; it lacks ${
          most.filter((portal) => !live.includes(portal)).join(", ")
        }`,
        guide: guide(
          again,
          `See what that node says: ssh ${name} /usr/local/bin/tnblock status`,
          `Let its own doctor look: ssh ${name} /usr/local/bin/tnblock doctor portal-reach sessions hosts-allowed`,
          "See that its interface to that network is up: ssh NODE ip -br addr",
          `Let its daemon try at once: ssh ${name} systemctl restart tnblock`,
        ),
      }));
    }));
  },
});

const hosts = check({
  id: "cluster-hosts",
  title: "the arrays let every node of the cluster in",
  needs: "cluster",
  run: async (context) => {
    const all = await Promise.all(context.storages.map((storage) => shutOut(context, storage)));
    return all.flat();
  },
});

/** The nodes that have the storage and are not let in; this one's own check tells of this one. */
async function shutOut(context: ClusterContext, storage: StorageContext): Promise<Problem[]> {
  const array = await storage.array();
  if (array instanceof TnblockError) return [];
  const who = await ifKnown(() => admission(array));
  if (who === undefined) return [];
  const isIscsi = storage.settings.transport.kind === "iscsi";
  const menu = isIscsi ? array.menus.initiators : array.menus.hosts;
  return told(context).slice(1).flatMap(({ name, facts }): Problem[] => {
    const own = isIscsi ? facts.initiator : facts.hostNqn;
    const has = facts.storages.some(({ id }) => id === storage.id);
    if (!has || own === null || admits(who, own)) return [];
    return [{
      severity: "error",
      text: `the array does not let node ${name} in to "${storage.id}": it calls itself "${own}"`,
      guide: guide(
        `${context.node.again("cluster-hosts")} --cluster`,
        `See what that node calls itself: ssh ${name} cat ${
          isIscsi ? "/etc/iscsi/initiatorname.iscsi" : "/etc/nvme/hostnqn"
        }`,
        `Add that name in TrueNAS: ${menu}`,
        `Let its daemon connect at once: ssh ${name} systemctl restart tnblock`,
        `Or keep the storage from that node: pvesm set ${storage.id} --nodes NODE,NODE`,
      ),
    }];
  });
}

/** All of them. */
export const CLUSTER_CHECKS = [nodes, versions, identities, hosts, clocks, parity] as const;
