/** Checks of who may do what on the array: the user of the API key, and the nodes. */
import { isAtLeast } from "../../truenas/dialect.ts";
import { mayCall, type Privileges } from "../../truenas/privileges.ts";
import { NEEDED_ROLES } from "../../truenas/needed_roles.ts";
import type { ArrayContext } from "../array_context.ts";
import { admission, admits, ownName } from "../array_facts.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { editStorage } from "../commands.ts";
import { guide } from "../guide.ts";

/** What each release calls for all that tnblock does over a transport. */
function neededMethods({ release, storage }: ArrayContext): string[] {
  const isIscsi = storage.settings.transport.kind === "iscsi";
  const { snapshots, zfsResource, zfsResourceWrites, nvmet } = release.can;
  const rows = ["create", "delete", "query", "update"];
  // Nobody but a full administrator may clone and roll back on 25.04: a check of its own tells that.
  const verbs = snapshots === "pool.snapshot"
    ? ["clone", "create", "delete", "query", "rollback"]
    : ["create", "delete", "query"];
  return [
    ...["pool.dataset.create", "pool.dataset.query", "pool.dataset.update"],
    ...(zfsResourceWrites ? ["zfs.resource.destroy"] : ["pool.dataset.delete"]),
    ...(zfsResource ? ["zfs.resource.query", "pool.dataset.rename"] : []),
    ...verbs.map((verb) => `${snapshots}.${verb}`),
    "service.started",
    "iscsi.extent.query",
    ...(nvmet ? ["nvmet.namespace.query"] : []),
    ...(isIscsi
      ? [
        ...["iscsi.global.config", "iscsi.portal.query", "iscsi.target.query"],
        ...rows.flatMap((verb) => [`iscsi.extent.${verb}`, `iscsi.targetextent.${verb}`]),
      ]
      : [
        ...["nvmet.subsys.query", "nvmet.port_subsys.query", "nvmet.host_subsys.query"],
        ...rows.map((verb) => `nvmet.namespace.${verb}`),
      ]),
  ];
}

const apiRights = check({
  id: "api-rights",
  title: "the user of the API key has the rights that tnblock needs",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    if (storage.settings.api.transport === "rest") {
      throw new Skipped(
        "over REST TrueNAS does not tell, and takes the key of a full administrator only",
      );
    }
    const privileges = await array.privileges();
    const lacking = neededMethods(array).filter((method) => !mayCall(privileges, method));
    const problems: Problem[] = [];
    if (lacking.length > 0) {
      const roles = [...new Set(lacking.flatMap((method) => NEEDED_ROLES[method]?.[0] ?? []))];
      problems.push({
        severity: "error",
        text: `the API key lacks ${roles.join(", ")}`,
        guide: rightsGuide(array, `Give it these roles: ${roles.join(", ")}`),
      });
    }
    if (isLimitedBy2504(array, privileges)) {
      problems.push({
        severity: "warning",
        text:
          `TrueNAS ${array.release.text} lets only a full administrator clone and roll back: snapshots, linked ` +
          `clones and templates are not offered`,
        guide: guide(
          storage.again("api-rights"),
          `See which release there is to update to: ${menus.update}`,
          "Read its notes, and make a snapshot of the boot environment: System > Boot",
          "Update TrueNAS to 25.10 or newer, where the role SNAPSHOT_WRITE is enough; guests wait meanwhile",
          `Or use the key of a full administrator instead: ${menus.apiKeys}, then ${
            editStorage(storage.id)
          }`,
        ),
      });
    }
    return problems;
  },
});

function isLimitedBy2504({ release }: ArrayContext, privileges: Privileges): boolean {
  return release.can.snapshots === "zfs.snapshot" && !privileges.isFullAdmin;
}

function rightsGuide({ storage, menus }: ArrayContext, third: string) {
  return guide(
    storage.again("api-rights"),
    `See which group the user is in: Credentials > Groups, the user "${
      storage.settings.api.user ?? "of the key"
    }"`,
    `Open the privilege of that group: ${menus.privileges}`,
    third,
    `Let this node see it at once: rm -f /run/tnblock/${storage.id}.features; systemctl restart tnblock`,
  );
}

const hostsAllowed = check({
  id: "hosts-allowed",
  title: "the array lets this node in, and not everybody",
  needs: "array",
  run: async (array) => {
    const { storage, menus, release } = array;
    const { transport } = storage.settings;
    const isIscsi = transport.kind === "iscsi";
    const [who, name] = await Promise.all([admission(array), ownName(array)]);
    if (who.kind === "unknown") return [];
    const what = isIscsi
      ? `target "${transport.targetIqn}"`
      : `subsystem "${transport.subsystemNqn}"`;
    const menu = isIscsi ? menus.initiators : menus.hosts;
    const show = isIscsi ? "cat /etc/iscsi/initiatorname.iscsi" : "cat /etc/nvme/hostnqn";
    if (who.kind === "everybody") {
      const { hosts } = isIscsi ? { hosts: [] } : await array.nvme();
      const breaks = hosts.length > 0 && !isAtLeast(release, 27, 0);
      return [{
        severity: breaks ? "error" : "warning",
        text: breaks
          ? `${what} allows any host and names some as well: TrueNAS ${release.text} then stops setting up any subsystem`
          : `${what} lets everybody in who reaches its portals`,
        guide: guide(
          storage.again("hosts-allowed"),
          `See on every node what it calls itself: ${show}`,
          // While any host is allowed, naming one keeps TrueNAS from setting up anything (1e98ac71bb in middleware).
          isIscsi
            ? `Make a group with all of them in TrueNAS: ${menu}`
            : `In a quiet moment take away the tick at All Hosts are allowed: ${menu}; what is connected stays, what ` +
              "is lost meanwhile comes back after the next step only",
          isIscsi
            ? `Let the target's groups name that group instead of everybody: ${menus.targets}`
            : "Name all of them there right after it, and never before: Add > Create New",
          `See that this node is still connected: tnblock status`,
        ),
      }];
    }
    if (admits(who, name)) return [];
    return [{
      severity: "error",
      text: `${what} does not let this node in, which calls itself "${name}"`,
      guide: guide(
        storage.again("hosts-allowed"),
        `See what this node calls itself: ${show}`,
        `Add that name in TrueNAS: ${menu}`,
        isIscsi
          ? `See that the target's groups name that group: ${menus.targets}`
          : "Leave All Hosts are allowed without a tick",
        "Let the daemon connect at once: systemctl restart tnblock",
      ),
    }];
  },
});

/** All of them. */
export const RIGHTS_CHECKS = [apiRights, hostsAllowed] as const;
