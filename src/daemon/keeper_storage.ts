/**
 * Keeps one storage on this node as it is configured: looks around every few seconds, and does what
 * `keeper_decide.ts` says, one step after the other, while the looks go on.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import { formatPortal } from "../common/portal.ts";
import type { Host } from "../host/host.ts";
import type { OpenStorage } from "../pve/open_storage.ts";
import { ownerOf } from "../pve/volume_name.ts";
import { letGoIdle, letGoOfStray } from "../volumes/idle.ts";
import { knownSinceMs } from "../volumes/known_disks.ts";
import type { Storage } from "../volumes/storage.ts";
import { checkLink, letGoOfGone, mendPaths } from "../volumes/tidy.ts";
import { type HeldHere, lookEverywhere } from "../volumes/tidy_look.ts";
import type { StorageUpkeep } from "../volumes/upkeep.ts";
import { renewVerified } from "../volumes/verified_disks.ts";
import {
  decideSteps,
  type Failures,
  IDLE_MS,
  isIdle,
  READING_IDLE_MS,
  type Step,
  stepKey,
  type Stray,
  type Tracked,
} from "./keeper_decide.ts";
import { isGuestBusy } from "./keeper_guests.ts";
import { PortalBook } from "./keeper_portals.ts";
import type { KeeperState } from "./keeper_state.ts";
import { ownStrays } from "./keeper_strays.ts";

/** What `activate_storage` is answered from is no older: one look may be late, two may not. */
const FRESH_MS = 15_000;
/** While no portal answers, connecting is tried again after so long; what asks in between is told the reason. */
const CONNECT_AGAIN_MS = 60_000;
/** Time for a look: sysfs alone. */
const LOOK_MS = 10_000;
/** Time for a step; longer than a login to a portal that falls silent takes. */
const STEP_MS = 20_000;
/** Failures are forgotten after this, when nobody tried the step again. */
const FORGET_MS = 900_000;
/** Between two looks at what is known for when the API is away: it is renewed every hour. */
const RENEW_LOOK_MS = 600_000;
/** Names that are remembered; a node has a few hundred. */
const MOST_NAMES = 20_000;

/** What a keeper works with. */
export interface StorageKeeperParts {
  readonly id: string;
  readonly host: Host;
  readonly log: Log;
  /** Opens the storage as it is configured now, for so many milliseconds. */
  readonly open: (ms: number) => OpenStorage;
}

/** Keeps one storage. */
export class StorageKeeper implements StorageUpkeep {
  readonly #parts: StorageKeeperParts;
  readonly #tracked = new Map<string, Tracked>();
  readonly #failures = new Map<string, Failures & { readonly code: string }>();
  readonly #portals: PortalBook;
  /** Names that a thorough look found to be in use. */
  readonly #used = new Set<string>();
  #held: readonly HeldHere[] = [];
  #lastLook: { readonly ms: number; readonly epochMs: number } | undefined;
  #trouble: string | undefined;
  /** Why no portal could be made live, and when that was. */
  #refused: { readonly ms: number; readonly error: TnblockError } | undefined;
  #working: Promise<void> | undefined;
  #open: OpenStorage | undefined;
  #isStopped = false;
  #renewedMs = -Infinity;

  constructor(parts: StorageKeeperParts) {
    this.#parts = parts;
    this.#portals = new PortalBook(parts.log, parts.id);
  }

