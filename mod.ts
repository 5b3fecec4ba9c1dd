/**
 * What other programs may import of tnblock: the TrueNAS client, both transports, the block device
 * scanner, volume names, the settings' schema, and the simulator. Importing it does nothing.
 *
 * @example
 * ```ts
 * import { connectTrueNas, startSimulator, systemClock } from "@tnblock/tnblock";
 *
 * const simulator = await startSimulator({ release: "25.10" });
 * const { host, port, user, apiKey, fingerprint, dataset } = simulator.ready;
 * const nas = await connectTrueNas({
 *   addresses: [host], port, user, apiKey, clock: systemClock,
 *   trust: { kind: "fingerprint", sha256: fingerprint },
 * });
 * const { zvols } = await nas.zvols.list(dataset);
 * nas.session.close();
 * await simulator.stop();
 * ```
 *
 * @module
 */
export { connectTrueNas, type Resources, type TrueNas } from "./src/truenas/array.ts";
export { systemClock } from "./src/truenas/clock.ts";
export type { Caller } from "./src/truenas/caller.ts";
export { ArrayError } from "./src/truenas/errors.ts";
export { openSession, type Session, type SessionOptions } from "./src/truenas/session.ts";
export { ERROR_CODES, type ErrorCode, TnblockError } from "./src/common/error.ts";
export { Deadline } from "./src/common/deadline.ts";
export { silentLog } from "./src/common/log.ts";
export type { StorageSettings } from "./src/common/storage_settings.ts";
export { linuxHost } from "./src/host/linux.ts";
export type { Host } from "./src/host/host.ts";
export { scanBlockDevices } from "./src/host/scan_node.ts";
export type { BlockScan } from "./src/host/scan/types.ts";
export { iscsiTransport } from "./src/transport/iscsi/transport.ts";
export { nvmeTransport } from "./src/transport/nvme/transport.ts";
export type { DiskIdentity, Transport, VolumeExport } from "./src/transport/transport.ts";
export { optionSchema, SECRET_OPTIONS } from "./src/pve/options.ts";
export { parseSettings } from "./src/pve/settings.ts";
export { formatVolumeName, parseVolumeName, type VolumeName } from "./src/pve/volume_name.ts";
export {
  type Simulator,
  type SimulatorOptions,
  startSimulator,
} from "./src/simulator/simulator.ts";
