/** What a failed NVMe connect means, in words of our own: the kernel's names are too coarse and its log too terse. */
import { type ErrorCode, type ErrorDetails, TnblockError } from "../common/error.ts";
import { formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";
import type { Host, HostError } from "./host.ts";
import type { NvmeConnection } from "./nvme_fabrics.ts";
import { controllersOf, scanNvmeControllers } from "./scan/nvme.ts";

/** One meaning. */
interface Meaning {
  readonly code: ErrorCode;
  readonly what: string;
  readonly hint?: string;
}

/** Linux numbers of the names that a connect may fail with. */
const ERRNO: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  EAGAIN: 11,
  EACCES: 13,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ENETUNREACH: 101,
  ECONNRESET: 104,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  ENOKEY: 126,
  EKEYREJECTED: 129,
};

const NO_ANSWER = "Check the network to the portal, and that the NVMe-oF service runs on the array";

/** What the network says, the same from the probe and from the kernel. */
const NETWORK: Readonly<Record<string, Meaning>> = {
  ECONNREFUSED: { code: "unreachable", what: "nothing listens there", hint: NO_ANSWER },
  EHOSTUNREACH: { code: "unreachable", what: "there is no route to it", hint: NO_ANSWER },
  ENETUNREACH: { code: "unreachable", what: "there is no route to it", hint: NO_ANSWER },
  ETIMEDOUT: { code: "unreachable", what: "it does not answer", hint: NO_ANSWER },
  EAGAIN: {
    code: "unreachable",
    what: "it takes connections but does not answer",
    hint: NO_ANSWER,
  },
  ECONNRESET: { code: "unreachable", what: "it closed the connection", hint: NO_ANSWER },
};

/** A failed probe; what the network did not say either is taken as unreachable. */
export function probeFailure(portal: Portal, error: HostError): TnblockError {
  const meaning = NETWORK[error.code] ??
    { code: "unreachable" as const, what: error.code, hint: NO_ANSWER };
  return failure(`Cannot connect to ${formatPortal(portal)}`, meaning, error, []);
}

/** A failed connect; looks at the kernel's log and at other connections to tell causes apart. */
export async function connectFailure(
  host: Host,
  connection: NvmeConnection,
  error: HostError,
  sinceMs: number,
): Promise<TnblockError> {
  const doing = `Cannot connect to "${connection.nqn}" at ${formatPortal(connection.portal)}`;
  const log = (await host.kernelLog(sinceMs)).filter((line) => /nvme/i.test(line)).map(redacted);
  return failure(doing, await meaningOf(host, connection, error, log), error, log);
}

const NO_WORDS: Meaning = { code: "unreachable", what: "it does not answer" };

async function meaningOf(
  host: Host,
  connection: NvmeConnection,
  error: HostError,
  log: readonly string[],
): Promise<Meaning> {
  const logged = (pattern: RegExp) => log.some((line) => pattern.test(line));
  const notAllowed: Meaning = {
    code: "denied",
    what: "the subsystem does not allow this host",
    hint: `Add the host NQN ${connection.hostNqn} to the subsystem on the array`,
  };
  switch (error.code) {
    case "EIO":
      if (logged(/is not allowed/)) return notAllowed;
      if (logged(/Invalid Data Parameter, subsysnqn/)) {
        return {
          code: "not-found",
          what: "there is no such subsystem at this portal",
          hint: "Check tnb-subsystem-nqn, and that the subsystem is offered on this port",
        };
      }
      return {
        code: "denied",
        what:
          "the array refused it: there is no such subsystem at this portal, or it does not allow this host",
        hint:
          `Check tnb-subsystem-nqn, and add the host NQN ${connection.hostNqn} to the subsystem on the array`,
      };
    case "ENOKEY":
      return {
        code: "auth",
        what: "the array wants a DH-CHAP secret and the storage has none",
        hint: "Set tnb-dhchap-secret to the key of this host",
      };
    case "EKEYREJECTED":
      return logged(/controller authentication failed/)
        ? {
          code: "auth",
          what: "the array could not prove itself with the controller secret",
          hint: "Compare tnb-dhchap-ctrl-secret with the controller key of this host on the array",
        }
        : {
          code: "auth",
          what: "the array did not accept the DH-CHAP secret",
          hint: "Compare tnb-dhchap-secret with the key of this host on the array",
        };
    case "EINVAL":
      return await meaningOfInvalid(host, connection, logged);
    case "ETIMEDOUT":
      // The probe before was answered. nvmet may close on a wrong secret before it has said so, and the
      // kernel then waits out its own minute (docs/kernel-facts.md).
      if (connection.dhchapSecret === undefined) return NETWORK["ETIMEDOUT"] ?? NO_WORDS;
      return {
        code: "auth",
        what: "the array answers, but the authentication does not end",
        hint:
          "Compare tnb-dhchap-secret and tnb-dhchap-ctrl-secret with the keys of this host on the array",
      };
    case "EACCES":
    case "EPERM":
      return { code: "host-fault", what: "only root may do that", hint: "Run it as root" };
    case "ENOENT":
    case "ENODEV":
      return {
        code: "host-fault",
        what: "the kernel module nvme-tcp is not there",
        hint: "Run modprobe nvme-tcp and look at its message",
      };
    default:
      return NETWORK[error.code] ?? { code: "host-fault", what: error.code };
  }
}

/** EINVAL is our mistake only when it is nothing else. */
async function meaningOfInvalid(
  host: Host,
  connection: NvmeConnection,
  logged: (pattern: RegExp) => boolean,
): Promise<Meaning> {
  // What cannot be looked at is no reason to hide the failure that is to be explained.
  const controllers = await scanNvmeControllers(host.files).catch(() => []);
  const others = controllersOf(controllers, connection.nqn);
  const coming = others.find((other) => other.state !== "live");
  if (logged(/Duplicate cntlid/) || coming !== undefined) {
    return {
      code: "busy",
      what: `the connection ${coming?.name ?? "through another portal"} is ${
        coming?.state ?? "not live"
      } and the array has given its number away`,
      hint: "It works again once that connection is live or gone",
    };
  }
  if (logged(/found same host(id|nqn)/i)) {
    return {
      code: "config",
      what: "another connection of this node uses another host NQN or host id",
      hint: "Take tnb-hostnqn out of the storage, so that the node has one identity",
    };
  }
  if (logged(/bad type returned/)) {
    return { code: "unreachable", what: "what listens there does not speak NVMe/TCP" };
  }
  return {
    code: "host-fault",
    what: "the kernel refused it",
    hint: "Look for nvme in the kernel log: journalctl -k -g nvme",
  };
}

/** The kernel prints a malformed secret; it goes no further. */
function redacted(line: string): string {
  return line.replace(/DHHC-1\S*|(secret)\b.*/gi, (_, word?: string) => `${word ?? ""}…`);
}

function failure(
  doing: string,
  meaning: Meaning,
  error: HostError,
  log: readonly string[],
): TnblockError {
  const details: { -readonly [K in keyof ErrorDetails]: ErrorDetails[K] } = {
    cause: log.length === 0
      ? error
      : new Error(`The kernel says: ${log.join(" | ")}`, { cause: error }),
  };
  if (meaning.hint !== undefined) details.hint = meaning.hint;
  const errno = ERRNO[error.code];
  if (errno !== undefined) details.errno = errno;
  return new TnblockError(meaning.code, `${doing}: ${meaning.what}`, details);
}
