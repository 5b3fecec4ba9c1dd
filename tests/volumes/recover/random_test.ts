/**
 * Random lives of a few guests on a node whose processes are killed all the time: in the end every guest has its
 * disks as its configuration says, and nothing else is on the array.
 */
import { assert, assertEquals } from "@std/assert";
import {
  askUntilDeath,
  type Life,
  openEntries,
  recover,
  recoverUntilDeath,
} from "../../support/mortal.ts";
import { Place, type TransportKind } from "../../support/place.ts";
import { exportCount } from "../snapshot_support.ts";

/** A disk that a guest's configuration names. */
interface Disk {
  volname: string;
  readonly vmid: number;
  mib: number;
  readonly snapshots: Set<string>;
  /** Volumes that hang on it. */
  clones: number;
  readonly of: Disk | undefined;
}

/** A small generator, the same for a seed everywhere (mulberry32). */
function randomOf(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % limit;
  };
}

class Lives {
  readonly disks: Disk[] = [];
  readonly story: unknown[] = [];
  #next = 100;

  constructor(readonly place: Place, readonly random: (limit: number) => number) {}

  async step(): Promise<void> {
    const disk = this.disks[this.random(this.disks.length + 1)];
    if (disk === undefined || this.disks.length < 2) return await this.#alloc();
    const isBase = disk.volname.includes("base-");
    const verbs = isBase ? [() => this.#clone(disk), () => this.#free(disk)] : [
      () => this.#rename(disk),
      () => this.#base(disk),
      () => this.#snapshot(disk),
      () => this.#snapshot(disk),
      () => this.#deleteSnapshot(disk),
      () => this.#rollback(disk),
      () => this.#resize(disk),
      () => this.#free(disk),
      () => this.#use(disk),
    ];
    await verbs[this.random(verbs.length)]?.();
  }

  /** Asks in a process that lives, or dies at one of its writes; then, as a user may, once more. */
  async #ask(method: string, args: Record<string, unknown>): Promise<Life> {
    const nth = this.random(8) + 1;
    const when = this.random(2) === 0 ? "before" : "after";
    let life = await askUntilDeath(this.place, method, args, { nth, when });
    this.story.push([method, args, nth, when, life.reply ?? "killed"]);
    if (life.reply === undefined && this.random(3) === 0) {
      life = await askUntilDeath(this.place, method, args);
      this.story.push(["again", life.reply]);
    }
    if (this.random(4) === 0) {
      // The daemon is killed too.
      const isAlive = await recoverUntilDeath(this.place, { nth: this.random(4) + 1, when });
      this.story.push(["recovery", isAlive ? "lived" : "killed"]);
    }
    if (this.random(3) > 0) {
      const found = await recover(this.place);
      this.story.push([
        "recovered",
        found.map(({ op, outcome, why }) => `${op} ${outcome}: ${why}`),
      ]);
    }
    return life;
  }

  /** The guest's configuration, as PVE writes it once it has the answer. */
  async #configure(vmid: number): Promise<void> {
    const folder = `${this.place.directory}/etc/pve/nodes/pve1/qemu-server`;
    await Deno.mkdir(folder, { recursive: true });
    const lines = this.disks.filter((disk) => disk.vmid === vmid)
      .map(({ volname }, at) => `scsi${at}: san:${volname},size=64M\n`);
    await Deno.writeTextFile(`${folder}/${vmid}.conf`, lines.join(""));
  }

  async #alloc(): Promise<void> {
    const vmid = this.#next++;
    const { reply } = await this.#ask("alloc_image", { vmid, format: "raw", sizeKiB: 65536 });
    if (reply?.ok !== true) return;
    this.disks.push({
      volname: reply.result,
      vmid,
      mib: 64,
      snapshots: new Set(),
      clones: 0,
      of: undefined,
    });
    await this.#configure(vmid);
  }

  async #clone(of: Disk): Promise<void> {
    const vmid = this.#next++;
    const { reply } = await this.#ask("clone_image", { volname: of.volname, vmid });
    if (reply?.ok !== true) return;
    of.clones++;
    const volname = reply.result;
    this.disks.push({ volname, vmid, mib: of.mib, snapshots: new Set(), clones: 0, of });
    await this.#configure(vmid);
  }

  async #rename(disk: Disk): Promise<void> {
    const vmid = this.#next++;
    const { reply } = await this.#ask("rename_volume", { volname: disk.volname, targetVmid: vmid });
    if (reply?.ok !== true) return;
    this.disks[this.disks.indexOf(disk)] = { ...disk, volname: reply.result, vmid };
    await this.#configure(disk.vmid);
    await this.#configure(vmid);
  }

  async #base(disk: Disk): Promise<void> {
    if (disk.of !== undefined) return;
    const { reply } = await this.#ask("create_base", { volname: disk.volname });
    if (reply?.ok !== true) return;
    disk.volname = reply.result;
    await this.#configure(disk.vmid);
  }

  async #snapshot(disk: Disk): Promise<void> {
    const snapshot = `s${this.#next++}`;
    const { reply } = await this.#ask("volume_snapshot", { volname: disk.volname, snapshot });
    if (reply?.ok === true) disk.snapshots.add(snapshot);
  }

  async #deleteSnapshot(disk: Disk): Promise<void> {
    const [snapshot] = disk.snapshots;
    if (snapshot === undefined) return;
    const { reply } = await this.#ask("volume_snapshot_delete", {
      volname: disk.volname,
      snapshot,
    });
    if (reply === undefined || reply.ok) disk.snapshots.delete(snapshot);
  }

  async #rollback(disk: Disk): Promise<void> {
    const snapshot = [...disk.snapshots].at(-1);
    if (snapshot === undefined) return;
    await this.#ask("volume_snapshot_rollback", { volname: disk.volname, snapshot });
    // The size is that of the snapshot, or not: nobody was told.
    disk.mib = NaN;
  }

  async #resize(disk: Disk): Promise<void> {
    if (Number.isNaN(disk.mib)) return;
    const mib = disk.mib + 16;
    const { volname } = disk;
    const { reply } = await this.#ask("volume_resize", { volname, size: mib << 20, running: 0 });
    if (reply === undefined || reply.ok) disk.mib = mib;
  }

  async #free(disk: Disk): Promise<void> {
    if (disk.clones > 0) return;
    const { reply } = await this.#ask("free_image", { volname: disk.volname, finish: true });
    if (reply !== undefined && !reply.ok) return;
    // PVE has taken it out of the configuration before, or the user does once the task has failed.
    this.disks.splice(this.disks.indexOf(disk), 1);
    if (disk.of !== undefined) disk.of.clones--;
    await this.#configure(disk.vmid);
    if (reply !== undefined) return;
    await recover(this.place);
    await this.place.ask("free_image", { volname: disk.volname, finish: true });
  }

  async #use({ volname }: Disk): Promise<void> {
    // It may be in the middle of something that was killed.
    await this.place.ask("activate_volume", { volname });
    await this.place.ask("deactivate_volume", { volname });
  }
}

