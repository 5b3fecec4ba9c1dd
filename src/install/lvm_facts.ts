/** What LVM says about its filter, and which disks of TrueNAS are the node's own physical volumes. */
import * as v from "valibot";
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import {
  decideFilter,
  type FilterDecision,
  parseFilter,
  passes,
  REJECTED,
  withoutBlock,
} from "./lvm_filter.ts";
import { LOOK_MS, LVM_CONF, LVM_LOCAL_CONF, RUN } from "./places.ts";
import type { Section } from "./storage_sections.ts";

/** A configuration of LVM to try things with, see lvm(8), LVM_SYSTEM_DIR. */
const TRIAL = "/run/tnblock/lvm";

/** What is to be done about the filter; a failure to find out is a reason to leave it alone. */
export async function lookAtLvm(
  host: Host,
  sections: readonly Section[],
): Promise<FilterDecision | undefined> {
  if (await host.files.status(RUN.lvmconfig) === undefined) return undefined;
  try {
    return await decide(host, sections);
  } catch (error) {
    if (!(error instanceof TnblockError)) throw error;
    return { kind: "impossible", why: error.message };
  }
}

async function decide(host: Host, sections: readonly Section[]): Promise<FilterDecision> {
  const devicesFile = await lvmconfig(host, ["--typeconfig", "full", "devices/use_devicesfile"]);
  if (
    /use_devicesfile=1/.test(devicesFile ?? "") &&
    await host.files.status("/etc/lvm/devices/system.devices") !== undefined
  ) {
    return { kind: "already", why: "LVM scans only what is in its devices file" };
  }
  const [main, local] = await attempt(
    "Cannot read LVM's configuration",
    () => Promise.all([LVM_CONF, LVM_LOCAL_CONF].map((path) => host.files.readText(path))),
  );
  const base = await effectiveFilter(host, main, withoutBlock(local ?? ""));
  const decision = decideFilter(base, local, await ownVolumes(host, sections));
  if (decision.kind !== "write") return decision;
  // LVM itself must read it as it is meant.
  const read = await effectiveFilter(host, main, decision.text);
  return JSON.stringify(read) === JSON.stringify(decision.filter)
    ? decision
    : { kind: "impossible", why: "LVM does not take the filter as it is written" };
}

async function effectiveFilter(
  host: Host,
  main: string | undefined,
  local: string,
): Promise<string[] | undefined> {
  const files = { [`${TRIAL}/lvm.conf`]: main ?? "", [`${TRIAL}/lvmlocal.conf`]: local };
  return await attempt("Cannot try LVM's configuration", async () => {
    try {
      for (const [path, text] of Object.entries(files)) {
        await host.files.replaceText(path, text, 0o600);
      }
      const printed = await lvmconfig(host, ["devices/global_filter"], TRIAL);
      return printed === undefined ? undefined : parseFilter(printed);
    } finally {
      for (const path of Object.keys(files)) await host.files.remove(path);
    }
  });
}

/** What lvmconfig prints; undefined when it says that there is no such node. */
async function lvmconfig(
  host: Host,
  args: readonly string[],
  systemDirectory?: string,
): Promise<string | undefined> {
  const { status, stdout, stderr } = await attempt(
    "Cannot ask lvmconfig",
    () =>
      host.run(RUN.lvmconfig, args, {
        deadlineMs: LOOK_MS,
        ...(systemDirectory === undefined
          ? {}
          : { environment: { LVM_SYSTEM_DIR: systemDirectory } }),
      }),
  );
  if (status === 0) return stdout;
  // Configuration node devices/global_filter not found
  if (/not found/.test(stderr)) return undefined;
  const said = stderr.trim().split("\n").at(-1) ?? "";
  throw new TnblockError("host-fault", `Cannot ask lvmconfig: ${said || `status ${status}`}`);
}

const pvsSchema = v.object({
  report: v.array(v.object({
    pv: v.array(v.object({ pv_name: v.string(), vg_name: v.string() })),
  })),
});
const lvsSchema = v.object({
  report: v.array(v.object({
    lv: v.array(v.object({ vg_name: v.string(), lv_device_open: v.string() })),
  })),
});

/**
 * Names of disks of TrueNAS that carry a volume group of the node itself: one that storage.cfg names, or one
 * that is open here. All others are taken for those of guests.
 */
async function ownVolumes(host: Host, sections: readonly Section[]): Promise<string[]> {
  const groups = new Set(
    sections.filter(({ type }) => type === "lvm" || type === "lvmthin")
      .flatMap(({ options }) => options["vgname"] ?? []),
  );
  const lvs = await report(host, RUN.lvs, "vg_name,lv_device_open", lvsSchema);
  for (const { vg_name, lv_device_open } of lvs.report.flatMap(({ lv }) => lv)) {
    if (lv_device_open !== "") groups.add(vg_name);
  }
  const pvs = await report(host, RUN.pvs, "pv_name,vg_name", pvsSchema);
  const devices = new Set<string>();
  for (const { pv_name, vg_name } of pvs.report.flatMap(({ pv }) => pv)) {
    const device = groups.has(vg_name) ? await host.files.resolve(pv_name) : undefined;
    if (device !== undefined) devices.add(device);
  }
  if (devices.size === 0) return [];
  const folder = "/dev/disk/by-id";
  const names: string[] = [];
  for (const name of await host.files.list(folder) ?? []) {
    if (passes(REJECTED, [`${folder}/${name}`])) continue;
    const device = await host.files.resolve(`${folder}/${name}`);
    if (device !== undefined && devices.has(device)) names.push(name);
  }
  return names;
}

async function report<T>(
  host: Host,
  program: string,
  fields: string,
  schema: v.GenericSchema<unknown, T>,
): Promise<T> {
  const doing = "Cannot tell which volume groups are the node's own";
  const { status, stdout, stderr } = await attempt(
    doing,
    () => host.run(program, ["--reportformat", "json", "-o", fields], { deadlineMs: LOOK_MS }),
  );
  if (status !== 0) {
    const said = stderr.trim().split("\n").at(-1) ?? "";
    throw new TnblockError("host-fault", `${doing}: ${said || `status ${status}`}`);
  }
  try {
    return v.parse(schema, JSON.parse(stdout));
  } catch (cause) {
    throw new TnblockError("host-fault", `${doing}: ${program} answers something else`, { cause });
  }
}
