/** Where one case is played: two guests of its own, in a place that other cases have used before. */
import { assertEquals } from "@std/assert";
import { formatVolumeName, parseVolumeName } from "../../src/pve/volume_name.ts";
import type { Place, Reply } from "../support/place.ts";
import { type Picture, pictureOf } from "./picture.ts";

/** Retries of reads shall not be what the tests wait for. */
const CONFIG = { "tnb-api-retry-delay": 0.1 };

/** Guests of all stages of a place: no two share one. */
let nextGuest = 100;

/** One case's stage. */
export class Stage {
  /** The first guest, `A` in the lines of a picture. */
  readonly a: number;
  /** The second guest, `B`. */
  readonly b: number;

  constructor(readonly place: Place) {
    this.a = nextGuest++;
    this.b = nextGuest++;
  }

  /** Asks the hook; a minute is more than anything takes here. */
  async ask(
    method: string,
    args: Record<string, unknown> = {},
    options: { deadlineMs?: number } = {},
  ): Promise<Reply> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`${method}: not over after a minute`)), 60_000);
    });
    try {
      return await Promise.race([
        this.place.ask(method, args, { config: CONFIG, ...options }),
        late,
      ]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** As {@link ask}, for what must succeed. */
  // deno-lint-ignore no-explicit-any
  async must(method: string, args: Record<string, unknown> = {}): Promise<any> {
    const reply = await this.ask(method, args);
    if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
    return reply.result;
  }

  /** A volume of 1 MiB of the first guest; gives its name. */
  async alloc(name: string | null = null): Promise<string> {
    return await this.must("alloc_image", { vmid: this.a, format: "raw", name, sizeKiB: 1024 });
  }

  /** The same with a snapshot `one`. */
  async allocWithSnapshot(): Promise<string> {
    const volname = await this.alloc();
    await this.must("volume_snapshot", { volname, snapshot: "one" });
    return volname;
  }

  /** A template of the first guest; gives its name. */
  async base(): Promise<string> {
    return await this.must("create_base", { volname: await this.alloc() });
  }

  /** `vm-A-disk-0` as it is called here. */
  named(line: string): string {
    return line.replaceAll("-A-", `-${this.a}-`).replaceAll("-B-", `-${this.b}-`);
  }

  /** The name that PVE must know the zvol `vm-A-disk-0` by: with the number or uuid it has now. */
  volname(lettered: string): string {
    const zvol = this.named(lettered);
    const path = `zvol/${this.place.simulator.ready.dataset}/${zvol}`;
    const { extents, mappings, namespaces } = this.place.simulator.objects();
    if (this.place.transport === "iscsi") {
      const extent = extents.find((row) => row.path === path);
      const mapping = mappings.find((row) => row.extent === extent?.id);
      return formatVolumeName({ zvol, tag: { kind: "lun", lun: Number(mapping?.lunid) } });
    }
    const row = namespaces.find((row) => row.device_path === path);
    return formatVolumeName({ zvol, tag: { kind: "namespace", uuid: String(row?.device_uuid) } });
  }

  /** A name of the same zvol with a number or uuid that it once had, but has no more. */
  stale(volname: string): string {
    const name = parseVolumeName(volname);
    return name.tag?.kind === "lun"
      ? formatVolumeName({ zvol: name.zvol, tag: { kind: "lun", lun: (name.tag.lun + 1) % 16000 } })
      : formatVolumeName({
        zvol: name.zvol,
        tag: { kind: "namespace", uuid: crypto.randomUUID() },
      });
  }

  /** What array and nodes hold now. */
  async picture(): Promise<Picture> {
    return await pictureOf(this.place, { A: this.a, B: this.b });
  }

  /** Fails unless this stage holds these lines, and everything else is as it was. */
  async mustHold(lines: readonly string[], others: string, when: string): Promise<void> {
    const now = await this.picture();
    assertEquals(now.ours, [...lines].sort(), when);
    if (now.others !== others) assertEquals(JSON.parse(now.others), JSON.parse(others), when);
  }
}
