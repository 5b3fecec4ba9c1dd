/** The node half of iSCSI: sessions to every portal. The disks behind them are in `disk.ts`. */
import type { Deadline } from "../../common/deadline.ts";
import type { Log } from "../../common/log.ts";
import { samePortal } from "../../common/portal.ts";
import type { IscsiSettings, Portal } from "../../common/storage_settings.ts";
import { PORTAL_PROBE_MS } from "../../common/timing.ts";
import type { Host } from "../../host/host.ts";
import { login } from "../../host/iscsi_admin.ts";
import { scanIscsiSessions } from "../../host/scan/scsi.ts";
import type { IscsiSession } from "../../host/scan/types.ts";
import { connectAll } from "../connect_all.ts";
import type { PortalGlance } from "../transport.ts";

/** What the node half needs. */
export interface IscsiNodeParts {
  readonly settings: IscsiSettings;
  readonly host: Host;
  readonly log: Log;
}

/** The sessions to the storage's target. */
export async function sessionsOf(parts: IscsiNodeParts): Promise<IscsiSession[]> {
  const all = await scanIscsiSessions(parts.host.files);
  return all.filter((session) => session.targetIqn === parts.settings.targetIqn);
}

/** Those of them that carry commands now. */
export async function liveSessions(parts: IscsiNodeParts): Promise<IscsiSession[]> {
  return (await sessionsOf(parts)).filter((session) => session.state === "LOGGED_IN");
}

/** The configured portals and the state of their sessions. */
export async function portalsOf(parts: IscsiNodeParts): Promise<PortalGlance[]> {
  const sessions = await sessionsOf(parts);
  return parts.settings.portals.map((portal) => {
    const there = sessions.filter((session) =>
      session.portal !== undefined && samePortal(session.portal, portal)
    );
    const isLive = there.some((session) => session.state === "LOGGED_IN");
    return { portal, state: isLive ? "live" : there.length > 0 ? "recovering" : "missing" };
  });
}

/** Logs in to one portal. */
export async function connectPortal(
  { settings, host }: IscsiNodeParts,
  portal: Portal,
  deadline: Deadline,
): Promise<void> {
  await login(host, {
    iqn: settings.targetIqn,
    portal,
    chap: settings.chap,
    multipath: settings.useMultipath,
  }, deadline.signal);
}

/** Logs in to the portals that have no session; a session that is down is left to iscsid. */
export async function connect(parts: IscsiNodeParts, deadline: Deadline): Promise<void> {
  const { settings, log } = parts;
  const found = await portalsOf(parts);
  await connectAll(
    log,
    `target "${settings.targetIqn}"`,
    settings.portals,
    async (portal) => {
      const state = found.find((one) => one.portal === portal)?.state;
      if (state === "live" || state === "recovering") return state;
      await connectPortal(parts, portal, deadline);
      return "live";
    },
  );
}

/** Whether any portal takes a TCP connection. */
export async function anyPortalAnswers(parts: IscsiNodeParts): Promise<boolean> {
  const bounds = { deadlineMs: PORTAL_PROBE_MS };
  const probes = parts.settings.portals.map((portal) =>
    parts.host.exchangeTcp(portal.address, portal.port, new Uint8Array(), 0, bounds)
  );
  return await Promise.any(probes).then(() => true, () => false);
}
