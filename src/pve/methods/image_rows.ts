/**
 * The rows of `list_images`, as JSON that is ready to be sent: written once for each listing, because a
 * daemon gives the same listing to every process of the node until something changes.
 */
import type { ListedVolume } from "../../volumes/list.ts";
import { formatVolumeName, isCloudInit, ownerOf } from "../volume_name.ts";

/** One volume with a guest's name. */
interface ImageRow {
  readonly volume: ListedVolume;
  readonly owner: number;
  /** The row in JSON, under the volume's first name. */
  readonly text: string;
}

/** Which rows are asked for. */
export interface WantedImages {
  readonly vmid?: number | undefined;
  /** With the storage's name in front; it alone counts when it is given. */
  readonly volids?: ReadonlySet<string> | undefined;
}

/** Rows of listings that were written already. */
const WRITTEN = new WeakMap<readonly ListedVolume[], ImageRows>();

/** All rows of a listing. */
export class ImageRows {
  readonly #storage: string;
  readonly #rows: readonly ImageRow[];
  #all: string | undefined;
  #byOwner: Map<number, ImageRow[]> | undefined;
  #byName: Map<string, number> | undefined;

  private constructor(storage: string, volumes: readonly ListedVolume[]) {
    this.#storage = storage;
    this.#rows = volumes.flatMap((volume) => {
      const owner = ownerOf(volume.zvol);
      if (owner === undefined) return [];
      return [{ volume, owner, text: rowText(storage, volume, owner, firstName(volume)) }];
    });
  }

  /** The rows of a listing; the same again for the same listing. */
  static of(storage: string, volumes: readonly ListedVolume[]): ImageRows {
    const written = WRITTEN.get(volumes) ?? new ImageRows(storage, volumes);
    WRITTEN.set(volumes, written);
    return written;
  }

  /** A JSON array of the rows that are asked for, in the listing's order. */
  json({ vmid, volids }: WantedImages): string {
    if (volids !== undefined) return listOf(this.#named(volids));
    if (vmid !== undefined) return listOf((this.#owners().get(vmid) ?? []).map((row) => row.text));
    this.#all ??= listOf(this.#rows.map((row) => row.text));
    return this.#all;
  }

  /** PVE looks for what it asked for: a cloud-init volume in the form that the configuration has. */
  #named(volids: ReadonlySet<string>): string[] {
    const prefix = `${this.#storage}:`;
    const names = this.#names();
    const found = new Set<number>();
    for (const volid of volids) {
      const index = volid.startsWith(prefix) ? names.get(volid.slice(prefix.length)) : undefined;
      if (index !== undefined) found.add(index);
    }
    return [...found].sort((a, b) => a - b).flatMap((index) => {
      const row = this.#rows[index];
      if (row === undefined) return [];
      if (!isCloudInit(row.volume.zvol)) return [row.text];
      const asked = namesOf(row.volume).find((name) => volids.has(prefix + name));
      return [rowText(this.#storage, row.volume, row.owner, asked ?? firstName(row.volume))];
    });
  }

  #owners(): Map<number, ImageRow[]> {
    if (this.#byOwner !== undefined) return this.#byOwner;
    const owners = new Map<number, ImageRow[]>();
    for (const row of this.#rows) {
      const rows = owners.get(row.owner);
      if (rows === undefined) owners.set(row.owner, [row]);
      else rows.push(row);
    }
    return this.#byOwner = owners;
  }

  #names(): Map<string, number> {
    this.#byName ??= new Map(
      this.#rows.flatMap(({ volume }, index) =>
        namesOf(volume).map((name): [string, number] => [name, index])
      ),
    );
    return this.#byName;
  }
}

/** The order of the keys is the one that the shim reads fastest. */
function rowText(storage: string, volume: ListedVolume, owner: number, name: string): string {
  return JSON.stringify({
    volid: `${storage}:${name}`,
    size: volume.size,
    format: "raw",
    vmid: owner,
    ctime: volume.created,
    ...(volume.base === undefined ? {} : { parent: formatVolumeName(volume.base) }),
    ...(volume.notes === "" ? {} : { notes: volume.notes }),
    ...(volume.protected ? { protected: 1 } : {}),
  });
}

function listOf(texts: readonly string[]): string {
  return `[${texts.join(",")}]`;
}

function firstName(volume: ListedVolume): string {
  return namesOf(volume)[0] ?? volume.zvol;
}

/** All names that mean a volume, the one that it is listed by first. */
function namesOf(volume: ListedVolume): string[] {
  const tagged = formatVolumeName(volume);
  if (isCloudInit(volume.zvol)) return [volume.zvol, tagged];
  return volume.base === undefined ? [tagged] : [formatVolumeName(volume, volume.base), tagged];
}
