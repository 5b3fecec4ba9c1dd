/**
 * Brings the kernel's NVMe target in step with what the array offers, as TrueNAS does: a difference
 * is written, what is new first and what is gone last, and connections that exist are kept.
 */

import type { NamespaceExport, SubsystemExport } from "../exports.ts";
import {
  CONFIGFS,
  listObjects,
  makeLink,
  makeLinkInNetns,
  makeObject,
  removeLink,
  removeObject,
  setAttributes,
} from "./configfs.ts";
import type { Volume, VolumeStore } from "./volume_store.ts";

const NVMET = `${CONFIGFS}/nvmet`;
/** The model and firmware that TrueNAS names; udev makes a link of the model. */
const MODEL = "TrueNAS";
const FIRMWARE = "25.10";

type Host = SubsystemExport["hosts"][number];

interface AppliedNamespace {
  readonly volume: Volume;
  readonly uuid: string;
}

/** The NVMe side of the array. */
export class NvmetTarget {
  readonly #volumes: VolumeStore;
  readonly #netns: string | undefined;
  /** By NQN, then by NSID. */
  readonly #applied = new Map<string, Map<number, AppliedNamespace>>();
  /** Number of each port, by `ADDRESS PORT`. */
  readonly #ports = new Map<string, number>();
  readonly #hosts = new Map<string, string>();
  #nextPort = 1;

  constructor(volumes: VolumeStore, netns: string | undefined) {
    this.#volumes = volumes;
    this.#netns = netns;
  }

  /** Writes the difference between what is and what shall be. */
  async apply(subsystems: readonly SubsystemExport[]): Promise<void> {
    await this.#applyHosts(subsystems);
    for (const subsystem of subsystems) await this.#applySubsystem(subsystem);
    const wanted = new Set(subsystems.map(({ nqn }) => nqn));
    for (const nqn of this.#applied.keys()) {
      if (!wanted.has(nqn)) await this.#removeSubsystem(nqn);
    }
    await this.#removeUnusedPorts();
    const hosts = new Set(subsystems.flatMap((subsystem) => subsystem.hosts.map(({ nqn }) => nqn)));
    for (const nqn of this.#hosts.keys()) {
      if (!hosts.has(nqn)) await this.#removeHost(nqn);
    }
  }

  /** Has every namespace on this volume look at its size again; connected hosts are told. */
  async sizeChanged(volume: Volume): Promise<void> {
    for (const [nqn, namespaces] of this.#applied) {
      for (const [nsid, namespace] of namespaces) {
        if (namespace.volume === volume) {
          await setAttributes(namespaceFolder(nqn, nsid), { revalidate_size: 1 });
        }
      }
    }
  }

  async #applySubsystem(subsystem: SubsystemExport): Promise<void> {
    const folder = subsystemFolder(subsystem.nqn);
    const namespaces = this.#applied.get(subsystem.nqn) ??
      await this.#createSubsystem(folder, subsystem);

