/** What a storage with two nodes is, as small as it can be said: what the real one must agree with. */
import { assertEquals, assertMatch } from "@std/assert";

/** A snapshot; it holds what the volume held when it was taken. */
export interface Snapshot {
  readonly name: string;
  readonly content: string;
  /** MiB. */
  readonly size: number;
  /** Nodes that read it. */
  readonly readers: Set<string>;
}

/** A volume. */
export interface Volume {
  /** As PVE knows it now; a linked clone of a base in the slash form. */
  volname: string;
  zvol: string;
  /** MiB. */
  size: number;
  /** What was last written to its beginning; empty for a blank one. */
  content: string;
  /** Oldest first. */
  readonly snapshots: Snapshot[];
  /** What it is a linked clone of. */
  readonly origin: { readonly volume: Volume; readonly snapshot: Snapshot } | undefined;
  /** Nodes where a process has it open. */
  readonly openOn: Set<string>;
}

/** A way below /dev/tnblock on a node: to a volume, or, when the volume is gone, to nothing. */
export interface Link {
  /** The plain name by which it was made. */
  readonly volname: string;
  /** Undefined for a way that is left of a volume that is gone. */
  readonly volume: Volume | undefined;
  /** Set for the way to a snapshot. */
  readonly snapshot?: Snapshot;
}

/** The snapshot that linked clones of a base hang on. */
export const BASE_SNAPSHOT = "__base__";

/** A volume's own part of its name. */
export function plain(volname: string): string {
  return volname.slice(volname.lastIndexOf("/") + 1);
}

/** Array and nodes. */
export class Model {
  readonly volumes: Volume[] = [];
  /** By node, then by the name of the way: `vm-100-disk-0`, `vm-100-disk-0@s1`. */
  readonly links: ReadonlyMap<string, Map<string, Link>>;
  /** Names that once meant a volume, and mean none now. */
  readonly stale = new Set<string>();
  #written = 0;

  constructor(readonly nodes: readonly string[]) {
    this.links = new Map(nodes.map((node) => [node, new Map()]));
  }

  /** The ways of a node. */
  linksOf(node: string): Map<string, Link> {
    const links = this.links.get(node);
    if (links === undefined) throw new Error(`no node ${node}`);
    return links;
  }

  /** The volume of this zvol. */
  byZvol(zvol: string): Volume | undefined {
    return this.volumes.find((volume) => volume.zvol === zvol);
  }

  /** Fails unless this is a name for a new disk of the guest: which number is the storage's choice. */
  checkNew(zvol: string, kind: "vm" | "base", vmid: number): void {
    assertMatch(zvol, new RegExp(`^${kind}-${vmid}-disk-\\d+$`));
    assertEquals(this.byZvol(zvol), undefined, `${zvol} is another volume's name`);
  }

  /** Something that was never written before. */
  newContent(): string {
    return `content ${++this.#written}`;
  }

  /** A new volume; its name may be one that was stale until now. */
  add(volume: Pick<Volume, "volname" | "zvol" | "size" | "content" | "origin">): Volume {
    const made = { ...volume, snapshots: [], openOn: new Set<string>() };
    this.volumes.push(made);
    this.stale.delete(plain(volume.volname));
    return made;
  }

  /** The volume goes; what leads to it on other nodes leads to nothing. */
  remove(volume: Volume, node: string): void {
    this.volumes.splice(this.volumes.indexOf(volume), 1);
    this.stale.add(plain(volume.volname));
    for (const snapshot of volume.snapshots) this.stopReading(volume, snapshot, node);
    this.linksOf(node).delete(volume.zvol);
    for (const links of this.links.values()) {
      for (const [name, link] of links) {
        if (link.volume === volume) links.set(name, { volname: link.volname, volume: undefined });
      }
    }
  }

  /** The volume gets another name, number and content staying. */
  rename(volume: Volume, zvol: string, volname: string, node: string): void {
    this.linksOf(node).delete(volume.zvol);
    this.stale.add(plain(volume.volname));
    volume.zvol = zvol;
    volume.volname = volname;
    this.stale.delete(plain(volname));
  }

  /** Whether this node has a way to the volume that leads there. */
  isLinked(volume: Volume, node: string): boolean {
    return this.linksOf(node).get(volume.zvol)?.volume === volume;
  }

  startReading(volume: Volume, snapshot: Snapshot, node: string): void {
    snapshot.readers.add(node);
    this.linksOf(node).set(`${volume.zvol}@${snapshot.name}`, {
      volname: plain(volume.volname),
      volume,
      snapshot,
    });
  }

  stopReading(volume: Volume, snapshot: Snapshot, node: string): void {
    snapshot.readers.delete(node);
    this.linksOf(node).delete(`${volume.zvol}@${snapshot.name}`);
  }

  /** Linked clones of a snapshot. */
  clonesOf(snapshot: Snapshot): Volume[] {
    return this.volumes.filter((volume) => volume.origin?.snapshot === snapshot);
  }

  /** Whether clones hang on the snapshot, those by which other nodes read it included. */
  hasDependents(snapshot: Snapshot, node: string): boolean {
    return this.clonesOf(snapshot).length > 0 ||
      [...snapshot.readers].some((reader) => reader !== node);
  }

  /** What array and nodes hold, in the lines of `tests/contract/picture.ts`. */
  lines(): string[] {
    const lines: string[] = [];
    for (const { zvol, size, origin, snapshots } of this.volumes) {
      const of = origin === undefined
        ? ""
        : `, clone of ${origin.volume.zvol}@${origin.snapshot.name}`;
      lines.push(`${zvol} ${size}M exported${of}`);
      for (const { name, readers } of snapshots) {
        lines.push(`${zvol}@${name}`);
        for (const _ of readers) lines.push(`reader of ${zvol}@${name}, exported`);
      }
    }
    for (const [node, links] of this.links) {
      for (const name of links.keys()) lines.push(`${name} linked on ${node}`);
    }
    return lines.sort();
  }

  /** What a listing must say. */
  rows(): { volid: string; size: number; vmid: number; parent?: string }[] {
    return this.volumes.map(({ volname, zvol, size, origin }) => ({
      volid: `san:${volname}`,
      size: size * (1 << 20),
      vmid: Number(zvol.split("-")[1]),
      // PVE knows a clone as that of a base only when it was made of one.
      ...(origin?.snapshot.name === BASE_SNAPSHOT ? { parent: plain(origin.volume.volname) } : {}),
    })).sort((a, b) => a.volid < b.volid ? -1 : 1);
  }
}
