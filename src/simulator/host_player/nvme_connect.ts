/**
 * What `/dev/nvme-fabrics` makes of a connect string, and for which reasons it refuses one, by the
 * kernel's own symbolic names.
 */

import { isIP } from "node:net";
import { crc32 } from "node:zlib";
import type { SubsystemExport } from "../exports.ts";

/** What a bare read of `/dev/nvme-fabrics` gives (kernel 6.12). */
export const FABRICS_OPTIONS =
  "instance=-1,cntlid=-1,transport=%s,traddr=%s,trsvcid=%s,nqn=%s,queue_size=%d,nr_io_queues=%d," +
  "reconnect_delay=%d,ctrl_loss_tmo=%d,keep_alive_tmo=%d,hostnqn=%s,host_traddr=%s,host_iface=%s," +
  "hostid=%s,duplicate_connect,disable_sqflow,hdr_digest,data_digest,nr_write_queues=%d," +
  "nr_poll_queues=%d,tos=%d,keyring=%d,tls_key=%d,fast_io_fail_tmo=%d,discovery,dhchap_secret=%s," +
  "dhchap_ctrl_secret=%s,tls";

const KNOWN = new Set(FABRICS_OPTIONS.split(",").map((option) => option.split("=")[0]));

/** Who a node without `/etc/nvme` is: the kernel's own, random at module load. */
const DEFAULT_HOST_ID = "a1d5c7e2-0f3b-4c68-9e14-7b2f60d8c935";

/** Connect options, checked for form. */
export interface ConnectOptions {
  readonly address: string;
  readonly port: number;
  readonly nqn: string;
  readonly hostNqn: string;
  readonly hostId: string;
  readonly queues: number;
  /** Seconds, all of them; a negative controller loss time-out means for ever. */
  readonly keepAlive: number;
  readonly reconnectDelay: number;
  readonly controllerLoss: number;
  readonly secret: string | undefined;
  readonly controllerSecret: string | undefined;
  readonly duplicate: boolean;
}

/** Options, or the error of a malformed string. */
export function parseConnect(text: string): ConnectOptions | "EINVAL" {
  const values = new Map<string, string>();
  for (const part of text.trim().split(",")) {
    const equals = part.indexOf("=");
    const name = equals < 0 ? part : part.slice(0, equals);
    if (!KNOWN.has(name)) return "EINVAL";
    values.set(name, equals < 0 ? "" : part.slice(equals + 1));
  }
  const address = values.get("traddr") ?? "";
  const nqn = values.get("nqn") ?? "";
  if (values.get("transport") !== "tcp" || isIP(address) === 0 || nqn === "") return "EINVAL";

  const hostNqn = values.get("hostnqn");
  const hostId = values.get("hostid");
  // A host NQN with the kernel's own host id collides with the kernel's own pair, and the reverse.
  if ((hostNqn === undefined) !== (hostId === undefined)) return "EINVAL";
  if (hostId !== undefined && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(hostId)) {
    return "EINVAL";
  }
  const secrets = [values.get("dhchap_secret"), values.get("dhchap_ctrl_secret")];
  if (secrets.some((secret) => secret !== undefined && !/^DHHC-1:0[0-3]:.+:$/.test(secret))) {
    return "EINVAL";
  }
  const integer = (name: string, otherwise: number): number => {
    const value = values.get(name);
    return value === undefined ? otherwise : /^-?\d+$/.test(value) ? Number(value) : NaN;
  };
  const options: ConnectOptions = {
    address,
    port: integer("trsvcid", 4420),
    nqn,
    hostNqn: hostNqn ?? `nqn.2014-08.org.nvmexpress:uuid:${DEFAULT_HOST_ID}`,
    hostId: hostId?.toLowerCase() ?? DEFAULT_HOST_ID,
    queues: integer("nr_io_queues", 2),
    keepAlive: integer("keep_alive_tmo", 5),
    reconnectDelay: integer("reconnect_delay", 10),
    controllerLoss: integer("ctrl_loss_tmo", 600),
    secret: secrets[0],
    controllerSecret: secrets[1],
    duplicate: values.has("duplicate_connect"),
  };
  const numbers = Object.values(options).filter((value) => typeof value === "number");
  return numbers.some(Number.isNaN) || options.reconnectDelay < 1 ? "EINVAL" : options;
}

/** Why the subsystem turns this host away, or undefined when it lets it in. */
export function refusal(
  options: ConnectOptions,
  subsystem: SubsystemExport | undefined,
): "EIO" | "ENOKEY" | "EKEYREJECTED" | undefined {
  if (subsystem === undefined) return "EIO";
  const host = subsystem.hosts.find(({ nqn }) => nqn === options.hostNqn);
  if (host === undefined) return subsystem.allowAnyHost ? undefined : "EIO";
  if (host.key === undefined) return undefined;
  if (options.secret === undefined) return "ENOKEY";
  if (options.secret !== host.key || !hasGoodChecksum(options.secret)) return "EKEYREJECTED";
  const { controllerSecret } = options;
  if (controllerSecret === undefined) return undefined;
  return controllerSecret === host.controllerKey ? undefined : "EKEYREJECTED";
}

/** A `DHHC-1:NN:base64:` secret ends in the little-endian CRC-32 of the key. */
function hasGoodChecksum(secret: string): boolean {
  const bytes = Buffer.from(secret.split(":")[2] ?? "", "base64");
  if (bytes.length < 5) return false;
  const key = bytes.subarray(0, -4);
  return bytes.readUInt32LE(key.length) === crc32(key);
}
