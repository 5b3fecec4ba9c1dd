/** What the keeper says of itself, for `tnblock status` and the metrics. */
import type { PortalState } from "../transport/transport.ts";

/** What a keeper says of one storage. Times of day are milliseconds since the epoch. */
export interface KeeperState {
  readonly storage: string;
  readonly portals: readonly {
    /** `ADDR:PORT`. */
    readonly address: string;
    readonly state: PortalState;
    /** Since when it is so, as far as it was seen. */
    readonly sinceMs: number;
    /** Why it could not be connected. */
    readonly error?: string;
  }[];
  readonly disks: readonly {
    /** The zvol, or `<zvol>@<snapshot>` for a snapshot that is read. */
    readonly zvol: string;
    readonly inUse: boolean;
    /** When it was last activated or seen in use; absent while it is in use. */
    readonly idleSinceMs?: number;
    readonly paths: { readonly up: number; readonly configured: number };
  }[];
  /** When the last look ended; undefined before the first. */
  readonly lastRoundMs: number | undefined;
}
