/** Jobs: work that answers with a number at once and can be watched. The last 1,000 are kept. */

import type { Json, JsonObject } from "./json.ts";
import { date } from "./json.ts";
import { describe, errorText } from "./errors.ts";
import { Queue } from "./queue.ts";
import type { Session } from "./session.ts";
import type { Sim } from "./sim.ts";

const KEPT = 1000;

/** The work of a job; it may tell how far it is. */
export type JobWork = (progress: (percent: number, description?: string) => void) => Promise<Json>;

export interface Job {
  readonly id: number;
  readonly owner: string;
  /** Settles as the work does; never rejects unhandled. */
  readonly finished: Promise<Json>;
  row(): JsonObject;
}

export class Jobs {
  private readonly jobs = new Map<number, Job>();
  private readonly locks = new Map<string, Queue>();
  private lastId = 0;

  constructor(private readonly sim: Sim) {}

  get(id: number): Job | undefined {
    return this.jobs.get(id);
  }

  all(): Job[] {
    return [...this.jobs.values()];
  }

  start(
    session: Session,
    call: { method: string; params: Json[]; messageId: Json; lock?: string; description?: Json },
    work: JobWork,
  ): Job {
    const { sim } = this;
    this.lastId += 1;
    const started = sim.now() / 1000;
    const fields: JsonObject = {
      id: this.lastId,
      ...(sim.release.major === 2504 ? {} : { message_ids: [call.messageId] }),
      method: call.method,
      arguments: call.params,
      transient: false,
      description: call.description ?? null,
      abortable: false,
      logs_path: null,
      logs_excerpt: null,
      progress: { percent: 0, description: "", extra: null },
      result: null,
      result_encoding_error: null,
      error: null,
      exception: null,
      exc_info: null,
      state: "WAITING",
      time_started: date(started),
      time_finished: null,
      credentials: session.credentials(),
    };
    const owner = session.user?.name ?? "";
    const tell = (msg: "added" | "changed") =>
      sim.emit({
        msg,
        collection: "core.get_jobs",
        id: Number(fields.id),
        fields: { ...fields },
        owner,
      });
    const run = async (): Promise<Json> => {
      fields.state = "RUNNING";
      tell("changed");
      const progress = (percent: number, description = "") => {
        fields.progress = { percent, description, extra: null };
      };
      try {
        const result = await work(progress);
        const now = fields.progress as JsonObject;
        fields.progress = { ...now, percent: 100 };
        fields.result = result;
        fields.state = "SUCCESS";
        return result;
      } catch (error) {
        const { kind, errno, repr, extra } = describe(error);
        fields.error = errorText(error);
        fields.exception = `Traceback (most recent call last):\n${kind}: ${errorText(error)}`;
        fields.exc_info = { repr, type: kind, errno, extra };
        fields.state = "FAILED";
        throw error;
      } finally {
        fields.time_finished = date(sim.now() / 1000);
        tell("changed");
      }
    };
    tell("added");
    const finished = call.lock === undefined
      ? Promise.resolve().then(run)
      : this.lock(call.lock).run(run);
    finished.catch(() => {});
    const job = { id: this.lastId, owner, finished, row: () => ({ ...fields }) };
    this.jobs.set(job.id, job);
    if (this.jobs.size > KEPT) this.jobs.delete([...this.jobs.keys()][0] ?? 0);
    return job;
  }

  private lock(name: string): Queue {
    const queue = this.locks.get(name) ?? new Queue();
    this.locks.set(name, queue);
    return queue;
  }
}
