/** Writes down what is remembered, as often as it is worth it. */
import type { MemorizedStorage } from "../pve/hook.ts";
import { tagOf } from "../transport/transport.ts";
import { type Kept, writeKept } from "./memory_file.ts";

/** Least time between two writings, when volumes came or went, and when only figures changed. */
const PAUSE_MS = 60_000;
const FIGURES_MS = 600_000;
/** Bytes a second that it may cost on average. */
const BYTES = 10_000;
/** Time for the last writing. */
const LAST_MS = 5_000;

/** The file of one storage's memory. */
export class Keeping {
  readonly #storage: MemorizedStorage;
  readonly #failed: (error: unknown) => void;
  #atMs = -Infinity;
  #bytes = 0;
  /** The volumes that were written last. */
  #as: string | undefined;
  #writing: Promise<void> = Promise.resolve();

  /** @param failed told why a writing failed. */
  constructor(storage: MemorizedStorage, failed: (error: unknown) => void) {
    this.#storage = storage;
    this.#failed = failed;
  }

  /** Writes when it is time to. @param kept asked only then. */
  keep(kept: () => Kept): void {
    const nowMs = this.#storage.host.monotonicMs();
    if (nowMs - this.#atMs < Math.max(PAUSE_MS, this.#bytes / BYTES * 1_000)) return;
    const what = kept();
    const as = volumesIn(what);
    if (as === this.#as && nowMs - this.#atMs < FIGURES_MS) return;
    this.#write(what, as);
  }

  /** Writes for the last time, when volumes came or went since; bounded. */
  async end(kept: Kept | undefined): Promise<void> {
    if (kept !== undefined && volumesIn(kept) !== this.#as) this.#write(kept, volumesIn(kept));
    const enough = new AbortController();
    const { host } = this.#storage;
    await Promise.race([this.#writing, host.wait(LAST_MS, enough.signal).catch(() => {})]);
    enough.abort();
  }

  #write(kept: Kept, as: string): void {
    const { host } = this.#storage;
    this.#atMs = host.monotonicMs();
    this.#as = as;
    this.#writing = this.#writing.then(async () => {
      try {
        this.#bytes = await writeKept(host.files, this.#storage, kept, host.randomUuid());
      } catch (error) {
        this.#failed(error);
      }
    });
  }
}

function volumesIn({ found }: Kept): string {
  return found.exports.map((one) => `${one.zvol} ${JSON.stringify(tagOf(one.identity))}`).join();
}
