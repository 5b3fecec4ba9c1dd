/** Drives the array that has no API (`array_server.ts`), and knows what its objects are called. */

import { assertEquals, fail } from "@std/assert";
import type { Exports, Sessions } from "../../../src/simulator/exports.ts";
import { compileProgram } from "./compile.ts";
import { forgetEverything } from "./initiator.ts";
import { PORTALS, type Vm } from "./vm.ts";

export const IQN = "iqn.2005-10.org.freenas.ctl:pve";
export const NQN = "nqn.2011-06.com.truenas:uuid:5e0e1d2c:pve";
export const MIB = 1024 ** 2;

type Target = Exports["iscsi"]["targets"][number];
type Subsystem = Exports["nvmet"]["subsystems"][number];

/** What is exported: zvols by LUN and by NSID, and the access rules where they matter. */
export interface Offer {
  readonly luns?: Readonly<Record<number, string>>;
  readonly namespaces?: Readonly<Record<number, string>>;
  readonly target?: Partial<Target>;
  readonly subsystem?: Partial<Subsystem>;
  readonly iscsiRunning?: boolean;
  readonly nvmetRunning?: boolean;
}

/** The array; every zvol has an identity of its own, made from its name. */
export class KernelArray {
  readonly #url: string;
  readonly #sizes = new Map<string, number>();

  constructor(url: string) {
    this.#url = url;
  }

  async createZvol(zvol: string, size = 64 * MIB, origin?: string): Promise<void> {
    await this.call("createZvol", zvol, size, ...origin === undefined ? [] : [origin]);
    this.#sizes.set(zvol, size);
  }

  async destroyZvol(zvol: string): Promise<void> {
    await this.call("destroyZvol", zvol);
    this.#sizes.delete(zvol);
  }

  async resizeZvol(zvol: string, size: number): Promise<void> {
    await this.call("resizeZvol", zvol, size);
    this.#sizes.set(zvol, size);
  }

  /** Makes the offer the whole of what is exported. */
  async offer(offer: Offer): Promise<void> {
    await this.call("apply", this.#exports(offer));
  }

  sessions(): Promise<Sessions> {
    return this.call("sessions") as Promise<Sessions>;
  }

  /** Calls an operation of the data side by name. */
  async call(operation: string, ...args: readonly unknown[]): Promise<unknown> {
    const response = await fetch(`${this.#url}/${operation}`, {
      method: "POST",
      body: JSON.stringify(args),
      signal: AbortSignal.timeout(120_000),
    });
    const answer = await response.json() as { result?: unknown; error?: string; kind?: string };
    if (answer.error !== undefined) throw new Error(`${operation}: ${answer.error}`);
    return answer.result;
  }

  /** Takes back every export and removes every zvol. */
  async empty(): Promise<void> {
    await this.offer({});
    for (const zvol of [...this.#sizes.keys()]) await this.destroyZvol(zvol);
  }

  #exports(offer: Offer): Exports {
    const entries = (map: Readonly<Record<number, string>> = {}) =>
      Object.entries(map).map(([number, zvol]) => ({
        number: Number(number),
        zvol,
        size: this.#sizes.get(zvol) ?? fail(`no zvol ${zvol}`),
      }));
    const target: Target = {
      iqn: IQN,
      portals: PORTALS,
      initiators: [],
      luns: entries(offer.luns).map(({ number, zvol, size }) => ({
        lun: number,
        naa: naaOf(zvol),
        serial: naaOf(zvol).slice(-15),
        blockSize: 512,
        readOnly: false,
        zvol,
        size,
      })),
      ...offer.target,
    };
    const subsystem: Subsystem = {
      nqn: NQN,
      serial: "7f3a9c0d1e2b4f5a6b7c",
      allowAnyHost: true,
      hosts: [],
      ports: PORTALS.map((address) => ({ address, port: 4420 })),
      namespaces: entries(offer.namespaces).map(({ number, zvol, size }) => ({
        nsid: number,
        uuid: uuidOf(zvol),
        nguid: uuidOf(zvol),
        zvol,
        size,
      })),
      ...offer.subsystem,
    };
    return {
      iscsi: {
        running: offer.iscsiRunning ?? true,
        port: 3260,
        targets: offer.luns ? [target] : [],
      },
      nvmet: {
        running: offer.nvmetRunning ?? true,
        subsystems: offer.namespaces ? [subsystem] : [],
      },
    };
  }
}

/** 19 hex digits made from a name. */
function digits(zvol: string): string {
  let sum = 0n;
  for (const byte of new TextEncoder().encode(zvol)) {
    sum = (sum * 1_099_511n + BigInt(byte)) % 16n ** 19n;
  }
  return sum.toString(16).padStart(19, "0");
}

/** The NAA that the array gives this zvol. */
export function naaOf(zvol: string): string {
  return `6589cfc000000${digits(zvol)}`;
}

/** The namespace UUID that the array gives this zvol. */
export function uuidOf(zvol: string): string {
  const hex = digits(zvol);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(12, 15)}-8${hex.slice(15, 18)}-` +
    hex.padEnd(12, "0").slice(-12);
}

/**
 * Runs a case against an array of its own; afterwards the initiator's side and the array are emptied,
 * and nothing may be left.
 */
export async function withKernelArray(
  vm: Vm,
  run: (array: KernelArray) => Promise<void>,
): Promise<void> {
  const array = await startKernelArray(vm);
  try {
    await run(array);
  } finally {
    await forgetEverything(vm);
    await array.empty();
  }
  assertEquals(await vm.leftovers(), []);
}

const started = new WeakMap<Vm, Promise<KernelArray>>();

function startKernelArray(vm: Vm): Promise<KernelArray> {
  const running = started.get(vm) ?? start(vm);
  started.set(vm, running);
  return running;
}

async function start(vm: Vm): Promise<KernelArray> {
  await compileProgram(
    new URL("array_server.ts", import.meta.url),
    `${vm.machine.sharedFolder}/array-server`,
  );
  await vm.sh(`cp /shared/array-server /run/
    /run/array-server 7001 /data tgt >/run/array-server.log 2>&1 </dev/null &`);
  await vm.until("ss -tlnH 'sport = 7001' | grep -q .");
  return new KernelArray(`http://127.0.0.1:${vm.machine.forwardedPort}`);
}

/** For the runner, before the product takes the kernel's targets over. */
export async function stopKernelArray(vm: Vm): Promise<void> {
  const running = started.get(vm);
  if (running === undefined) return;
  started.delete(vm);
  await (await running).call("close");
}
