/** Who this node is to an NVMe subsystem. One identity for the whole node: the kernel insists on it. */
import { NODE_LOCK_MS } from "../common/timing.ts";
import { attempt } from "./failure.ts";
import type { Host } from "./host.ts";
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
 * @throws TnblockError `host-fault`, or `busy` while others make it.
 */
export async function hostIdentity(host: Host): Promise<HostIdentity> {
  const live = (await scanNvmeControllers(host.files)).find((controller) =>
    controller.hostNqn !== undefined && controller.hostId !== undefined
  );
  if (live?.hostNqn !== undefined && live.hostId !== undefined) {
    return { hostNqn: live.hostNqn, hostId: live.hostId };
  }
  return await attempt("Cannot find the NVMe host identity", async () => {
    const { hostNqn, hostId } = await readFiles(host);
    if (hostNqn !== undefined && hostId !== undefined) return { hostNqn, hostId };
    return await makeFiles(host);
  });
}

/** Undefined is what is not there; what cannot be read is thrown, else it would be replaced. */
async function readFiles(
  host: Host,
): Promise<{ readonly [K in keyof HostIdentity]: string | undefined }> {
  const [hostNqn, hostId] = await Promise.all([NQN_FILE, ID_FILE].map(async (path) => {
    const text = (await host.files.readText(path))?.trim();
    return text === "" ? undefined : text;
  }));
  return { hostNqn, hostId };
}

async function makeFiles(host: Host): Promise<HostIdentity> {
  const release = await host.lock("nvme-identity", { deadlineMs: NODE_LOCK_MS });
  try {
    const found = await readFiles(host);
    const hostId = found.hostId ?? uuidOf(found.hostNqn) ?? host.randomUuid();
    const hostNqn = found.hostNqn ?? `${UUID_NQN}${hostId}`;
    if (found.hostNqn === undefined) {
      await host.files.replaceText(NQN_FILE, `${hostNqn}\n`, 0o644);
    }
    if (found.hostId === undefined) await host.files.replaceText(ID_FILE, `${hostId}\n`, 0o644);
    return { hostNqn, hostId };
  } finally {
    release();
  }
}

/** nvme-cli makes both from one UUID; the id of an NQN that somebody else made is taken from it. */
function uuidOf(nqn: string | undefined): string | undefined {
  if (nqn === undefined || !nqn.startsWith(UUID_NQN)) return undefined;
  const uuid = nqn.slice(UUID_NQN.length).toLowerCase();
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(uuid) ? uuid : undefined;
}
