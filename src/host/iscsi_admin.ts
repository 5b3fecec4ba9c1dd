/** iSCSI sessions and their LUNs: iscsiadm for records and logins, sysfs for everything else. */
import { TnblockError } from "../common/error.ts";
import { formatPortal } from "../common/portal.ts";
import type { ChapSettings, Portal } from "../common/storage_settings.ts";
import { ISCSI_LOGIN_MS, NODE_LOCK_MS, PORTAL_PROBE_MS, PROGRAM_MS } from "../common/timing.ts";
import { attempt, hostFailure } from "./failure.ts";
import { type Bounds, type Host, HostError, type ProgramResult } from "./host.ts";
import { loginFailure } from "./iscsi_failure.ts";
import { editRecord, findRecord, recordFields } from "./iscsi_record.ts";
import { attribute } from "./scan/attributes.ts";
import { LUN_LIMIT } from "./scan/lun.ts";
import type { IscsiSession, ScsiDisk } from "./scan/types.ts";
import { type ControlWrite, onScsiHost, scsiDevice } from "./scsi_control.ts";

const ISCSIADM = "/usr/sbin/iscsiadm";

/** The tag of the portal group that SCST and LIO give; iscsid refuses a target that says another. */
const DEFAULT_TPGT = 1;

/** A login to make. */
export interface IscsiLogin {
  readonly iqn: string;
  readonly portal: Portal;
  /** Tag of the portal group; 1 when absent. */
  readonly tpgt?: number | undefined;
  readonly chap?: ChapSettings | undefined;
  /** Whether a multipath map above keeps commands while every path is dead; true when absent. */
  readonly multipath?: boolean | undefined;
}

/**
 * Makes the node record, or sets it right, whatever it was.
 *
 * Must run under {@link iscsiLock}: iscsiadm does not lock against our edit.
 *
 * @throws TnblockError `host-fault`, `timeout`, or `config` for a value that no record can hold.
 */
export async function ensureRecord(
  host: Host,
  login: IscsiLogin,
  signal?: AbortSignal,
): Promise<void> {
  const tpgt = login.tpgt ?? DEFAULT_TPGT;
  const doing = `Cannot make the iSCSI record of "${checkedIqn(login.iqn)}"`;
  const args = [...target(login), "-o", "new"];
  const result = await runIscsiadm(host, doing, args, bounds(PROGRAM_MS, signal));
  if (result.status !== 0) throw loginFailure(doing, login, result);
  await attempt(doing, async () => {
    const path = await findRecord(host.files, login.iqn, login.portal, tpgt);
    const text = path === undefined ? undefined : await host.files.readText(path);
    if (path === undefined || text === undefined) {
      throw new HostError("ENOENT", "iscsiadm made no record where records are looked for");
    }
    await host.files.replaceText(
      path,
      editRecord(text, recordFields(login.chap, login.multipath)),
      0o600,
    );
  });
}

/**
 * Logs in to one portal with a record written anew, under the target's lock. Already logged in is
 * success; such a session may still be on its way back from a failure.
 *
 * @throws TnblockError `auth`, `unreachable`, `timeout`, `denied`, `config` or `host-fault`.
 */
export async function login(
  host: Host,
  request: IscsiLogin,
  signal?: AbortSignal,
): Promise<{ readonly already: boolean }> {
  const doing = `Cannot log in to "${checkedIqn(request.iqn)}" at ${formatPortal(request.portal)}`;
  await probe(host, doing, request.portal, signal);
  return await iscsiLock(host, request.iqn, signal, async () => {
    await ensureRecord(host, request, signal);
    const args = [...target(request), "--login"];
    const result = await runIscsiadm(host, doing, args, bounds(ISCSI_LOGIN_MS, signal));
    if (result.status === SESSION_EXISTS) return { already: true };
    if (result.status !== 0) throw loginFailure(doing, request, result);
    return { already: false };
  });
}

/**
 * Runs `work` while no other process of tnblock changes records or sessions of the target.
 *
 * @throws TnblockError `busy` when the lock cannot be had in time, and what `work` throws.
 */
export async function iscsiLock<T>(
  host: Host,
  iqn: string,
  signal: AbortSignal | undefined,
  work: () => Promise<T>,
): Promise<T> {
  const release = await attempt(
    `Cannot wait for others at the target "${iqn}"`,
    () => host.lock(`iscsi-${iqn}`, bounds(NODE_LOCK_MS, signal)),
  );
  try {
    return await work();
  } finally {
    release();
  }
}

/**
 * Makes one LUN appear through one session. The SCSI device is there on return, its disk a moment
 * later (the kernel attaches it on its own time): wait for the disk. Nothing appears when the array
 * has no such LUN. A LUN that is there already is not refreshed: see {@link rescanDisk}.
 *
 * @throws TnblockError `unreachable` when the session is down, `busy` while a write to the session
 *   hangs, `timeout`, `unsupported`, `host-fault`.
 */
