/**
 * The data side of the simulated array played by a real kernel: volumes are files on a reflink file
 * system, exported by nvmet over NVMe/TCP and by LIO over iSCSI. Needs root, and a machine that is
 * nobody's: it belongs into a VM.
 */

import type { DataSide, Exports } from "../exports.ts";
import { readSessions } from "./connections.ts";
import { LioTarget } from "./lio_target.ts";
import { NvmetTarget } from "./nvmet_target.ts";
import { runProgram } from "./programs.ts";
import { type Volume, VolumeStore } from "./volume_store.ts";

const MODULES = ["nvmet-tcp", "iscsi_target_mod", "target_core_file", "loop"];
const NOTHING: Exports = {
  iscsi: { running: false, port: 3260, targets: [] },
  nvmet: { running: false, subsystems: [] },
};

/** Options of {@link kernelDataSide}. */
export interface KernelDataSideOptions {
  /** A folder on a file system with reflinks, XFS for instance. Volumes in it are removed. */
  readonly directory: string;
  /** Name of a network namespace below /run/netns, in which the portals listen. Default: our own. */
  readonly netns?: string;
}

/** Loads the kernel's target modules and takes the folder over; rejects without root. */
export async function kernelDataSide(options: KernelDataSideOptions): Promise<DataSide> {
  await runProgram("modprobe", ["--all", ...MODULES]);
  const volumes = await VolumeStore.open(options.directory);
  const nvmet = new NvmetTarget(volumes, options.netns);
  const lio = new LioTarget(volumes, options.netns);
  let applied = NOTHING;

  // One step at a time: two differences written at once would each work on half of the other.
  let last: Promise<unknown> = Promise.resolve();
  function inOrder<T>(step: () => Promise<T>): Promise<T> {
    const result = last.then(step);
    last = result.catch(() => {});
    return result;
  }

  // TrueNAS tells both services of a zvol's new size at once, without a reload.
  async function sizeChanged(volume: Volume): Promise<void> {
    await nvmet.sizeChanged(volume);
    await lio.sizeChanged(volume);
  }

  /** As on TrueNAS, each service reloads on its own: what one cannot do does not stop the other. */
  async function apply(exports: Exports): Promise<void> {
    applied = exports;
    const { iscsi, nvmet: nvme } = exports;
    const failures: unknown[] = [];
    await lio.apply(iscsi.running ? iscsi.targets : [], iscsi.port).catch((e) => failures.push(e));
    await nvmet.apply(nvme.running ? nvme.subsystems : []).catch((e) => failures.push(e));
    if (failures.length > 0) throw failures[0];
  }

  return {
    createZvol: (zvol, size, origin) => inOrder(() => volumes.create(zvol, size, origin)),
    resizeZvol: (zvol, size) => inOrder(async () => sizeChanged(await volumes.resize(zvol, size))),
    renameZvol: (from, to) => inOrder(() => volumes.rename(from, to)),
    destroyZvol: (zvol) => inOrder(() => volumes.destroy(zvol)),
    createSnapshot: (zvol, snapshot) => inOrder(() => volumes.createSnapshot(zvol, snapshot)),
    renameSnapshot: (zvol, from, to) => inOrder(() => volumes.renameSnapshot(zvol, from, to)),
    destroySnapshot: (zvol, snapshot) => inOrder(() => volumes.destroySnapshot(zvol, snapshot)),
    promote: (zvol) => inOrder(() => volumes.promote(zvol)),
    // As on TrueNAS, which resizes a zvol itself and says so, but leaves a rollback to ZFS: LIO keeps
    // the size that it was told, as SCST does; nvmet looks when a host asks.
    rollback: (zvol, snapshot) => inOrder(() => volumes.rollback(zvol, snapshot)),
    hasNode: (zvol) => volumes.has(zvol),
    apply: (exports) => inOrder(() => apply(exports)),
    sessions: () => readSessions(applied, options.netns),
    close: () => inOrder(() => apply(NOTHING)),
  };
}
