/**
 * Plays the kernel's NVMe/TCP initiator: controllers that connect, lose their portal and come back,
 * and the disks that follow the array's namespaces by themselves.
 */

import { closeSync, existsSync, ftruncateSync, openSync, readFileSync, writeSync } from "node:fs";
import type { Sessions, SubsystemExport } from "../exports.ts";
import { breathe, type Node, sourceAddress } from "./node.ts";
import { Numbers } from "./numbers.ts";
import { type ConnectOptions, FABRICS_OPTIONS, parseConnect, refusal } from "./nvme_connect.ts";
import { addressText, controllerEntries, CONTROLLERS } from "./nvme_files.ts";
import { NvmeSubsystem, type Path } from "./nvme_subsystem.ts";

/** Disks made or removed before other work gets its turn. */
const BATCH = 16;

interface Controller {
  readonly instance: number;
  readonly cntlid: number;
  readonly options: ConnectOptions;
  readonly subsystem: NvmeSubsystem;
  readonly paths: Map<number, Path>;
  /** When the portal was lost; undefined while live. */
  lostAt: number | undefined;
  /** The namespaces of the last scan, to tell whether the array has something to announce. */
  seen: string;
}

/** The simulated initiator. */
export class NvmeSide {
  readonly #node: Node;
  readonly #native: boolean;
  readonly #subsystems = new Map<string, NvmeSubsystem>();
  readonly #controllers = new Set<Controller>();
  readonly #instances = new Numbers();
  readonly #cntlids = new Numbers(1);

  /** @param native Whether the kernel joins the paths (`nvme_core.multipath`). */
  constructor(node: Node, native: boolean) {
    this.#node = node;
    this.#native = native;
  }

  get connected(): boolean {
    return this.#controllers.size > 0;
  }

