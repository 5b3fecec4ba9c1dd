/** NVMe/TCP as a {@link Transport}. */
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import type { NvmeSettings } from "../../common/storage_settings.ts";
import type { Host } from "../../host/host.ts";
import type { DiskIdentity, Transport } from "../transport.ts";
import * as exports from "./exports.ts";
import { glance } from "./glance.ts";
import * as node from "./node.ts";
import { repoint, suspend } from "./repoint.ts";

function uuidOf(identity: DiskIdentity): string {
  if (identity.kind === "nvme-tcp") return identity.uuid;
  throw new TnblockError("internal", "Cannot use an iSCSI identity over NVMe/TCP");
}

/** The transport of a storage that reaches its volumes over NVMe/TCP. */
export function nvmeTransport(
  settings: NvmeSettings,
  parts: { readonly host: Host; readonly log: Log; readonly storage: string },
): Transport {
  const all = { settings, ...parts };
  return {
    kind: "nvme-tcp",
    sectorSize: exports.SECTOR_SIZE,
    survey: (caller, deadline) => exports.survey(all, caller, deadline),
    listExports: (caller, dataset, deadline) => exports.listExports(all, caller, dataset, deadline),
    listNeighbours: (caller, dataset, deadline) =>
      exports.listNeighbours(all, caller, dataset, deadline),
    lookUp: (caller, zvol, deadline) => exports.lookUp(all, caller, zvol, deadline),
    createExport: (caller, zvol, groundwork, isNew, deadline) =>
      exports.createExport(all, caller, zvol, groundwork, isNew, deadline),
    removeExport: exports.removeExport,
    suspend: async (caller, found) => {
      const isSwitchedOff = await suspend(caller, found);
      if (isSwitchedOff) await node.awaitGone(all, uuidOf(found.identity));
      return isSwitchedOff;
    },
    repoint: (caller, found, zvol, deadline) => repoint(all, caller, found, zvol, deadline),
    connect: (deadline) => node.connect(all, deadline),
    portals: () => node.portalsOf(all),
    connectPortal: (portal, deadline) => node.connectOne(all, portal, deadline),
    glance: (identities) => glance(all, identities.map(uuidOf)),
    anyPortalAnswers: () => node.anyPortalAnswers(all),
    attach: (identity, size, deadline) => node.attach(all, uuidOf(identity), size, deadline),
    attached: (identity, size) => node.attached(all, uuidOf(identity), size),
    users: (identity) => node.users(all, uuidOf(identity)),
    dropCaches: (identity, deadline) => node.dropCaches(all, uuidOf(identity), deadline),
    // A namespace that is gone takes its disk along: nothing waits for it.
    failWaiting: () => Promise.resolve(false),
    // The disk stays while the namespace is there: native multipath has no per-node detach.
    detach: () => Promise.resolve(),
  };
}