export async function scanLun(
  host: Host,
  session: IscsiSession,
  lun: number,
  signal?: AbortSignal,
): Promise<void> {
  const doing = `Cannot scan for LUN ${lun} of "${session.targetIqn}"`;
  if (!Number.isInteger(lun) || lun < 0 || lun >= LUN_LIMIT) {
    throw new TnblockError("unsupported", `${doing}: LUNs go from 0 to ${LUN_LIMIT - 1}`);
  }
  await onLivePath(host, doing, session, signal, async (write) => {
    const path = `/sys/class/scsi_host/host${session.host}/scan`;
    if (await write(path, `0 ${session.target} ${lun}`)) return;
    throw new HostError("ENOENT", `the SCSI host ${session.host} is gone`);
  });
}

/**
 * Reads identity and size of one path anew; the kernel's copies are stale after a LUN was resized or
 * given to another volume. Acts on this path alone.
 *
 * @returns false when the path is gone.
 * @throws TnblockError `unreachable` when the session is down, `busy` while a write to the session
 *   hangs, `timeout`, `host-fault`.
 */
export async function rescanDisk(
  host: Host,
  session: IscsiSession,
  disk: Pick<ScsiDisk, "name" | "hctl">,
  signal?: AbortSignal,
): Promise<boolean> {
  const doing = `Cannot rescan the path "${disk.name}" of "${session.targetIqn}"`;
  return await onLivePath(host, doing, session, signal, async (write) => {
    const device = await scsiDevice(host, disk);
    return device !== undefined && await write(`${device}/rescan`, "1");
  });
}

/**
 * Removes one path from the node. The kernel asks nobody who has it open: look for users first.
 * Touches nothing when the name belongs to another disk by now.
 *
 * @returns false when it was gone already.
 * @throws TnblockError `busy` while a write to the session hangs, `timeout`, `host-fault`.
 */
export async function deleteDisk(
  host: Host,
  disk: Pick<ScsiDisk, "name" | "hctl" | "wwid">,
  signal?: AbortSignal,
): Promise<boolean> {
  const doing = `Cannot remove the path "${disk.name}"`;
  const scsiHost = Number(disk.hctl.split(":")[0]);
  return await attempt(doing, () =>
    onScsiHost(host, scsiHost, signal, async (write) => {
      const device = await scsiDevice(host, disk);
      if (device === undefined) return false;
      // Under the lock: who waited for it may find another volume at the same address.
      const wwid = await attribute(host.files, `${device}/wwid`);
      if (disk.wwid !== undefined && wwid !== disk.wwid) return false;
      return await write(`${device}/delete`, "1");
    }));
}

/**
 * Does something that hangs in the kernel when the path is dead: only on a session that is up, and
 * after a probe of its portal.
 */
async function onLivePath<T>(
  host: Host,
  doing: string,
  session: IscsiSession,
  signal: AbortSignal | undefined,
  work: (write: ControlWrite) => Promise<T>,
): Promise<T> {
  if (session.state !== "LOGGED_IN") {
    throw new TnblockError(
      "unreachable",
      `${doing}: the session ${session.name} is ${session.state ?? "gone"}`,
      { hint: "Check the network to the portal, and that the iSCSI service runs on the array" },
    );
  }
  if (session.portal !== undefined) await probe(host, doing, session.portal, signal);
  return await attempt(doing, () => onScsiHost(host, session.host, signal, work));
}

async function probe(
  host: Host,
  doing: string,
  portal: Portal,
  signal: AbortSignal | undefined,
): Promise<void> {
  try {
    const limits = bounds(PORTAL_PROBE_MS, signal);
    await host.exchangeTcp(portal.address, portal.port, new Uint8Array(0), 0, limits);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    throw new TnblockError(
      "unreachable",
      `${doing}: the portal ${formatPortal(portal)} does not answer (${error.code})`,
      {
        cause: error,
        hint: "Check the network to the portal, and that the iSCSI service runs on the array",
      },
    );
  }
}

async function runIscsiadm(
  host: Host,
  doing: string,
  args: readonly string[],
  limits: Bounds,
): Promise<ProgramResult> {
  try {
    return await host.run(ISCSIADM, args, limits);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code !== "ENOENT") throw hostFailure(doing, error);
    throw new TnblockError("host-fault", `${doing}: iscsiadm is not installed`, {
      cause: error,
      hint: "Run apt install open-iscsi",
    });
  }
}

function target(login: IscsiLogin): string[] {
  const portal = `${formatPortal(login.portal)},${login.tpgt ?? DEFAULT_TPGT}`;
  return ["-m", "node", "-T", login.iqn, "-p", portal];
}

/** An IQN becomes a folder's name and an argument. */
function checkedIqn(iqn: string): string {
  if (/^(iqn|eui|naa)\.[A-Za-z0-9.:-]+$/.test(iqn)) return iqn;
  throw new TnblockError("config", `Cannot use "${iqn}" as a target: it is not an IQN`);
}

const SESSION_EXISTS = 15;

function bounds(deadlineMs: number, signal: AbortSignal | undefined): Bounds {
  return signal === undefined ? { deadlineMs } : { deadlineMs, signal };
}
