/**
 * Plays the iSCSI initiator of the simulated node: sessions that programs log in and out, LUNs that
 * appear only when scanned, and sessions that fail with their portal and recover.
 */

import { readFileSync } from "node:fs";
import type { LunExport, Sessions, TargetExport } from "../exports.ts";
import type { Portal } from "./iscsi_records.ts";
import type { MultipathSide } from "./multipath_side.ts";
import { type Node, sourceAddress, type Taken } from "./node.ts";
import { Numbers } from "./numbers.ts";
import { type Reach, ScsiDisk } from "./scsi_disk.ts";
import { hostEntries } from "./scsi_files.ts";

/** One login: one SCSI host, one session, one connection. */
export interface Session {
  readonly id: number;
  readonly host: number;
  readonly portal: Portal;
  readonly initiator: string;
  readonly disks: Map<number, ScsiDisk>;
  /** How long a silent portal is not noticed, in milliseconds: a noop's interval and its time-out. */
  readonly noopMs: number;
  state: "LOGGED_IN" | "FAILED" | "FREE";
  /** When the portal was lost. */
  lostAt: number;
  /** Since when nothing was heard from the portal. */
  silentAt: number | undefined;
}

/** The simulated initiator. */
export class IscsiSide {
  readonly #node: Node;
  readonly #multipath: MultipathSide;
  readonly #sessions = new Set<Session>();
  readonly #hosts = new Numbers();
  readonly #disks = new Numbers();
  #lastId = 0;

  constructor(node: Node, multipath: MultipathSide) {
    this.#node = node;
    this.#multipath = multipath;
  }

  get connected(): boolean {
    return this.#sessions.size > 0;
  }

