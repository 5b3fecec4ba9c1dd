/** What is to be made on the array for NVMe/TCP. */
import { formatPortal, samePortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { Draft } from "./draft.ts";
import type { ClusterFacts } from "./node_facts.ts";
import type { Step } from "./plan.ts";
import { isEvery } from "./portal_choice.ts";
import { chosenExport, unlistedHosts } from "./questions_target.ts";

/** Ports, subsystem and hosts; or the hosts alone where the subsystem is there. */
export function nvmeSteps(draft: Draft, cluster: ClusterFacts): Step[] {
  const { array: { nvme }, target, portals, proof } = draft;
  if (nvme === undefined) return [];
  const steps: Step[] = [];
  const existing = chosenExport(draft)?.id;
  if (target.isNew) {
    const portOf = (portal: Portal) =>
      nvme.ports.find((port) =>
        port.transport === "TCP" && port.enabled &&
        (samePortal(port, portal) ||
          (port.port === portal.port && isEvery(port.address, portal.address)))
      )?.id;
    for (const portal of portals.filter((one) => portOf(one) === undefined)) {
      steps.push({
        action: { kind: "nvme-port", portal },
        about: `Make NVMe/TCP port ${formatPortal(portal)}`,
        how: "nvmet.port.create",
      });
    }
    steps.push({
      action: { kind: "subsystem", name: target.name },
      about: `Make NVMe subsystem ${target.name}, for listed hosts only`,
      how: "nvmet.subsys.create",
    });
    const shown = new Set<number>();
    for (const portal of portals) {
      const port = portOf(portal);
      if (port !== undefined && shown.has(port)) continue;
      if (port !== undefined) shown.add(port);
      steps.push({
        action: { kind: "show", portal, port },
        about: `Show it at ${formatPortal(portal)}`,
        how: "nvmet.port_subsys.create",
      });
    }
  }
  if (!target.isNew && !draft.allowHosts) return steps;
  for (const { node, name } of unlistedHosts({ draft, cluster })) {
    if (name === null || !nvme.hosts.some(({ nqn }) => nqn === name)) {
      const key = proof === "none" ? "" : ", with a new DH-HMAC-CHAP key";
      steps.push({
        action: { kind: "host", node, proof },
        about: `Make node ${node} known as ${name ?? "its new name"}${key}`,
        how: "nvmet.host.create",
      });
    }
    steps.push({
      action: { kind: "allow", node, subsystem: existing },
      about: `Let node ${node} use the subsystem`,
      how: "nvmet.host_subsys.create",
    });
  }
  return steps;
}
