/**
 * Latency profiles: how long the parts of the simulated array take, in ms. `none` takes no time at
 * all; `lan` is a small array near by; `slow` shows every race at its widest.
 */

import type { Release } from "./release.ts";

export interface Latency {
  /** From a request to the start of its work, and thus added to every call. */
  readonly call: number;
  /** One reload of a service that offers so many LUNs or namespaces. */
  reload(service: string, exported: number, release: Release): number;
  /** Rendering the configuration of a service that does not run. */
  readonly render: number;
  /** From a zvol's creation to its device node. */
  node(): number;
  /** From a dataset's destruction until its space is free. */
  readonly freeing: number;
  /** One ZFS write. */
  readonly zfsWrite: number;
  /** One of the walks of `pool.dataset.*` over so many datasets. */
  walk(datasets: number, release: Release): number;
  /** The pause after a wrong key. */
  loginFailure(): number;
  /** The pause before a rate-limited refusal. */
  rateLimit(): number;
}

const NONE: Latency = {
  call: 0,
  reload: () => 0,
  render: 0,
  node: () => 0,
  freeing: 0,
  zfsWrite: 0,
  walk: () => 0,
  loginFailure: () => 0,
  rateLimit: () => 0,
};

const between = (low: number, high: number) => low + Math.random() * (high - low);

const LAN: Latency = {
  call: 0.5,
  // 25.x runs a program over the whole configuration of iSCSI; everything else writes differences.
  reload: (service, exported, release) =>
    service === "iscsitarget" && release.major < 2600 ? 300 + exported * 0.7 : 180 + exported * 0.1,
  render: 180,
  node: () => between(0, 120),
  freeing: 300,
  zfsWrite: 25,
  walk: (datasets, release) => release.major < 2510 ? 2 : 2 + datasets * 0.05,
  loginFailure: () => between(1000, 2000),
  rateLimit: () => between(1000, 10_000),
};

const SLOW: Latency = {
  ...LAN,
  call: 20,
  reload: (service, exported, release) => 1500 + LAN.reload(service, exported, release),
  node: () => between(500, 2000),
  zfsWrite: 200,
};

const PROFILES: Record<string, Latency> = { none: NONE, lan: LAN, slow: SLOW };

export function latencyProfile(name = "none"): Latency {
  const profile = PROFILES[name];
  if (profile === undefined) {
    const known = Object.keys(PROFILES).join(", ");
    throw new Error(`Cannot use latency profile "${name}": known are ${known}`);
  }
  return profile;
}

/** Resolves after so many ms; zero resolves at once. The timer alone keeps no process alive. */
export function pause(ms: number): Promise<void> {
  if (ms <= 0) return Promise.resolve();
  return new Promise((resolve) => setTimeout(resolve, ms));
}
