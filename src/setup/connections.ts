/** This node's connections to one target or subsystem: taken back only when setup made them and what they lead to. */
import { canonicalAddress, formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import { scanNvmeControllers } from "../host/scan/nvme.ts";
import { scanIscsiSessions } from "../host/scan/scsi.ts";

/** Milliseconds for ending one connection. */
const END_MS = 30_000;

/** Names of the sessions or controllers that lead to a target or subsystem. */
export async function connectionsTo(host: Host, name: string): Promise<ReadonlySet<string>> {
  const [sessions, controllers] = await Promise.all([
    scanIscsiSessions(host.files),
    scanNvmeControllers(host.files),
  ]);
  return new Set([
    ...sessions.filter((one) => one.targetIqn === name).map((one) => one.name),
    ...controllers.filter((one) => one.subsystem === name).map((one) => one.name),
  ]);
}

/** Ends those that were not there before; how many there were. */
export async function endConnections(
  host: Host,
  name: string,
  before: ReadonlySet<string>,
): Promise<number> {
  const [sessions, controllers] = await Promise.all([
    scanIscsiSessions(host.files),
    scanNvmeControllers(host.files),
  ]);
  let count = 0;
  for (const { name: session, targetIqn, portal } of sessions) {
    if (targetIqn !== name || before.has(session) || portal === undefined) continue;
    count++;
    await attempt(`Cannot log out of "${name}"`, () => logOut(host, name, portal));
  }
  for (const { name: controller, subsystem } of controllers) {
    if (subsystem !== name || before.has(controller)) continue;
    count++;
    await attempt(
      `Cannot disconnect from "${name}"`,
      () =>
        host.files.writeControl(`/sys/class/nvme/${controller}/delete_controller`, "1", {
          deadlineMs: END_MS,
        }),
    );
  }
  return count;
}

/** Where open-iscsi keeps its records: since Debian 13, and before. */
const RECORDS = ["/var/lib/iscsi/nodes", "/etc/iscsi/nodes"];

/** The record goes too: else iscsid would log in again at the next boot, to what is no more. */
async function logOut(host: Host, iqn: string, portal: Portal): Promise<void> {
  for (const folder of RECORDS) {
    for (const entry of await host.files.list(`${folder}/${iqn}`) ?? []) {
      const [, address, port, tpgt] = /^\[?([^\],]+)\]?,(\d+),(\d+)$/.exec(entry) ?? [];
      if (address === undefined || Number(port) !== portal.port) continue;
      if (canonicalAddress(address) !== canonicalAddress(portal.address)) continue;
      const place = `${formatPortal(portal)},${tpgt}`;
      const args = ["-m", "node", "-T", iqn, "-p", place, "--logout"];
      await host.run("/usr/sbin/iscsiadm", args, { deadlineMs: END_MS });
      await host.files.remove(`${folder}/${iqn}/${entry}/default`);
    }
  }
}