  async connected(
    connect: () => Promise<void>,
    anyAnswers: () => Promise<boolean>,
  ): Promise<void> {
    const nowMs = this.#now();
    const last = this.#lastLook;
    if (last !== undefined && nowMs - last.ms < FRESH_MS && this.#portals.isAnyLive) return;
    const refused = this.#refused;
    const isYoung = refused !== undefined && nowMs - refused.ms < CONNECT_AGAIN_MS;
    if (isYoung && !await anyAnswers()) throw refused.error;
    try {
      await connect();
    } catch (error) {
      this.#refused = { ms: this.#now(), error: asTnblockError(error) };
      throw error;
    }
  }

  wanted(name: string): void {
    this.#track(name, { usedMs: this.#now(), isVerified: true });
  }

  /** One look; what it shows to be done is begun, unless steps of an earlier look are still under way. */
  async look(): Promise<void> {
    try {
      const steps = await this.#look();
      this.#trouble = undefined;
      if (this.#working !== undefined || this.#isStopped || steps.length === 0) return;
      this.#working = this.#work(steps).finally(() => this.#working = undefined);
    } catch (error) {
      this.#sayOnce(asTnblockError(error));
    }
  }

  /** Resolves when the steps under way are done. */
  async settled(): Promise<void> {
    await this.#working;
  }

  /** Ends what is under way, where it can be ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    this.#open?.deadline.expire(
      new TnblockError("timeout", "Cannot go on: the daemon was told to end"),
    );
    await this.#working;
  }

  state(): KeeperState {
    const epochOf = (ms: number) => Math.round(this.#parts.host.now() - (this.#now() - ms));
    return {
      storage: this.#parts.id,
      portals: this.#portals.list(),
      disks: this.#held.filter(({ isAttached }) => isAttached).map((one) => {
        const { name, disk } = one;
        const inUse = one.seemsUsed || this.#used.has(name);
        const usedMs = this.#tracked.get(name)?.usedMs;
        return {
          zvol: name,
          inUse,
          ...(inUse || usedMs === undefined ? {} : { idleSinceMs: epochOf(usedMs) }),
          paths: disk?.paths ?? { up: 0, configured: this.#portals.list().length },
        };
      }),
      lastRoundMs: this.#lastLook?.epochMs,
    };
  }

  async #look(): Promise<Step[]> {
    const storage = this.#parts.open(LOOK_MS);
    try {
      const [portals, around] = await Promise.all([
        storage.transport.portals(),
        lookEverywhere(storage),
      ]);
      const { held } = around;
      const strays = await ownStrays(storage, around.strays);
      const nowMs = this.#now();
      const states = portals.map(({ portal, state }) => [formatPortal(portal), state] as const);
      this.#portals.see(states, this.#parts.host.now());
      for (const [subject, state] of states) {
        if (state === "live") this.#failures.delete(stepKey({ kind: "connect", subject }));
      }
      this.#seeHeld(held, strays, nowMs);
      await this.#renew(storage, nowMs);
      this.#lastLook = { ms: nowMs, epochMs: this.#parts.host.now() };
      return decideSteps({
        portals,
        held,
        strays,
        tracked: this.#tracked,
        failures: this.#failures,
        mayBeGone: ({ name, known }) =>
          storage.memory?.has({ zvol: name, tag: known?.tag }) === false,
      }, nowMs);
    } finally {
      await storage.close();
    }
  }

  /** Has what is known of volumes that stay attached for months not grow old: the API may go at any time. */
  async #renew(storage: Storage, nowMs: number): Promise<void> {
    if (storage.memory === undefined || nowMs - this.#renewedMs < RENEW_LOOK_MS) return;
    this.#renewedMs = nowMs;
    try {
      await renewVerified(storage, storage.memory, this.#held.map(({ name }) => name));
    } catch (error) {
      storage.log.debug(
        `what is known of the disks here is not renewed: ${asTnblockError(error).message}`,
      );
    }
  }

  #seeHeld(held: readonly HeldHere[], strays: readonly Stray[], nowMs: number): void {
    this.#held = held;
    for (const { zvol } of strays) {
      if (!this.#tracked.has(zvol)) this.#track(zvol, { usedMs: nowMs });
    }
    for (const { name, seemsUsed, disk } of held) {
      if (seemsUsed) this.#used.delete(name);
      if (disk !== undefined && this.#tracked.get(name)?.isVerified === true) {
        this.#track(name, { checkedMark: disk.mark, isVerified: false });
      }
      if (seemsUsed || !this.#tracked.has(name)) this.#track(name, { usedMs: nowMs });
    }
    const names = new Set([...held.map(({ name }) => name), ...strays.map(({ zvol }) => zvol)]);
    for (const [name, { usedMs }] of this.#tracked) {
      // Somebody may be attaching it just now.
      if (names.has(name) || nowMs - usedMs < IDLE_MS) continue;
      this.#tracked.delete(name);
      this.#used.delete(name);
    }
    for (const [key, { lastMs }] of this.#failures) {
      if (nowMs - lastMs >= FORGET_MS) this.#failures.delete(key);
    }
  }

  async #work(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (this.#isStopped) return;
      const key = stepKey(step);
      try {
        this.#open = this.#parts.open(STEP_MS);
        if (await this.#do(this.#open, step)) this.#failures.delete(key);
        else this.#failed(key, "later");
      } catch (error) {
        if (!this.#isStopped) this.#sayFailed(step, asTnblockError(error));
      } finally {
        await this.#open?.close();
        this.#open = undefined;
      }
    }
  }

  /** Does one step; false when there was nothing to be done after all, which is not looked at again at once. */
  async #do(storage: Storage, step: Step): Promise<boolean> {
    const { id, log } = this.#parts;
    const { subject } = step;
    switch (step.kind) {
      case "connect":
        await storage.transport.connectPortal(step.portal, storage.deadline);
        return true;
      case "check": {
        const mark = this.#held.find(({ name }) => name === subject)?.disk?.mark;
        const checked = await checkLink(storage, subject);
        if (checked?.wrong !== undefined) {
          log.error(`storage "${id}": the link of "${subject}" is removed: ${checked.wrong}`);
        }
        if (checked !== undefined && mark !== undefined) {
          this.#track(subject, { checkedMark: mark });
        }
        return true;
      }
      case "release": {
        const fate = await letGoOfGone(storage, subject);
        if (fate !== "gone") return false;
        log.warning(`storage "${id}": "${subject}" is no more on the array: let go of it here`);
        return true;
      }
      case "mend": {
        const paths = await mendPaths(storage, subject);
        if (paths === undefined) return false;
        log.info(`storage "${id}": "${subject}" has ${paths} paths again`);
        return true;
      }
      case "idle":
        return await this.#unlessUsed(subject, async () => {
          if (await letGoIdle(storage, subject, () => this.#isWanted(storage, subject))) {
            log.info(`storage "${id}": "${subject}" was not used for a while: let go of it here`);
          }
          return true;
        });
      case "stray":
        return await this.#unlessUsed(subject, async () => {
          if (!await letGoOfStray(storage, subject, step.identity)) return false;
          log.info(`storage "${id}": removed paths to "${subject}", which nobody activated here`);
          return true;
        });
    }
  }

