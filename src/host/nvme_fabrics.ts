/**
 * NVMe/TCP connections without nvme-cli: the connect string for `/dev/nvme-fabrics`, the probe
 * before it, and what the kernel's answers mean.
 */
import { TnblockError } from "../common/error.ts";
import { formatPortal, isIpv4, isIpv6 } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import {
  FABRICS_CONNECT_MS,
  NVME_CONTROL_MS,
  PORTAL_PROBE_MS,
  PROGRAM_MS,
} from "../common/timing.ts";
import { checkDhchapSecret } from "./dhchap_secret.ts";
import { hostFailure } from "./failure.ts";
import { type Host, HostError, LockError } from "./host.ts";
import { connectFailure, probeFailure } from "./nvme_failure.ts";

export { checkDhchapSecret } from "./dhchap_secret.ts";
export { type HostIdentity, hostIdentity } from "./nvme_identity.ts";

/** A connection to make. */
export interface NvmeConnection {
  readonly portal: Portal;
  /** NQN of the subsystem. */
  readonly nqn: string;
  readonly hostNqn: string;
  readonly hostId: string;
  /** Absent options are left to the kernel: queues = processors, keep-alive 5 s, reconnect 10 s, loss 600 s. */
  readonly nrIoQueues?: number | undefined;
  /** Seconds. */
  readonly keepAliveTmo?: number | undefined;
  /** Seconds. */
  readonly reconnectDelay?: number | undefined;
  /** Seconds; -1 for ever. */
  readonly ctrlLossTmo?: number | undefined;
  readonly dhchapSecret?: string | undefined;
  readonly dhchapCtrlSecret?: string | undefined;
}

/** How a connect ended well. */
export interface NvmeConnected {
  /** The connection was there before. */
  readonly already: boolean;
  /** The new controller, e.g. `nvme0`; undefined when it was there before. */
  readonly controller: string | undefined;
}

/**
 * The connect string. A tuning option that this kernel does not list is left out; a secret that it
 * cannot use is refused, as leaving it out would connect without authentication.
 *
 * @param kernelOptions the text of `Host.fabricsOptions`; undefined takes every option as known.
 * @throws TnblockError `config` or `unsupported`; no message contains a secret.
 */
export function connectString(
  connection: NvmeConnection,
  kernelOptions: string | undefined,
): string {
  const { portal, dhchapSecret, dhchapCtrlSecret } = connection;
  if (!isIpv4(portal.address) && !isIpv6(portal.address)) {
    throw invalid("portal address", "it is not numeric");
  }
  const known = kernelOptions === undefined
    ? undefined
    : new Set(kernelOptions.trim().split(",").map((option) => option.split("=")[0]));
  const parts = [
    ["transport", "tcp"],
    ["traddr", portal.address],
    ["trsvcid", String(portal.port)],
    ["nqn", connection.nqn],
    ["hostnqn", connection.hostNqn],
    ["hostid", connection.hostId],
  ];
  for (
    const [key, value] of [
      ["nr_io_queues", connection.nrIoQueues],
      ["keep_alive_tmo", connection.keepAliveTmo],
      ["reconnect_delay", connection.reconnectDelay],
      ["ctrl_loss_tmo", connection.ctrlLossTmo],
    ] as const
  ) {
    if (value === undefined || known?.has(key) === false) continue;
    if (!Number.isSafeInteger(value)) throw invalid(key, "it is not a whole number");
    parts.push([key, String(value)]);
  }
  for (
    const [key, option, value] of [
      ["dhchap_secret", "tnb-dhchap-secret", dhchapSecret],
      ["dhchap_ctrl_secret", "tnb-dhchap-ctrl-secret", dhchapCtrlSecret],
    ] as const
  ) {
    if (value === undefined) continue;
    checkDhchapSecret(value, option);
    if (known?.has(key) === false) {
      throw new TnblockError(
        "unsupported",
        `Cannot authenticate to "${connection.nqn}": this kernel does not take ${key}`,
        {
          field: option,
          hint: "Use a kernel with CONFIG_NVME_HOST_AUTH, or take the secret out of the storage",
        },
      );
    }
    parts.push([key, value]);
  }
  for (const [key = "", value = ""] of parts) {
    // The kernel splits at commas and has no escape: a comma would smuggle in another option.
    if (value === "" || /[,\s\0]/.test(value)) {
      throw invalid(key, "it is empty or contains a comma or white space");
    }
  }
  return parts.map(([key, value]) => `${key}=${value}`).join(",");
}

/**
 * Connects to one portal: a probe of our own first, as the kernel takes one connect at a time and
 * waits up to 10 s for a silent target; then the kernel. Already connected is success.
 *
 * @throws TnblockError with a text for each of the kernel's answers; the kernel's own words are its cause.
 */