    // A namespace that is another one now must go before its number can be taken again.
    const wanted = new Map(subsystem.namespaces.map((namespace) => [namespace.nsid, namespace]));
    for (const [nsid, applied] of [...namespaces]) {
      const now = wanted.get(nsid);
      const same = now?.uuid === applied.uuid && this.#volumes.get(now.zvol) === applied.volume;
      if (now !== undefined && !same) await this.#removeNamespace(subsystem.nqn, nsid, namespaces);
    }
    for (const namespace of subsystem.namespaces) {
      if (!namespaces.has(namespace.nsid)) {
        await this.#createNamespace(subsystem.nqn, namespace, namespaces);
      }
    }
    await this.#applyAccess(folder, subsystem);
    await this.#applyPorts(subsystem);
    for (const nsid of [...namespaces.keys()]) {
      if (!wanted.has(nsid)) await this.#removeNamespace(subsystem.nqn, nsid, namespaces);
    }
  }

  async #createSubsystem(
    folder: string,
    subsystem: SubsystemExport,
  ): Promise<Map<number, AppliedNamespace>> {
    await makeObject(folder);
    const namespaces = new Map<number, AppliedNamespace>();
    this.#applied.set(subsystem.nqn, namespaces);
    await setAttributes(folder, {
      attr_serial: subsystem.serial,
      attr_model: MODEL,
      attr_firmware: FIRMWARE,
    });
    return namespaces;
  }

  async #createNamespace(
    nqn: string,
    namespace: NamespaceExport,
    namespaces: Map<number, AppliedNamespace>,
  ): Promise<void> {
    const volume = this.#volumes.get(namespace.zvol);
    const folder = namespaceFolder(nqn, namespace.nsid);
    await makeObject(folder);
    this.#volumes.hold(volume);
    namespaces.set(namespace.nsid, { volume, uuid: namespace.uuid });
    try {
      await setAttributes(folder, {
        device_path: await this.#volumes.blockDevice(volume),
        device_uuid: namespace.uuid,
        device_nguid: namespace.nguid,
        enable: 1,
      });
    } catch (error) {
      // As on TrueNAS when the kernel refuses one, the 1,025th for instance: the row is there, the
      // namespace is not, and the next reload tries again.
      await this.#removeNamespace(nqn, namespace.nsid, namespaces);
      throw error;
    }
  }

  async #removeNamespace(
    nqn: string,
    nsid: number,
    namespaces: Map<number, AppliedNamespace>,
  ): Promise<void> {
    const folder = namespaceFolder(nqn, nsid);
    await setAttributes(folder, { enable: 0 });
    await removeObject(folder);
    const applied = namespaces.get(nsid);
    namespaces.delete(nsid);
    if (applied !== undefined) await this.#volumes.release(applied.volume);
  }

  async #removeSubsystem(nqn: string): Promise<void> {
    const folder = subsystemFolder(nqn);
    for (const number of this.#ports.values()) {
      const link = `${NVMET}/ports/${number}/subsystems/${nqn}`;
      if ((await listObjects(`${NVMET}/ports/${number}/subsystems`)).includes(nqn)) {
        await removeLink(link);
      }
    }
    const namespaces = this.#applied.get(nqn) ?? new Map<number, AppliedNamespace>();
    for (const nsid of [...namespaces.keys()]) await this.#removeNamespace(nqn, nsid, namespaces);
    for (const host of await listObjects(`${folder}/allowed_hosts`)) {
      await removeLink(`${folder}/allowed_hosts/${host}`);
    }
    await removeObject(folder);
    this.#applied.delete(nqn);
  }

  async #applyHosts(subsystems: readonly SubsystemExport[]): Promise<void> {
    for (const host of subsystems.flatMap(({ hosts }) => hosts)) {
      const wanted = JSON.stringify(host);
      const applied = this.#hosts.get(host.nqn);
      if (applied === wanted) continue;
      // The kernel cannot take a key back: a host that changed is made anew, and allowed again below.
      if (applied !== undefined) await this.#removeHost(host.nqn);
      await makeObject(`${NVMET}/hosts/${host.nqn}`);
      this.#hosts.set(host.nqn, wanted);
      await setAttributes(`${NVMET}/hosts/${host.nqn}`, authentication(host));
    }
  }

  async #removeHost(host: string): Promise<void> {
    for (const nqn of this.#applied.keys()) {
      const allowed = `${subsystemFolder(nqn)}/allowed_hosts`;
      if ((await listObjects(allowed)).includes(host)) await removeLink(`${allowed}/${host}`);
    }
    await removeObject(`${NVMET}/hosts/${host}`);
    this.#hosts.delete(host);
  }

  /** The kernel refuses a list of hosts while any host is allowed, and the other way round. */
  async #applyAccess(folder: string, subsystem: SubsystemExport): Promise<void> {
    const wanted = new Set(subsystem.allowAnyHost ? [] : subsystem.hosts.map(({ nqn }) => nqn));
    const present = new Set(await listObjects(`${folder}/allowed_hosts`));
    for (const nqn of present) {
      if (!wanted.has(nqn)) await removeLink(`${folder}/allowed_hosts/${nqn}`);
    }
    await setAttributes(folder, { attr_allow_any_host: subsystem.allowAnyHost ? 1 : 0 });
    for (const nqn of wanted) {
      if (!present.has(nqn)) {
        await makeLink(`${NVMET}/hosts/${nqn}`, `${folder}/allowed_hosts/${nqn}`);
      }
    }
  }

  async #applyPorts(subsystem: SubsystemExport): Promise<void> {
    const wanted = new Set<number>();
    for (const { address, port } of subsystem.ports) {
      const key = `${address} ${port}`;
      const number = this.#ports.get(key) ?? await this.#createPort(key, address, port);
      wanted.add(number);
      const links = `${NVMET}/ports/${number}/subsystems`;
      if (!(await listObjects(links)).includes(subsystem.nqn)) {
        // The port's first subsystem opens its socket.
        const target = subsystemFolder(subsystem.nqn);
        await makeLinkInNetns(this.#netns, target, `${links}/${subsystem.nqn}`);
      }
    }
    for (const number of this.#ports.values()) {
      const links = `${NVMET}/ports/${number}/subsystems`;
      if (!wanted.has(number) && (await listObjects(links)).includes(subsystem.nqn)) {
        await removeLink(`${links}/${subsystem.nqn}`);
      }
    }
  }

  async #createPort(key: string, address: string, port: number): Promise<number> {
    const number = this.#nextPort++;
    await makeObject(`${NVMET}/ports/${number}`);
    this.#ports.set(key, number);
    await setAttributes(`${NVMET}/ports/${number}`, {
      addr_trtype: "tcp",
      addr_adrfam: address.includes(":") ? "ipv6" : "ipv4",
      addr_traddr: address,
      addr_trsvcid: port,
    });
    return number;
  }

  async #removeUnusedPorts(): Promise<void> {
    for (const [key, number] of this.#ports) {
      if ((await listObjects(`${NVMET}/ports/${number}/subsystems`)).length > 0) continue;
      await removeObject(`${NVMET}/ports/${number}`);
      this.#ports.delete(key);
    }
  }
}

function subsystemFolder(nqn: string): string {
  return `${NVMET}/subsystems/${nqn}`;
}

function namespaceFolder(nqn: string, nsid: number): string {
  return `${subsystemFolder(nqn)}/namespaces/${nsid}`;
}

/**
 * DH-HMAC-CHAP of one host. The API says `SHA-256` and `2048-BIT` where the kernel says
 * `hmac(sha256)` and `ffdhe2048`.
 */
function authentication(host: Host): Record<string, string> {
  const hash = /\d{3}/.exec(host.hash ?? "")?.[0];
  const bits = /\d{4}/.exec(host.dhGroup ?? "")?.[0];
  return {
    ...(hash === undefined ? {} : { dhchap_hash: `hmac(sha${hash})` }),
    ...(bits === undefined ? {} : { dhchap_dhgroup: `ffdhe${bits}` }),
    ...(host.key === undefined ? {} : { dhchap_key: host.key }),
    ...(host.controllerKey === undefined ? {} : { dhchap_ctrl_key: host.controllerKey }),
  };
}