  /** Lets go of something; if it is in use after all its time begins anew. */
  async #unlessUsed(name: string, letGo: () => Promise<boolean>): Promise<boolean> {
    try {
      const isDone = await letGo();
      this.#used.delete(name);
      return isDone;
    } catch (error) {
      if (!(error instanceof TnblockError) || error.code !== "in-use") throw error;
      this.#used.add(name);
      this.#track(name, { usedMs: this.#now() });
      return true;
    }
  }

  /** Whether a volume that seemed to be idle is to stay after all. */
  async #isWanted(storage: Storage, name: string): Promise<boolean> {
    const { host } = this.#parts;
    const usedMs = this.#tracked.get(name)?.usedMs;
    if (usedMs === undefined || !isIdle(name, usedMs, this.#now())) return true;
    // A hook that worked by itself has kept when.
    const keptMs = await knownSinceMs(storage, name);
    const ageMs = keptMs === undefined ? Infinity : host.now() - keptMs;
    if (ageMs >= 0 && ageMs < (name.includes("@") ? READING_IDLE_MS : IDLE_MS)) return true;
    const vmid = ownerOf(name.split("@")[0] ?? name);
    if (vmid === undefined || !await isGuestBusy(host.files, vmid)) return false;
    this.#track(name, { usedMs: this.#now() });
    return true;
  }

  #track(name: string, change: Partial<Tracked>): void {
    const before = this.#tracked.get(name) ?? { usedMs: this.#now() };
    if (!this.#tracked.has(name) && this.#tracked.size >= MOST_NAMES) return;
    this.#tracked.set(name, { ...before, ...change });
  }

  #failed(key: string, code: string): void {
    const before = this.#failures.get(key);
    this.#failures.set(key, { count: (before?.count ?? 0) + 1, lastMs: this.#now(), code });
  }

  /** Logs a failure once for each kind of it. */
  #sayFailed(step: Step, error: TnblockError): void {
    const { id, log } = this.#parts;
    const key = stepKey(step);
    const before = this.#failures.get(key);
    this.#failed(key, error.code);
    if (step.kind === "connect") this.#portals.failed(step.subject, error.message);
    if (before?.code !== error.code) log.warning(`storage "${id}": ${error.message}`);
  }

  #sayOnce(error: TnblockError): void {
    if (this.#trouble === error.code) return;
    this.#trouble = error.code;
    this.#parts.log.warning(`storage "${this.#parts.id}" is not looked after: ${error.message}`);
  }

  #now(): number {
    return this.#parts.host.monotonicMs();
  }
}