export async function connectPortal(
  host: Host,
  connection: NvmeConnection,
  signal?: AbortSignal,
): Promise<NvmeConnected> {
  const bounds = (deadlineMs: number) =>
    signal === undefined ? { deadlineMs } : { deadlineMs, signal };
  const text = connectString(connection, await optionsOf(host, connection, signal));
  await probePortal(host, connection.portal, signal);
  const since = host.monotonicMs();
  try {
    const answer = await host.connectFabrics(text, bounds(FABRICS_CONNECT_MS));
    const instance = /^instance=(\d+)/.exec(answer)?.[1];
    return {
      already: false,
      controller: instance === undefined ? undefined : `nvme${instance}`,
    };
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code === "EALREADY") return { already: true, controller: undefined };
    // Not the portal's silence: another connect of this node is not done.
    if (error instanceof LockError) {
      const { nqn, portal } = connection;
      throw hostFailure(`Cannot connect to "${nqn}" at ${formatPortal(portal)}`, error);
    }
    throw await connectFailure(host, connection, error, since);
  }
}

/** ICReq of NVMe/TCP (PDU type 0, header and PDU length 128), and the beginning of the answer to it. */
const IC_REQUEST = Uint8Array.from(
  { length: 128 },
  (_, index) => index === 2 || index === 4 ? 0x80 : 0,
);
const IC_RESPONSE = [0x01, 0x00, 0x80, 0x00, 0x80, 0x00, 0x00, 0x00];

/**
 * Asks a portal whether it speaks NVMe/TCP, within a second.
 *
 * @throws TnblockError `unreachable`.
 */
export async function probePortal(host: Host, portal: Portal, signal?: AbortSignal): Promise<void> {
  const deadlineMs = PORTAL_PROBE_MS;
  try {
    const answer = await host.exchangeTcp(
      portal.address,
      portal.port,
      IC_REQUEST,
      IC_REQUEST.length,
      signal === undefined ? { deadlineMs } : { deadlineMs, signal },
    );
    if (IC_RESPONSE.every((byte, index) => answer[index] === byte)) return;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    throw probeFailure(portal, error);
  }
  throw new TnblockError(
    "unreachable",
    `Cannot connect to ${formatPortal(portal)}: what listens there does not speak NVMe/TCP`,
    {
      hint: "Compare the port with that of the NVMe-oF service on the array",
    },
  );
}

/** The kernel's options; loads the module when it is not there, as nvme-cli's package would have at boot. */
async function optionsOf(
  host: Host,
  connection: NvmeConnection,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const doing = `Cannot connect to "${connection.nqn}"`;
  try {
    const options = await host.fabricsOptions();
    if (options !== undefined) return options;
    const deadlineMs = PROGRAM_MS;
    const result = await host.run(
      "/usr/sbin/modprobe",
      ["nvme-tcp"],
      signal === undefined ? { deadlineMs } : { deadlineMs, signal },
    );
    const loaded = await host.fabricsOptions();
    if (loaded !== undefined) return loaded;
    throw new HostError("ENOENT", result.stderr.trim() || "there is no /dev/nvme-fabrics");
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code === "ETIMEDOUT") throw hostFailure(doing, error);
    const denied = error.code === "EACCES" || error.code === "EPERM";
    throw new TnblockError(
      "host-fault",
      denied
        ? `${doing}: only root may connect NVMe subsystems`
        : `${doing}: the kernel module nvme-tcp is not there`,
      {
        cause: error,
        hint: denied ? "Run it as root" : "Run modprobe nvme-tcp and look at its message",
      },
    );
  }
}

/**
 * Makes a controller look at its namespaces again; needed after an nsid was reused, when the kernel
 * drops the old disk and does not bring the new one. Returns at once, the scan goes on in the kernel.
 *
 * @returns false when the controller is gone.
 * @throws TnblockError `host-fault` or `timeout`.
 */
export async function rescanController(
  host: Host,
  controller: string,
  signal?: AbortSignal,
): Promise<boolean> {
  const deadlineMs = NVME_CONTROL_MS;
  try {
    await host.files.writeControl(
      `/sys/class/nvme/${controller}/rescan_controller`,
      "1",
      signal === undefined ? { deadlineMs } : { deadlineMs, signal },
    );
    return true;
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    if (error.code === "ENOENT" || error.code === "ENODEV") return false;
    throw hostFailure(`Cannot rescan the NVMe controller "${controller}"`, error);
  }
}

function invalid(what: string, why: string): TnblockError {
  return new TnblockError("config", `Cannot use the ${what} for an NVMe connection: ${why}`);
}
