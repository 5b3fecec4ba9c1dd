/**
 * One call from its name and parameters to its result: existence, login, rate limit, rights,
 * arguments, faults on demand, jobs.
 */

import type { Json } from "./json.ts";
import { CallError, RpcError } from "./errors.ts";
import type { Fault } from "./faults.ts";
import { pause } from "./latency.ts";
import type { Method } from "./methods.ts";
import { bulkMissing, findMethod, inDialect } from "./methods.ts";
import { checkedArguments } from "./models/arguments.ts";
import type { RateLimit } from "./rate_limit.ts";
import type { Dialect } from "./release.ts";
import type { Call } from "./services/service.ts";
import type { Session } from "./session.ts";
import type { Sim } from "./sim.ts";

export interface Request {
  readonly method: string;
  readonly params: Json[];
  readonly id: Json;
}

/** Cuts the connection instead of an answer, or leaves it without one. */
export class NoAnswer extends Error {
  constructor(readonly cut: boolean) {
    super("no answer");
  }
}

export class Dispatcher {
  constructor(
    private readonly sim: Sim,
    private readonly session: Session,
    private readonly dialect: Dialect,
    private readonly limit: RateLimit,
  ) {}

  /** @throws what becomes the answer's error, or {@link NoAnswer}. */
  async run(request: Request): Promise<Json> {
    this.sim.stats.count(request.method);
    const fault = this.sim.faults.next(request.method);
    if (fault?.do === "expire") this.session.expire();
    await pause(this.sim.latency.call);
    const method = findMethod(request.method, this.sim.release, this.dialect);
    await this.admit(request.method, method);
    if (fault === undefined) return await this.perform(request, method);
    return await this.faulty(fault, request, method);
  }

  private async faulty(fault: Fault, request: Request, method: Method): Promise<Json> {
    switch (fault.do) {
      case "cut":
        throw new NoAnswer(true);
      case "expire":
        // Only what needs no login comes here.
        return await this.perform(request, method);
      case "result":
        return fault.result ?? null;
      case "error":
        throw new CallError(fault.message ?? "Injected fault", fault.errno ?? 14);
      case "delay":
        await pause(fault.ms ?? 0);
        return await this.perform(request, method);
      case "hold":
        await this.sim.faults.hold(fault.method);
        return await this.perform(request, method);
      case "drop-reply":
      case "done-then-drop":
        await this.perform(request, method).catch(() => null);
        throw new NoAnswer(fault.do === "done-then-drop");
    }
  }

  /** Login, rate limit and rights; they come before any look at the parameters. */
  private async admit(name: string, { model, internal }: Method): Promise<void> {
    const { session } = this;
    if (session.user === undefined) {
      if (!model.open) throw new CallError("Not authenticated", 207);
      if (name !== "core.set_options" && !this.limit.admit(name, session.address)) {
        await pause(this.sim.latency.rateLimit());
        throw new CallError("Rate Limit Exceeded", 16);
      }
      return;
    }
    if (!allowed(session, model.granted, model.open, internal)) {
      throw new CallError("Not authorized", 13);
    }
  }

  private async perform(request: Request, method: Method): Promise<Json> {
    const { model } = method;
    if (!model.job) return await this.invoke(request, method, () => {});
    const lock = model.lock?.replace(
      /\{params\[(\d+)\]\}/g,
      (_whole, index: string) => String(request.params[Number(index)]),
    );
    const description = request.method === "core.bulk" ? request.params[2] : undefined;
    const job = this.sim.jobs.start(
      this.session,
      {
        method: request.method,
        params: request.params,
        messageId: request.id,
        ...(lock === undefined ? {} : { lock }),
        ...(description === undefined ? {} : { description }),
      },
      (progress) => this.invoke(request, method, progress),
    );
    // 25.04 does not know the option and always answers with the number.
    const legacy = this.session.options.legacy_jobs || this.sim.release.major === 2504;
    return legacy ? job.id : await job.finished;
  }

  private async invoke(
    request: Request,
    method: Method,
    progress: Call["progress"],
  ): Promise<Json> {
    const args = checkedArguments(method.model, request.params, method.table, this.sim.release);
    if (request.method === "core.bulk") this.checkBulk(String(args[0]));
    const call: Call = {
      sim: this.sim,
      session: this.session,
      dialect: this.dialect,
      method: request.method,
      messageId: request.id,
      progress,
      invoke: (name, params) => this.nested(name, params, request.id),
    };
    return inDialect(request.method, await method.handler(call, args), this.dialect);
  }

  /** A call inside `core.bulk`: same rights, no rate limit, a job is waited for. */
  private async nested(name: string, params: Json[], id: Json): Promise<Json> {
    this.sim.stats.count(name);
    const method = findMethod(name, this.sim.release, this.dialect);
    return await this.invoke({ method: name, params, id }, method, () => {});
  }

  private checkBulk(name: string): void {
    let method: Method;
    try {
      method = findMethod(name, this.sim.release, this.dialect);
    } catch (error) {
      if (error instanceof RpcError) throw bulkMissing(name, this.sim.release);
      throw error;
    }
    const { granted, open } = method.model;
    if (!allowed(this.session, granted, open, method.internal)) {
      throw new CallError("Not authorized", 1);
    }
  }
}

const ANYBODY = "(any logged-in user)";

function allowed(
  session: Session,
  granted: readonly string[] | undefined,
  open: boolean | undefined,
  internal: boolean,
): boolean {
  if (session.fullAdmin) return true;
  if (internal) return false;
  return open === true || granted?.includes(ANYBODY) === true || session.has(granted);
}
