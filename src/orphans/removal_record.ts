/** The record of what a clean-up removed: one file a run, on disk before each removal begins. */
import { withContext } from "../common/error.ts";
import type { Host } from "../host/host.ts";
import type { Orphan } from "./orphan.ts";

const FOLDER = "/var/log/tnblock";

/** What became of one. */
export interface RecordedRemoval {
  readonly kind: string;
  readonly name: string;
  readonly why: string;
  readonly size: number | null;
  readonly created: string | null;
  readonly guid: string | null;
  readonly snapshots: readonly string[];
  readonly rows: Orphan["rows"];
  readonly marks: Readonly<Record<string, string>>;
  readonly begun: string;
  /** Undefined while it is being removed, and when that was never heard of. */
  readonly ended?: string;
  readonly error?: string;
}

/** One run's record. */
export class RemovalRecord {
  readonly #removals: RecordedRemoval[] = [];
  readonly path: string;
  readonly #began: string;

  constructor(
    private readonly host: Host,
    private readonly about: { readonly storage: string; readonly dataset: string },
  ) {
    this.#began = this.#time();
    const stamp = this.#began.replaceAll(/[-:]|\.\d+/g, "");
    this.path = `${FOLDER}/cleanup-${about.storage}-${stamp}-${host.randomUuid().slice(0, 8)}.json`;
  }

  #time(): string {
    return new Date(this.host.now()).toISOString();
  }

  /**
   * To be called before anything is removed.
   *
   * @throws TnblockError `host-fault` when it cannot be kept: nothing may be removed then.
   */
  async begin({ kind, name, why, size, createdMs, zvol, snapshots, rows }: Orphan): Promise<void> {
    this.#removals.push({
      ...{ kind, name, why, snapshots, rows },
      size: size ?? null,
      created: createdMs === undefined ? null : new Date(createdMs).toISOString(),
      guid: zvol?.guid ?? null,
      marks: zvol?.userProperties ?? {},
      begun: this.#time(),
    });
    try {
      await this.#write();
    } catch (error) {
      throw withContext(error, `Cannot keep a record of what is removed in ${this.path}`);
    }
  }

  /** Notes what became of the last one. Never rejects: it is done by then. */
  async end(error?: string): Promise<void> {
    const last = this.#removals.pop();
    if (last === undefined) return;
    const ended = { ended: this.#time(), ...(error === undefined ? {} : { error }) };
    this.#removals.push({ ...last, ...ended });
    await this.#write().catch(() => {});
  }

  async #write(): Promise<void> {
    const { storage, dataset } = this.about;
    const text = JSON.stringify(
      {
        ...{ schemaVersion: 1, node: this.host.nodeName, storage, dataset },
        began: this.#began,
        removals: this.#removals,
      },
      null,
      2,
    );
    await this.host.files.replaceText(this.path, `${text}\n`, 0o640, { durable: true });
  }
}
