/** The real storage beside its model: what is asked of one is done to the other, and they are compared. */
import { assert, assertEquals } from "@std/assert";
import { pictureOf } from "../contract/picture.ts";
import { plantForeign } from "../contract/foreign.ts";
import { Place, type PlaceOptions, type Reply, type TransportKind } from "../support/place.ts";
import { Model, plain, type Volume } from "./model.ts";

/** The guests that own volumes. */
export const GUESTS = [100, 101] as const;

const NODES = ["pve1", "pve2"] as const;

/** Bytes at a volume's beginning that the tests write and read. */
const LABEL_BYTES = 64;

/** A random choice, as a generated step makes it: always the same for the same numbers. */
export interface Choice {
  readonly node: string;
  /** One of the list; undefined of an empty one. */
  one<T>(list: readonly T[]): T | undefined;
  readonly coin: boolean;
}

/** Place and model. */
export class World implements AsyncDisposable {
  readonly model = new Model(NODES);
  /** What was done, for the message of a failure. */
  readonly story: string[] = [];
  /** Process numbers of those that have a volume open. */
  #lastPid = 5000;
  readonly #holders = new Map<string, string>();

  private constructor(readonly place: Place, readonly others: string) {}

  static async start(
    transport: TransportKind,
    release: NonNullable<PlaceOptions["release"]>,
  ): Promise<World> {
    const place = await Place.start(transport, { release, nodes: NODES });
    await plantForeign(place);
    await place.must("validate_storage");
    return new World(place, (await pictureOf(place, {})).others);
  }

  /** A choice out of three numbers; each draw from a list uses up a part of `pick`. */
  choice(node: number, pick: number, coin: boolean): Choice {
    let left = pick;
    return {
      node: NODES[node % NODES.length] ?? NODES[0],
      one: (list) => {
        const drawn = list[left % list.length];
        left = Math.floor(left / Math.max(1, list.length));
        return drawn;
      },
      coin,
    };
  }

  /** Asks a node. */
  async ask(node: string, method: string, args: Record<string, unknown>): Promise<Reply> {
    const reply = await this.place.ask(method, args, { node });
    const outcome = reply.ok ? JSON.stringify(reply.result) : `refused: ${reply.error?.code}`;
    this.story.push(`${node}: ${method} ${JSON.stringify(args)} -> ${outcome}`);
    return reply;
  }

  /**
   * Asks for what must succeed when `refusals` is empty, and else must be refused with one of them.
   *
   * @returns the result; undefined when it was refused, as it must.
   */
  async expect(
    node: string,
    method: string,
    args: Record<string, unknown>,
    refusals: readonly (string | false)[] = [],
    // deno-lint-ignore no-explicit-any
  ): Promise<{ readonly result: any } | undefined> {
    const codes = refusals.filter((code) => code !== false);
    const reply = await this.ask(node, method, args);
    const told = `${reply.error?.message} [${reply.error?.code}]`;
    if (codes.length === 0) {
      assert(reply.ok, `must succeed: ${told}`);
      return { result: reply.result };
    }
    assert(
      !reply.ok && codes.includes(reply.error?.code ?? ""),
      `must be refused as ${codes.join(" or ")}: ${told}`,
    );
    return undefined;
  }

  /** A process of the node opens the volume. */
  async open(volume: Volume, node: string): Promise<void> {
    const { directory } = this.place.node(node);
    const device = await Deno.realPath(this.place.linkOf(volume.volname, node));
    const proc = `${directory}/proc/${++this.#lastPid}`;
    await Deno.mkdir(`${proc}/fd`, { recursive: true });
    await Deno.writeTextFile(`${proc}/comm`, "qemu-system-x86\n");
    await Deno.symlink(device.slice((await Deno.realPath(directory)).length), `${proc}/fd/12`);
    this.#holders.set(`${node} ${volume.zvol}`, proc);
    volume.openOn.add(node);
    this.story.push(`${node}: ${volume.zvol} is opened`);
  }

  async close(volume: Volume, node: string): Promise<void> {
    const proc = this.#holders.get(`${node} ${volume.zvol}`);
    if (proc !== undefined) await Deno.remove(proc, { recursive: true });
    volume.openOn.delete(node);
    this.story.push(`${node}: ${volume.zvol} is closed`);
  }

  /** Writes to the volume where it is active. */
  async write(volume: Volume, node: string): Promise<void> {
    volume.content = this.model.newContent();
    using disk = await Deno.open(this.place.linkOf(volume.volname, node), { write: true });
    await disk.write(new TextEncoder().encode(volume.content.padEnd(LABEL_BYTES, "\0")));
    this.story.push(`${node}: ${volume.zvol} is written: ${volume.content}`);
  }

  /** Fails unless array, nodes and listings are what the model says. */
  async check(): Promise<void> {
    const { model, place } = this;
    const guests = Object.fromEntries(GUESTS.map((id) => [String(id), id]));
    const picture = await pictureOf(place, guests);
    assertEquals(picture.ours, model.lines());
    if (picture.others !== this.others) {
      assertEquals(JSON.parse(picture.others), JSON.parse(this.others));
    }
    for (const node of NODES) {
      const listed = await place.must("list_images", {}, { node });
      const rows = listed.map(({ ctime: _, format: __, ...row }: Record<string, unknown>) => row);
      rows.sort((a: { volid: string }, b: { volid: string }) => a.volid < b.volid ? -1 : 1);
      assertEquals(rows, model.rows());
      for (const [name, { volume, snapshot }] of model.linksOf(node)) {
        if (volume === undefined) continue;
        const content = (snapshot ?? volume).content;
        const path = `${place.node(node).directory}/dev/tnblock/san/${name}`;
        assertEquals(await labelOf(path), content, `${node} reads through ${name}`);
        if (snapshot === undefined) this.#checkIdentity(volume, await Deno.readLink(path));
      }
    }
  }

  /** The way must name the disk by what identifies it. */
  #checkIdentity(volume: Volume, target: string): void {
    const { simulator, transport } = this.place;
    const { extents, namespaces } = simulator.objects();
    const path = `zvol/${simulator.ready.dataset}/${volume.zvol}`;
    const identity = transport === "iscsi"
      ? String(extents.find((row) => row.path === path)?.naa).replace(/^0x/, "")
      : String(namespaces.find((row) => row.device_path === path)?.device_uuid);
    assert(target.includes(identity), `${plain(volume.volname)} leads to ${target}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.place[Symbol.asyncDispose]();
  }
}

/** What stands at the beginning of a disk. */
async function labelOf(path: string): Promise<string> {
  using disk = await Deno.open(path);
  const bytes = new Uint8Array(LABEL_BYTES);
  await disk.read(bytes);
  return new TextDecoder().decode(bytes).replace(/\0+$/, "");
}
