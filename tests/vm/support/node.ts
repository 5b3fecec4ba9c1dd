/** A node of the cluster in the VM, set up with one storage: the hook and the Perl plugin, called as PVE does. */

import { assertEquals, fail } from "@std/assert";
import type { ShellResult } from "../../../scripts/vm/agent.ts";
import type { Vm } from "./vm.ts";
import type { ReadyLine } from "../../../src/simulator/simulator.ts";

/** Of the disks that the cases make. */
export const SIZE_KIB = 64 * 1024;

/** CHAP; with a peer it is mutual. */
export interface ChapSecrets {
  readonly user: string;
  readonly secret: string;
  readonly peerUser?: string;
  readonly peerSecret?: string;
}

/** A storage's section, as PVE parsed it. */
export type StorageConfig = Readonly<Record<string, unknown>>;

/** What the hook answers. */
export type HookAnswer =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly error: { readonly code: string; readonly message: string } };

/** A node with one storage on a fresh array. */
export class Node {
  readonly vm: Vm;
  readonly array: ReadyLine;
  readonly storage: string;
  readonly config: StorageConfig;
  #requests = 0;
  #lastLog = "";

  constructor(vm: Vm, array: ReadyLine, config: StorageConfig, storage = "san") {
    this.vm = vm;
    this.array = array;
    this.config = config;
    this.storage = storage;
  }

  /** What the hook's last call wrote into its log. */
  get lastLog(): string {
    return this.#lastLog;
  }

