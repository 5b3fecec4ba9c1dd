/** Who this node is to an NVMe subsystem. One identity for the whole node: the kernel insists on it. */
import { TnblockError } from "../common/error.ts";
import { NODE_LOCK_MS } from "../common/timing.ts";
import { type Host, HostError } from "./host.ts";
import { attribute } from "./scan/attributes.ts";
import { scanNvmeControllers } from "./scan/nvme.ts";

const NQN_FILE = "/etc/nvme/hostnqn";
const ID_FILE = "/etc/nvme/hostid";
const UUID_NQN = "nqn.2014-08.org.nvmexpress:uuid:";

/** Host NQN and host id always go together. */
export interface HostIdentity {
  readonly hostNqn: string;
  /** A UUID, lower case. */
  readonly hostId: string;
}

/**
 * The node's identity: that of a live connection first, as the kernel refuses another one beside it;
 * then that of `/etc/nvme`; what is missing there is made, once, under a lock.
 *
 * @throws TnblockError `host-fault`.
 */
export async function hostIdentity(host: Host): Promise<HostIdentity> {
  const live = (await scanNvmeControllers(host.files)).find((controller) =>
    controller.hostNqn !== undefined && controller.hostId !== undefined
  );
  if (live?.hostNqn !== undefined && live.hostId !== undefined) {
    return { hostNqn: live.hostNqn, hostId: live.hostId };
  }
  const [hostNqn, hostId] = await readFiles(host);
  if (hostNqn !== undefined && hostId !== undefined) return { hostNqn, hostId };
  return await makeFiles(host);
}

async function readFiles(host: Host): Promise<(string | undefined)[]> {
  return await Promise.all([NQN_FILE, ID_FILE].map((path) => attribute(host.files, path)));
}

async function makeFiles(host: Host): Promise<HostIdentity> {
  try {
    const release = await host.lock("nvme-identity", { deadlineMs: NODE_LOCK_MS });
    try {
      const [nqn, id] = await readFiles(host);
      const hostId = id ?? uuidOf(nqn) ?? host.randomUuid();
      const hostNqn = nqn ?? `${UUID_NQN}${hostId}`;
      if (nqn === undefined) await host.files.replaceText(NQN_FILE, `${hostNqn}\n`, 0o644);
      if (id === undefined) await host.files.replaceText(ID_FILE, `${hostId}\n`, 0o644);
      return { hostNqn, hostId };
    } finally {
      release();
    }
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    throw new TnblockError("host-fault", `Cannot make the NVMe host identity: ${error.message}`, {
      cause: error,
    });
  }
}

/** nvme-cli makes both from one UUID; the id of an NQN that somebody else made is taken from it. */
function uuidOf(nqn: string | undefined): string | undefined {
  if (nqn === undefined || !nqn.startsWith(UUID_NQN)) return undefined;
  const uuid = nqn.slice(UUID_NQN.length).toLowerCase();
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid) ? uuid : undefined;
}