const end = (zvol: string) => zvol.slice(zvol.lastIndexOf("/") + 1);

const zvolOf = (volname: string) =>
  end(volname).replace(/^vol-/, "").replace(/-(?:lun\d+|ns[0-9a-f-]{36})$/, "");

/** One life; throws with its story when something is wrong in the end. */
export async function live(
  transport: TransportKind,
  release: "25.10" | "26",
  seed: number,
  steps: number,
): Promise<void> {
  await using place = await Place.start(transport, { release });
  const lives = new Lives(place, randomOf(seed));
  try {
    for (let step = 0; step < steps; step++) await lives.step();
    await recover(place);
    await recover(place);
    assertEquals(await openEntries(place), []);
    const { zvols = [], snapshots = [] } = await place.objects();
    assertEquals(
      zvols.map(({ name }) => end(name)).sort(),
      lives.disks.map(({ volname }) => zvolOf(volname)).sort(),
    );
    assertEquals(
      snapshots.map(({ name }) => end(name)).filter((name) => !name.includes("__base__")).sort(),
      lives.disks.flatMap(({ volname, snapshots }) =>
        [...snapshots].map((name) => `${zvolOf(volname)}@${name}`)
      ).sort(),
    );
    assertEquals(await exportCount(place), lives.disks.length);
    for (const { volname, mib } of lives.disks) {
      await place.must("activate_volume", { volname });
      const { size } = await place.must("volume_size_info", { volname });
      if (!Number.isNaN(mib)) assertEquals(size, mib << 20);
    }
    assert(lives.story.length > 0);
  } catch (error) {
    const story = lives.story.map((line) => JSON.stringify(line)).join("\n");
    throw new Error(`${transport}, ${release}, seed ${seed}:\n${story}\n${error}`);
  }
}

for (const [transport, release] of [["iscsi", "25.10"], ["nvme-tcp", "26"]] as const) {
  Deno.test(`${transport}, ${release}: guests keep their disks, and nothing else is left, whoever is killed`, async () => {
    for (const seed of [1, 2]) await live(transport, release, seed, 30);
  });
}