  /** One `tnblock hook`, without PVE around it. */
  async hook(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<HookAnswer> {
    const request = await this.vm.file(
      JSON.stringify({
        protocol: 1,
        id: `vm-${this.#requests++}`,
        method,
        storage: this.storage,
        config: this.config,
        args,
        deadlineMs: 120_000,
        node: this.vm.name,
        pveApi: 13,
      }) + "\n",
    );
    const { stdout, stderr } = await this.vm.try(`tnblock hook <${request}`, {
      timeoutSeconds: 180,
    });
    this.#lastLog = stderr;
    if (!stdout.startsWith("{")) fail(`the hook answered "${stdout}" to ${method}; ${stderr}`);
    return JSON.parse(stdout) as HookAnswer;
  }

  /** As {@link hook}; fails unless the method succeeds. */
  async must(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = await this.hook(method, args);
    if (!answer.ok) fail(`${method}: ${answer.error.code}: ${answer.error.message}`);
    return answer.result;
  }

  /** The code of the error that a method ends with; fails when it succeeds. */
  async refusal(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<string> {
    return (await this.complaint(method, args)).code;
  }

  /** As {@link refusal}, the whole error. */
  async complaint(
    method: string,
    args: Readonly<Record<string, unknown>> = {},
  ): Promise<{ readonly code: string; readonly message: string }> {
    const answer = await this.hook(method, args);
    if (answer.ok) fail(`${method} succeeded with ${JSON.stringify(answer.result)}`);
    return answer.error;
  }

  /** One call of the Perl plugin; fails unless it succeeds. */
  async perl(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    const answer = await this.vm.perl(method, this.storage, this.config, args);
    if (!answer.ok) fail(`${method}: ${answer.error}`);
    return answer.result;
  }

  /**
   * Exports or imports a volume through the Perl plugin.
   *
   * @param redirection where the stream goes or comes from, in the shell's words.
   */
  async transfer(
    method: "volume_export" | "volume_import",
    volname: string,
    redirection: string,
  ): Promise<ShellResult> {
    const config = await this.vm.file(JSON.stringify(this.config));
    return await this.vm.try(
      `perl -T -I/checkout/tests/pve/lib /checkout/tests/vm/support/transfer.pl \
        ${method} ${this.storage} ${config} ${volname} ${redirection}`,
      { timeoutSeconds: 300 },
    );
  }

  /** The path that PVE gives to QEMU. */
  async path(volname: string, snapshot?: string): Promise<string> {
    const args = { volname, ...snapshot === undefined ? {} : { snapshot } };
    const result = await this.must("path", args) as { path: string };
    return result.path;
  }

  /** As the hook's `path` says, which a case of its own asks: a start of the product less. */
  pathOf(volname: string, snapshot?: string): string {
    const name = `/dev/tnblock/${this.storage}/${zvolOf(volname)}`;
    return snapshot === undefined ? name : `${name}@${snapshot}`;
  }

  /** A new disk of 64 MiB that is active; answers with its volume name and PVE's path to it. */
  async activeDisk(vmid = 100): Promise<{ volname: string; path: string }> {
    const args = { vmid, format: "raw", sizeKiB: SIZE_KIB };
    const volname = String(await this.must("alloc_image", args));
    await this.must("activate_volume", { volname });
    const path = this.pathOf(volname);
    assertEquals(await this.vm.sh(`blockdev --getsize64 ${path}`), String(SIZE_KIB * 1024));
    return { volname, path };
  }

  /** Frees a volume for good. */
  async free(volname: string): Promise<void> {
    await this.must("free_image", { volname, isBase: false, finish: true });
  }

  /** How many paths of a disk carry commands. */
  async livePaths(path: string): Promise<number> {
    return Number(
      await this.vm.sh(
        `disk=$(basename $(readlink -f ${path}))
         case $disk in
           nvme*) grep -lx live /sys/class/nvme/nvme*/state | wc -l ;;
           *) multipathd show paths format '%m %t' | grep -c "^$(cat /sys/block/$disk/dm/name) active" ;;
         esac`,
      ),
    );
  }

  /** Makes these the storage's secrets, beside the API key. */
  async setSecrets(secrets: Readonly<Record<string, string>>): Promise<void> {
    const file = await this.vm.file(
      JSON.stringify({ "tnb-api-key": this.array.apiKey, ...secrets }),
    );
    await this.vm.sh(`install -m 600 ${file} /etc/pve/priv/storage/${this.storage}.tnblock`);
  }

  /** The same node with other options of the storage. */
  with(change: StorageConfig): Node {
    return new Node(this.vm, this.array, { ...this.config, ...change }, this.storage);
  }

  /** Has two zvols' LUNs or NSIDs change places on the array, behind everybody's back. */
  async swap(one: string, other: string): Promise<void> {
    await this.#changeArray("swap", [one, other].map((zvol) => `${this.array.dataset}/${zvol}`));
  }

  /** Has a zvol's namespace made again under the same NSID. */
  async remake(zvol: string): Promise<void> {
    await this.#changeArray("remake", [`${this.array.dataset}/${zvol}`]);
  }

  /** Has the target ask for CHAP. */
  async requireChap(chap: ChapSecrets): Promise<void> {
    const { user, secret, peerUser = "", peerSecret = "" } = chap;
    await this.#changeArray("chap", [user, secret, peerUser, peerSecret]);
  }

  /** Has the subsystem let this node in only, with DH-HMAC-CHAP; both ways with a key of the array's. */
  async requireDhchap(key: string, controllerKey?: string): Promise<void> {
    const keys = controllerKey === undefined ? [key] : [key, controllerKey];
    await this.#changeArray("dhchap", [this.vm.hostNqn, ...keys]);
  }

  /** Makes another dataset on the array, for another storage. */
  async makeDataset(name: string): Promise<void> {
    await this.#changeArray("dataset", [name]);
  }

  /** Switches the array off: neither its API nor its targets are there any more. */
  async switchOff(): Promise<void> {
    await this.#changeArray("down", []);
  }

  /** Boots the array again: it holds what it held. */
  async switchOn(): Promise<void> {
    await this.#changeArray("up", []);
  }

  async #changeArray(what: string, words: readonly string[]): Promise<void> {
    const response = await fetch(
      `http://127.0.0.1:${this.vm.arrayVm.machine.forwardedPort}/${what}`,
      {
        method: "POST",
        body: JSON.stringify(words),
        signal: AbortSignal.timeout(60_000),
      },
    );
    assertEquals(await response.json(), { done: true });
  }

  /** Talks to the simulator's control port; answers with the body. */
  async control(method: "GET" | "POST", path: string, body = ""): Promise<unknown> {
    const { hostname, port } = new URL(this.array.control);
    const { arrayVm } = this.vm;
    const request = await arrayVm.file(
      `${method} ${path} HTTP/1.0\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    const answer = await arrayVm.sh(`socat -t 30 - TCP:${hostname}:${port} <${request}`);
    const at = answer.indexOf("\r\n\r\n");
    const text = answer.slice(at + 4).trim();
    return text === "" ? null : JSON.parse(text);
  }
}

/** The zvol in a volume's name, `vol-ZVOL-TAG`, also of a linked clone, `BASE/vol-ZVOL-TAG`. */
export function zvolOf(volname: string): string {
  const [, zvol] = /^(?:.*\/)?vol-([^/]+)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(volname) ?? [];
  return zvol ?? fail(`"${volname}" is no volume's name`);
}
