/** Checks of open-iscsi on the node. */
import { formatPortal } from "../../common/portal.ts";
import { findRecord } from "../../host/iscsi_record.ts";
import { check } from "../check.ts";
import { guide } from "../guide.ts";

const iscsiInitiator = check({
  id: "iscsi-initiator",
  title: "the node has an initiator name",
  needs: "storage",
  run: async (storage) => {
    if (storage.settings.transport.kind !== "iscsi") return [];
    const { host } = storage.node;
    const [{ initiator }, program] = await Promise.all([
      storage.node.identity(),
      host.files.status("/usr/sbin/iscsiadm"),
    ]);
    if (initiator !== undefined && program !== undefined) return [];
    return [{
      severity: "error",
      text: program === undefined
        ? "open-iscsi is not installed: there is no /usr/sbin/iscsiadm"
        : "/etc/iscsi/initiatorname.iscsi holds no InitiatorName",
      guide: guide(
        storage.again("iscsi-initiator"),
        "Install what is missing: apt install open-iscsi",
        "See the name: cat /etc/iscsi/initiatorname.iscsi",
        'Make one where there is none: echo "InitiatorName=$(iscsi-iname)" > /etc/iscsi/initiatorname.iscsi',
        "Let iscsid take it, and allow it at the target in TrueNAS: systemctl restart iscsid",
      ),
    }];
  },
});

const iscsiRecords = check({
  id: "iscsi-records",
  title: "the node's iSCSI records are as tnblock writes them",
  needs: "storage",
  run: async (storage) => {
    const { transport } = storage.settings;
    if (transport.kind !== "iscsi") return [];
    const { files } = storage.node.host;
    const wrong: string[] = [];
    for (const portal of transport.portals) {
      const path = await findRecord(files, transport.targetIqn, portal, 1);
      const text = path === undefined ? undefined : await files.readText(path);
      if (text === undefined) continue;
      const value = (key: string) =>
        new RegExp(`^${key.replaceAll(/[.[\]]/g, "\\$&")} = (.*)$`, "m").exec(text)?.[1]?.trim();
      if (value("node.startup") === "automatic") {
        wrong.push(`${formatPortal(portal)} logs in at boot`);
      } else if (value("node.session.scan") === "auto") {
        wrong.push(`${formatPortal(portal)} attaches every LUN`);
      }
    }
    if (wrong.length === 0) return [];
    return [{
      severity: "warning",
      text: `iSCSI records of "${transport.targetIqn}" were changed by others: ${wrong.join(", ")}`,
      guide: guide(
        storage.again("iscsi-records"),
        `See the record: iscsiadm -m node -T ${transport.targetIqn}`,
        "Find out who rewrote it: a discovery of the same portal by hand, or a storage of type iscsi: grep -A3 ^iscsi: /etc/pve/storage.cfg",
        `Set it right: iscsiadm -m node -T ${transport.targetIqn} -o update -n node.startup -v manual -n node.session.scan -v manual`,
        "Take a portal of this storage out of what discovers it; each login of tnblock writes the record anew",
      ),
    }];
  },
});

/** All of them. */
export const ISCSI_CHECKS = [iscsiInitiator, iscsiRecords] as const;
