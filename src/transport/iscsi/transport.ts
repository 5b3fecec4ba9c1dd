/** iSCSI as a {@link Transport}. */
import { TnblockError } from "../../common/error.ts";
import type { Log } from "../../common/log.ts";
import type { IscsiSettings } from "../../common/storage_settings.ts";
import type { Host } from "../../host/host.ts";
import type { DiskIdentity, Transport } from "../transport.ts";
import * as disk from "./disk.ts";
import * as exports from "./exports.ts";
import { glance } from "./glance.ts";
import * as node from "./node.ts";
import type { LunIdentity } from "./paths.ts";
import { repoint } from "./repoint.ts";
import { survey } from "./survey.ts";

function lunOf(identity: DiskIdentity): LunIdentity {
  if (identity.kind === "iscsi") return identity;
  throw new TnblockError("internal", "Cannot use an NVMe identity over iSCSI");
}

/** The transport of a storage that reaches its volumes over iSCSI. */
export function iscsiTransport(
  settings: IscsiSettings,
  parts: { readonly host: Host; readonly log: Log; readonly storage: string },
): Transport {
  const all = { settings, ...parts };
  return {
    kind: "iscsi",
    sectorSize: settings.blockSize,
    survey: (caller, deadline) => survey(all, caller, deadline),
    listExports: (caller, dataset, deadline) => exports.listExports(all, caller, dataset, deadline),
    listNeighbours: (caller, dataset, deadline) =>
      exports.listNeighbours(all, caller, dataset, deadline),
    lookUp: (caller, zvol, deadline) => exports.lookUp(all, caller, zvol, deadline),
    createExport: (caller, zvol, groundwork, isNew, deadline) =>
      exports.createExport(all, caller, zvol, groundwork, isNew, deadline),
    removeExport: exports.removeExport,
    // A reload leaves out an extent whose zvol is not there, and the next one brings it back.
    suspend: () => Promise.resolve(false),
    repoint: (caller, found, zvol, deadline) => repoint(all, caller, found, zvol, deadline),
    connect: (deadline) => node.connect(all, deadline),
    portals: () => node.portalsOf(all),
    connectPortal: (portal, deadline) => node.connectPortal(all, portal, deadline),
    glance: (identities) => glance(all, identities.map(lunOf)),
    anyPortalAnswers: () => node.anyPortalAnswers(all),
    attach: (identity, size, deadline) => disk.attach(all, lunOf(identity), size, deadline),
    attached: (identity, size, whole, deadline) =>
      disk.attached(all, lunOf(identity), size, whole, deadline),
    users: (identity) => disk.users(all, lunOf(identity)),
    dropCaches: (identity, deadline) => disk.dropCaches(all, lunOf(identity), deadline),
    failWaiting: (identity, deadline) => disk.failWaiting(all, lunOf(identity), deadline),
    detach: (identity, deadline) => disk.detach(all, lunOf(identity), deadline),
  };
}