  /** All sessions, the failed ones included, the oldest first. */
  get open(): readonly Session[] {
    return [...this.#sessions];
  }

  sessions(): Sessions["iscsi"] {
    return this.open
      .filter(({ state }) => state === "LOGGED_IN")
      .map(({ portal, initiator }) => ({
        iqn: portal.iqn,
        initiator,
        address: sourceAddress(portal.address),
      }));
  }

  /** The session of a portal, whatever its state. */
  find({ iqn, address, port }: Portal): Session | undefined {
    return this.open.find(({ portal }) =>
      portal.iqn === iqn && portal.address === address && portal.port === port
    );
  }

  /** The target as this portal offers it, or undefined. */
  offered({ iqn, address, port }: Portal): TargetExport | undefined {
    const { iscsi } = this.#node.exports();
    const { portals } = this.#node;
    const reached = portals.isUp(address, port) && !portals.isSilent(address, port);
    if (!iscsi.running || port !== iscsi.port || !reached) return undefined;
    return iscsi.targets.find((target) => target.iqn === iqn && target.portals.includes(address));
  }

  /** Makes a session; the caller has checked that the target lets the initiator in. */
  login(portal: Portal, initiator: string, record: Readonly<Record<string, string>>): void {
    const id = ++this.#lastId;
    const host = this.#hosts.take();
    const { tree, controls } = this.#node;
    const session: Session = {
      id,
      host,
      portal,
      initiator,
      disks: new Map(),
      noopMs: 1000 * (seconds(record, "noop_out_interval") + seconds(record, "noop_out_timeout")),
      state: "LOGGED_IN",
      lostAt: 0,
      silentAt: undefined,
    };
    this.#sessions.add(session);
    const files = {
      id,
      host,
      portal,
      initiator,
      record,
      source: sourceAddress(portal.address),
      recoveryTimeout: record["node.session.timeo.replacement_timeout"] ?? "120",
    };
    tree.plant(hostDirectory(session), hostEntries(files));
    for (const [name, path] of classLinks(session)) tree.link(name, path);
    controls.add(scanControl(this.#node, session), (text) => this.#scan(session, text));
    if (record["node.session.scan"] !== "manual") this.#scan(session, "- - -");
  }

  logout(session: Session): void {
    if (!this.#sessions.delete(session)) return;
    const { tree, controls } = this.#node;
    controls.remove(scanControl(this.#node, session));
    for (const disk of [...session.disks.values()]) this.#removeDisk(session, disk);
    for (const [name] of classLinks(session)) tree.remove(name);
    tree.remove(hostDirectory(session));
    this.#hosts.release(session.host);
  }

  /** Brings sessions in step with the network, and what is read through the disks with the array. */
  sync(): void {
    for (const session of this.#sessions) {
      const { address, port } = session.portal;
      const target = this.offered(session.portal);
      if (!this.#node.portals.isSilent(address, port)) session.silentAt = undefined;
      else if (session.silentAt === undefined) session.silentAt = this.#node.now();
      // Whatever else is the matter there: nobody says so.
      if (session.silentAt !== undefined) continue;
      if (target === undefined) {
        if (session.state === "LOGGED_IN") this.#show(session, "FAILED");
        continue;
      }
      if (session.state !== "LOGGED_IN") this.#show(session, "LOGGED_IN");
      for (const disk of session.disks.values()) disk.follow(lunOf(target, disk.lunNumber));
    }
    this.#multipath.relink();
  }

  /**
   * A silent portal is noticed in the end; a session that stays away for longer than its
   * `recovery_tmo` stops holding requests back.
   */
  expire(): void {
    const now = this.#node.now();
    for (const session of this.#sessions) {
      const { silentAt, noopMs, state } = session;
      if (state === "LOGGED_IN" && silentAt !== undefined && now - silentAt >= noopMs) {
        this.#show(session, "FAILED");
      }
      if (session.state !== "FAILED") continue;
      const file = `${sessionDirectory(session)}/recovery_tmo`;
      const recovery = Number(readFileSync(this.#node.tree.at(file), "utf8"));
      if (now - session.lostAt >= recovery * 1000) this.#show(session, "FREE");
    }
  }

  #reach({ state, silentAt }: Session): Reach {
    if (state === "FREE") return "fails";
    return state === "FAILED" || silentAt !== undefined ? "hangs" : "answers";
  }

  #show(session: Session, state: Session["state"]): void {
    const { tree, now } = this.#node;
    if (state === "FAILED") session.lostAt = now();
    session.state = state;
    tree.attribute(`${sessionDirectory(session)}/state`, state);
    tree.attribute(
      `${connectionDirectory(session)}/state`,
      state === "LOGGED_IN" ? "up" : "failed",
    );
    const device = { LOGGED_IN: "running", FAILED: "blocked", FREE: "transport-offline" } as const;
    for (const disk of session.disks.values()) disk.showState(device[state]);
  }

  /** `scan`: `CHANNEL TARGET LUN`, each a number or `-` for all. A LUN that is known is left as it is. */
  #scan(session: Session, text: string): Taken {
    if (this.#reach(session) === "hangs") return "later";
    const match = /^\s*(?:0|-)\s+(?:0|-)\s+(\d+|-)\s*$/.exec(text);
    const target = this.offered(session.portal);
    if (match === null || target === undefined || session.state !== "LOGGED_IN") return;
    for (const lun of target.luns) {
      const wanted = match[1] === "-" || Number(match[1]) === lun.lun;
      if (wanted && !session.disks.has(lun.lun)) this.#addDisk(session, lun);
    }
  }

  #addDisk(session: Session, lun: LunExport): void {
    const { udev, controls } = this.#node;
    const disk = new ScsiDisk(this.#node, {
      index: this.#disks.take(),
      host: session.host,
      session: session.id,
      portal: session.portal,
      lun: { ...lun, naa: lun.naa.toLowerCase() },
      member: this.#multipath.running,
      reach: () => this.#reach(session),
    });
    session.disks.set(lun.lun, disk);
    controls.add(disk.control("delete"), () => this.#removeDisk(session, disk));
    udev.changed(disk.udev, () => {
      if (session.disks.get(lun.lun) === disk) this.#multipath.pathAppeared(disk);
    });
  }

  #removeDisk(session: Session, disk: ScsiDisk): void {
    session.disks.delete(disk.lunNumber);
    this.#multipath.pathGone(disk);
    disk.remove();
    this.#disks.release(disk.index);
    if (session.disks.size > 0) return;
    this.#node.tree.remove(
      `${hostDirectory(session)}/session${session.id}/target${session.host}:0:0`,
    );
  }
}

function seconds(record: Readonly<Record<string, string>>, name: string): number {
  return Number(record[`node.conn[0].timeo.${name}`] ?? "5");
}

function lunOf(target: TargetExport, number: number): LunExport | undefined {
  const lun = target.luns.find((candidate) => candidate.lun === number);
  return lun === undefined ? undefined : { ...lun, naa: lun.naa.toLowerCase() };
}

function hostDirectory({ host }: Session): string {
  return `/sys/devices/platform/host${host}`;
}

function sessionDirectory(session: Session): string {
  const { id } = session;
  return `${hostDirectory(session)}/session${id}/iscsi_session/session${id}`;
}

function connectionDirectory(session: Session): string {
  const { id } = session;
  const name = `connection${id}:0`;
  return `${hostDirectory(session)}/session${id}/${name}/iscsi_connection/${name}`;
}

function scanControl(node: Node, session: Session): string {
  return node.tree.at(`${hostDirectory(session)}/scsi_host/host${session.host}/scan`);
}

function classLinks(session: Session): [string, string][] {
  const { id, host } = session;
  const directory = hostDirectory(session);
  return [
    [`/sys/class/iscsi_host/host${host}`, `${directory}/iscsi_host/host${host}`],
    [`/sys/class/scsi_host/host${host}`, `${directory}/scsi_host/host${host}`],
    [`/sys/class/iscsi_session/session${id}`, sessionDirectory(session)],
    [`/sys/class/iscsi_connection/connection${id}:0`, connectionDirectory(session)],
  ];
}
