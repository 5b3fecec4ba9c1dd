/**
 * Brings the kernel's iSCSI target (LIO) in step with what the array offers, as a difference, so that
 * sessions stay. TrueNAS runs SCST instead, which Debian does not have.
 *
 * LIO makes the NAA and the serial number of a disk from the same text, so a LUN shows the right NAA
 * and, as its serial, the NAA's last 25 digits. It cannot make a single LUN read-only.
 */

import type { LunExport, TargetExport } from "../exports.ts";
import {
  CONFIGFS,
  listObjects,
  makeLink,
  makeObject,
  makeObjectInNetns,
  removeLink,
  removeObject,
  setAttributes,
} from "./configfs.ts";
import type { Volume, VolumeStore } from "./volume_store.ts";

const TARGET = `${CONFIGFS}/target`;
/** Back stores are objects of an adapter, `<kind>_<number>`. */
const ADAPTER = `${TARGET}/core/fileio_0`;
const COMPANY_ID = "589cfc";
const VENDOR = "TrueNAS";
const PRODUCT = "iSCSI Disk";
const LINK = "volume";

interface AppliedLun {
  readonly volume: Volume;
  readonly naa: string;
}

interface AppliedTarget {
  readonly luns: Map<number, AppliedLun>;
  /** The access rules as they were applied, to see whether they changed. */
  access: string;
}

/** The iSCSI side of the array. */
export class LioTarget {
  readonly #volumes: VolumeStore;
  readonly #netns: string | undefined;
  readonly #applied = new Map<string, AppliedTarget>();

  constructor(volumes: VolumeStore, netns: string | undefined) {
    this.#volumes = volumes;
    this.#netns = netns;
  }

