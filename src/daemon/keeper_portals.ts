/** How the portals of one storage stood at the last look, and what is said when that changes. */
import type { Log } from "../common/log.ts";
import type { PortalState } from "../transport/transport.ts";
import type { KeeperState } from "./keeper_state.ts";

type Portal = KeeperState["portals"][number];

/** The portals of one storage. */
export class PortalBook {
  #portals: ReadonlyMap<string, Portal> = new Map();

  constructor(readonly log: Log, readonly storage: string) {}

  /** Whether any was live. */
  get isAnyLive(): boolean {
    return [...this.#portals.values()].some(({ state }) => state === "live");
  }

  list(): readonly Portal[] {
    return [...this.#portals.values()];
  }

  /**
   * Takes down what a look has shown; each change is told once. One that was never connected is told of by its first
   * failure, with the reason.
   *
   * @param epochMs the time of day.
   */
  see(found: readonly (readonly [address: string, state: PortalState])[], epochMs: number): void {
    const now = new Map<string, Portal>();
    for (const [address, state] of found) {
      const before = this.#portals.get(address);
      if (before?.state !== state) this.#tell(address, before?.state, state);
      now.set(address, before?.state === state ? before : { address, state, sinceMs: epochMs });
    }
    this.#portals = now;
  }

  /** Takes down why one could not be connected. */
  failed(address: string, error: string): void {
    const seen = this.#portals.get(address);
    if (seen === undefined) return;
    this.#portals = new Map(this.#portals).set(address, { ...seen, error });
  }

  #tell(address: string, before: PortalState | undefined, state: PortalState): void {
    const path = `storage "${this.storage}": the path to ${address} is`;
    if (state === "live") {
      if (before !== undefined) this.log.info(`${path} ${before === "missing" ? "made" : "back"}`);
    } else if (state === "recovering") {
      this.log.warning(`${path} lost; the node is reconnecting it`);
    } else if (before !== undefined) {
      this.log.warning(`${path} lost`);
    }
  }
}