  sessions(): Sessions["nvmet"] {
    return [...this.#controllers]
      .filter(({ lostAt }) => lostAt === undefined)
      .map(({ options }) => ({
        nqn: options.nqn,
        hostNqn: options.hostNqn,
        address: sourceAddress(options.address),
        portAddress: options.address,
      }));
  }

  /** Answers a connect string in `/dev/nvme-fabrics`, if there is one; says whether there was. */
  async pollFabrics(): Promise<boolean> {
    const path = this.#node.tree.at("/dev/nvme-fabrics");
    // A node whose module was unloaded has no such file.
    if (!existsSync(path)) return false;
    const text = readFileSync(path, "utf8");
    // Without its newline the line is still being written; what begins so is our own.
    if (!text.endsWith("\n") || /^(instance=|error=)/.test(text)) return false;
    const result = this.#connect(text);
    const answer = typeof result === "string"
      ? `error=${result}`
      : `instance=${result.instance},cntlid=${result.cntlid}`;
    overwrite(path, `${answer}\n${FABRICS_OPTIONS}\n`);
    // As on the real kernel the disks come after the answer.
    if (typeof result !== "string") await this.#scan(result);
    return true;
  }

  /** Brings controllers and disks in step with what the array offers and the network reaches. */
  async sync(): Promise<void> {
    const { running } = this.#node.exports().nvmet;
    for (const controller of [...this.#controllers]) {
      const { address, port, nqn } = controller.options;
      // Whatever happened there: nobody says so.
      if (this.#node.portals.isSilent(address, port)) continue;
      const subsystem = this.#offered(nqn);
      if (running && subsystem === undefined) {
        // The target says "no such subsystem, do not retry".
        await this.#remove(controller);
      } else if (!this.#reaches(controller.options, subsystem)) {
        this.#lose(controller);
      } else if (controller.lostAt !== undefined) {
        await this.#reconnect(controller);
      } else if (controller.seen !== namespacesText(subsystem)) {
        await this.#scan(controller);
      }
    }
  }

  /** Gives up controllers whose portal stayed away for longer than their `ctrl_loss_tmo`. */
  async expire(): Promise<void> {
    for (const controller of [...this.#controllers]) {
      const { lostAt, options } = controller;
      if (lostAt === undefined || options.controllerLoss < 0) continue;
      if (this.#node.now() - lostAt >= options.controllerLoss * 1000) {
        await this.#remove(controller);
      }
    }
  }

  #offered(nqn: string): SubsystemExport | undefined {
    return this.#node.exports().nvmet.subsystems.find((subsystem) => subsystem.nqn === nqn);
  }

  #reaches(options: ConnectOptions, subsystem: SubsystemExport | undefined): boolean {
    const { address, port } = options;
    const { portals } = this.#node;
    return this.#node.exports().nvmet.running && portals.isUp(address, port) &&
      !portals.isSilent(address, port) &&
      (subsystem?.ports.some((offer) => offer.address === address && offer.port === port) ?? false);
  }

  #connect(text: string): Controller | string {
    const options = parseConnect(text);
    if (options === "EINVAL") return options;
    for (const { options: other } of this.#controllers) {
      const sameNqn = other.hostNqn === options.hostNqn;
      const sameId = other.hostId === options.hostId;
      if (sameNqn !== sameId) return "EINVAL";
      const same = sameNqn && other.nqn === options.nqn && other.address === options.address &&
        other.port === options.port;
      if (same && !options.duplicate) return "EALREADY";
    }
    const { nvmet } = this.#node.exports();
    if (!nvmet.subsystems.some((subsystem) => this.#reaches(options, subsystem))) {
      return "ECONNREFUSED";
    }
    const subsystem = this.#offered(options.nqn);
    // A subsystem that is not offered on this portal is unknown there.
    const here = this.#reaches(options, subsystem) ? subsystem : undefined;
    const refused = refusal(options, here);
    if (refused !== undefined || here === undefined) return refused ?? "EIO";
    return this.#add(options, here.serial);
  }

  #add(options: ConnectOptions, serial: string): Controller {
    const { tree, controls } = this.#node;
    const instance = this.#instances.take();
    const subsystem = this.#subsystems.get(options.nqn) ??
      new NvmeSubsystem(this.#node, this.#native, options.nqn, instance, serial);
    this.#subsystems.set(options.nqn, subsystem);
    const cntlid = this.#cntlids.take();
    const controller: Controller = {
      instance,
      cntlid,
      options,
      subsystem,
      paths: new Map(),
      lostAt: undefined,
      seen: "",
    };
    this.#controllers.add(controller);
    const name = `nvme${instance}`;
    const directory = `${CONTROLLERS}/${name}`;
    tree.plant(directory, controllerEntries(instance, cntlid, options, serial));
    subsystem.join(instance);
    tree.link(`/sys/class/nvme/${name}`, directory);
    tree.text(`/dev/${name}`, "", 0o600);
    const control = (file: string, act: () => Promise<void>) =>
      controls.add(tree.at(`${directory}/${file}`), act);
    control("delete_controller", () => this.#remove(controller));
    control("rescan_controller", () => this.#scanIfLive(controller));
    control("reset_controller", () => this.#scanIfLive(controller));
    return controller;
  }

  async #remove(controller: Controller): Promise<void> {
    if (!this.#controllers.delete(controller)) return;
    const { tree, controls } = this.#node;
    const { instance, subsystem, options } = controller;
    const name = `nvme${instance}`;
    const directory = `${CONTROLLERS}/${name}`;
    for (const file of ["delete_controller", "rescan_controller", "reset_controller"]) {
      controls.remove(tree.at(`${directory}/${file}`));
    }
    let removed = 0;
    for (const path of controller.paths.values()) {
      subsystem.removePath(path);
      if (++removed % BATCH === 0) await breathe();
    }
    tree.remove(`/sys/class/nvme/${name}`);
    tree.remove(`/dev/${name}`);
    const last = subsystem.leave(instance);
    tree.remove(directory);
    this.#cntlids.release(controller.cntlid);
    if (instance !== subsystem.number) this.#instances.release(instance);
    if (!last) return;
    this.#subsystems.delete(options.nqn);
    this.#instances.release(subsystem.number);
  }

  #lose(controller: Controller): void {
    if (controller.lostAt !== undefined) return;
    controller.lostAt = this.#node.now();
    this.#showState(controller);
  }

  async #reconnect(controller: Controller): Promise<void> {
    if (refusal(controller.options, this.#offered(controller.options.nqn)) !== undefined) {
      await this.#remove(controller);
      return;
    }
    controller.lostAt = undefined;
    this.#showState(controller);
    await this.#scan(controller);
  }

  #showState({ instance, options, lostAt }: Controller): void {
    const directory = `${CONTROLLERS}/nvme${instance}`;
    const live = lostAt === undefined;
    this.#node.tree.attribute(`${directory}/address`, addressText(options, live));
    this.#node.tree.attribute(`${directory}/state`, live ? "live" : "connecting");
  }

  async #scanIfLive(controller: Controller): Promise<void> {
    const { address, port } = controller.options;
    if (controller.lostAt === undefined && !this.#node.portals.isSilent(address, port)) {
      await this.#scan(controller);
    }
  }

  /**
   * Compares the controller's disks with the array's namespaces. A namespace whose uuid changed
   * under its nsid is dropped and, as on the real kernel, found again only by the next scan.
   */
  async #scan(controller: Controller): Promise<void> {
    const { subsystem } = controller;
    const offered = this.#offered(controller.options.nqn);
    controller.seen = namespacesText(offered);
    const wanted = new Map(offered?.namespaces.map((namespace) => [namespace.nsid, namespace]));
    let done = 0;
    for (const [nsid, path] of [...controller.paths]) {
      const namespace = wanted.get(nsid);
      if (namespace?.uuid === path.head.uuid) {
        path.disk.follow(namespace);
        path.head.disk?.follow(namespace);
      } else {
        controller.paths.delete(nsid);
        subsystem.removePath(path);
        if (++done % BATCH === 0) await breathe();
      }
      wanted.delete(nsid);
    }
    // The kernel's scan is asynchronous, disks come in any order: here in one unlike that of nsids.
    const fresh = [...wanted.values()].sort((a, b) => a.uuid < b.uuid ? 1 : -1);
    for (const namespace of fresh) {
      controller.paths.set(namespace.nsid, subsystem.addPath(controller.instance, namespace));
      if (++done % BATCH === 0) await breathe();
    }
  }
}

function namespacesText(subsystem: SubsystemExport | undefined): string {
  return JSON.stringify(subsystem?.namespaces ?? []);
}

/** Replaces a file's text without the file ever being empty. */
function overwrite(path: string, text: string): void {
  const file = openSync(path, "r+");
  try {
    ftruncateSync(file, writeSync(file, text, 0));
  } finally {
    closeSync(file);
  }
}