  /** Writes the difference between what is and what shall be. */
  async apply(targets: readonly TargetExport[], port: number): Promise<void> {
    for (const target of targets) await this.#applyTarget(target, port);
    const wanted = new Set(targets.map(({ iqn }) => iqn));
    for (const iqn of [...this.#applied.keys()]) {
      if (!wanted.has(iqn)) await this.#removeTarget(iqn);
    }
  }

  /** Gives every LUN on this volume its new size; initiators see it when they look again. */
  async sizeChanged(volume: Volume): Promise<void> {
    for (const { luns } of this.#applied.values()) {
      for (const lun of luns.values()) {
        if (lun.volume !== volume) continue;
        await setAttributes(storeFolder(lun.naa), { control: `fd_dev_size=${volume.size}` });
      }
    }
  }

  async #applyTarget(target: TargetExport, port: number): Promise<void> {
    const group = groupFolder(target.iqn);
    const isNew = !this.#applied.has(target.iqn);
    const applied = this.#applied.get(target.iqn) ?? await this.#createTarget(target.iqn);
    await this.#applyLuns(target, applied);
    const access = JSON.stringify([target.initiators, target.chap]);
    if (applied.access !== access) {
      await applyAccess(target);
      applied.access = access;
    }
    await applyMappings(target);

    const portals = target.portals.map((address) =>
      address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`
    );
    const present = await listObjects(`${group}/np`);
    for (const portal of portals) {
      if (present.includes(portal)) continue;
      await makeObjectInNetns(this.#netns, `${group}/np/${portal}`);
    }
    for (const portal of present) {
      if (!portals.includes(portal)) await removeObject(`${group}/np/${portal}`);
    }
    if (isNew) await setAttributes(group, { enable: 1 });
  }

  async #createTarget(iqn: string): Promise<AppliedTarget> {
    await makeObject(`${TARGET}/iscsi`).catch(ignoreExisting);
    await makeObject(`${TARGET}/iscsi/${iqn}`);
    await makeObject(groupFolder(iqn));
    const applied = { luns: new Map<number, AppliedLun>(), access: "" };
    this.#applied.set(iqn, applied);
    return applied;
  }

  async #applyLuns(target: TargetExport, applied: AppliedTarget): Promise<void> {
    const wanted = new Map(target.luns.map((lun) => [lun.lun, lun]));
    const isSame = (lun: AppliedLun, now: LunExport) =>
      now.naa === lun.naa && this.#volumes.get(now.zvol) === lun.volume;
    // What is another volume now goes first: its number, or its identity, is taken by a new one.
    for (const [number, lun] of [...applied.luns]) {
      const now = wanted.get(number);
      if (now === undefined || !isSame(lun, now)) {
        await this.#removeLun(target.iqn, number, lun, applied);
      }
    }
    for (const lun of target.luns) {
      if (!applied.luns.has(lun.lun)) await this.#createLun(target.iqn, lun, applied);
    }
  }

  async #createLun(iqn: string, lun: LunExport, applied: AppliedTarget): Promise<void> {
    const volume = this.#volumes.get(lun.zvol);
    const folder = `${groupFolder(iqn)}/lun/lun_${lun.lun}`;
    try {
      await createStore(lun, this.#volumes.file(volume.name), volume.size);
      await makeObject(folder);
      await makeLink(storeFolder(lun.naa), `${folder}/${LINK}`);
    } catch (error) {
      // The next reload tries again, and must not find the half of it.
      await removeObject(folder).catch(ignoreMissing);
      await removeObject(storeFolder(lun.naa)).catch(ignoreMissing);
      throw error;
    }
    this.#volumes.hold(volume);
    applied.luns.set(lun.lun, { volume, naa: lun.naa });
  }

  async #removeLun(
    iqn: string,
    number: number,
    lun: AppliedLun,
    applied: AppliedTarget,
  ): Promise<void> {
    const group = groupFolder(iqn);
    for (const initiator of await listObjects(`${group}/acls`)) {
      await removeMapping(`${group}/acls/${initiator}/lun_${number}`).catch(ignoreMissing);
    }
    await removeLink(`${group}/lun/lun_${number}/${LINK}`);
    await removeObject(`${group}/lun/lun_${number}`);
    await removeObject(storeFolder(lun.naa));
    applied.luns.delete(number);
    await this.#volumes.release(lun.volume);
  }

  async #removeTarget(iqn: string): Promise<void> {
    const group = groupFolder(iqn);
    const applied = this.#applied.get(iqn);
    // Ends the sessions.
    await setAttributes(group, { enable: 0 });
    for (const [number, lun] of [...applied?.luns ?? []]) {
      if (applied !== undefined) await this.#removeLun(iqn, number, lun, applied);
    }
    for (const kind of ["acls", "np"]) {
      for (const name of await listObjects(`${group}/${kind}`)) {
        await removeObject(`${group}/${kind}/${name}`);
      }
    }
    await removeObject(group);
    await removeObject(`${TARGET}/iscsi/${iqn}`);
    this.#applied.delete(iqn);
  }
}

function groupFolder(iqn: string): string {
  return `${TARGET}/iscsi/${iqn}/tpgt_1`;
}

function storeFolder(naa: string): string {
  return `${ADAPTER}/${naa}`;
}

/** An NAA of type 6 is the digit 6, the company's 6 digits and 25 of the device's own. */
function serialOf(naa: string): string {
  if (!naa.startsWith(`6${COMPANY_ID}`) || naa.length !== 32) {
    throw new Error(`The NAA "${naa}" is not one of TrueNAS's`);
  }
  return naa.slice(7);
}

/** A disk that the target can offer: a file, with the identity that initiators see. */
async function createStore(lun: LunExport, file: string, size: number): Promise<void> {
  const store = storeFolder(lun.naa);
  await makeObject(ADAPTER).catch(ignoreExisting);
  await makeObject(store);
  await setAttributes(store, {
    control: `fd_dev_name=${file},fd_dev_size=${size},fd_buffered_io=1`,
  });
  await setAttributes(`${store}/wwn`, {
    company_id: `0x${COMPANY_ID}`,
    vpd_unit_serial: serialOf(lun.naa),
    vendor_id: VENDOR,
    product_id: PRODUCT,
  });
  await setAttributes(store, { enable: 1 });
  await setAttributes(`${store}/attrib`, { block_size: lun.blockSize, emulate_tpu: 1 });
}

/** Who may log in, and with which secrets: a list of initiators, or everybody. */
async function applyAccess({ iqn, initiators, chap }: TargetExport): Promise<void> {
  const group = groupFolder(iqn);
  const everybody = initiators.length === 0 ? 1 : 0;
  await setAttributes(`${group}/attrib`, {
    authentication: chap === undefined ? 0 : 1,
    generate_node_acls: everybody,
    cache_dynamic_acls: everybody,
    demo_mode_write_protect: 0,
  });
  for (const present of await listObjects(`${group}/acls`)) {
    if (initiators.includes(present)) continue;
    const acl = `${group}/acls/${present}`;
    for (const mapping of await listObjects(acl)) {
      if (mapping.startsWith("lun_")) await removeMapping(`${acl}/${mapping}`);
    }
    await removeObject(acl);
  }
  for (const initiator of initiators) {
    await makeObject(`${group}/acls/${initiator}`).catch(ignoreExisting);
  }
  if (chap === undefined) return;
  const secrets = {
    userid: chap.user,
    password: chap.secret,
    // "NULL" is the kernel's word for none.
    userid_mutual: chap.peerUser ?? "NULL",
    password_mutual: chap.peerSecret ?? "NULL",
  };
  await setAttributes(`${group}/auth`, secrets);
  for (const initiator of initiators) {
    await setAttributes(`${group}/acls/${initiator}/auth`, secrets);
  }
}

/** Each listed initiator sees every LUN under the target's own number. */
async function applyMappings({ iqn, initiators, luns }: TargetExport): Promise<void> {
  const group = groupFolder(iqn);
  for (const initiator of initiators) {
    const acl = `${group}/acls/${initiator}`;
    const present = new Set(await listObjects(acl));
    for (const { lun } of luns) {
      if (present.has(`lun_${lun}`)) continue;
      await makeObject(`${acl}/lun_${lun}`);
      await makeLink(`${group}/lun/lun_${lun}`, `${acl}/lun_${lun}/${LINK}`);
    }
  }
}

async function removeMapping(folder: string): Promise<void> {
  for (const link of await listObjects(folder)) {
    if (link === LINK) await removeLink(`${folder}/${link}`);
  }
  await removeObject(folder);
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== "EEXIST") throw error;
}

function ignoreMissing(error: NodeJS.ErrnoException): void {
  if (error.code !== "ENOENT") throw error;
}
