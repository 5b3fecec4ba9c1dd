/** `core`: ping, events, options, jobs and bulk. */

import { randomUUID } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import { isObject } from "../json.ts";
import { CallError, errorText, notFound, PythonError } from "../errors.ts";
import { query } from "../filters.ts";
import { modelTable } from "../models/tables.ts";
import { object } from "./service.ts";
import type { Call, Methods } from "./service.ts";

/** Names that may be subscribed to without a query of the same name to tell the roles. */
const OTHER_EVENTS: Readonly<Record<string, readonly string[]>> = {
  "core.get_jobs": [],
  "alert.list": ["ALERT_LIST_READ", "READONLY_ADMIN"],
  "zfs.pool.scan": ["POOL_SCRUB_READ", "READONLY_ADMIN"],
  "system.ready": ["SYSTEM_GENERAL_READ", "READONLY_ADMIN"],
  "system.reboot": ["SYSTEM_GENERAL_READ", "READONLY_ADMIN"],
  "system.shutdown": ["SYSTEM_GENERAL_READ", "READONLY_ADMIN"],
  "failover.status": ["FAILOVER_READ", "READONLY_ADMIN"],
  "failover.reboot.info": ["FAILOVER_READ", "READONLY_ADMIN"],
};

function checkSubscribe(call: Call, event: string): void {
  if (event === "*" || call.session.fullAdmin) return;
  const name = event.split(":")[0] ?? event;
  const other = OTHER_EVENTS[name];
  if (other !== undefined && other.length === 0) return;
  const roles = other ?? modelTable(call.sim.release.dialect).methods.get(name)?.granted;
  if (!call.session.has(roles)) throw new CallError("Not authorized", 13);
}

/** The jobs that a user may see. */
function jobRows(call: Call): JsonObject[] {
  const name = call.session.user?.name;
  return call.sim.jobs.all().filter((job) => call.session.fullAdmin || job.owner === name)
    .map((job) => job.row());
}

/** Python's `{0[name]}` on the arguments of one call. */
function described(template: string, params: Json): string {
  return template.replace(/\{(\d+)(?:\[(\w+)\])?\}/g, (_whole, index: string, key?: string) => {
    const value = Array.isArray(params) ? params[Number(index)] : undefined;
    const inner = key === undefined ? value : isObject(value) ? value[key] : undefined;
    return typeof inner === "string" ? inner : JSON.stringify(inner ?? null);
  });
}

async function bulk(call: Call, [method, lists, description]: Json[]): Promise<Json> {
  const results: JsonObject[] = [];
  const calls = Array.isArray(lists) ? lists : [];
  for (const [index, params] of calls.entries()) {
    const text = `${index} / ${calls.length}`;
    const about = typeof description === "string" ? `: ${described(description, params)}` : "";
    call.progress(Math.floor((index / calls.length) * 100), text + about);
    const jobId = call.sim.release.major === 2504 ? {} : { job_id: null };
    try {
      const result = await call.invoke(String(method), Array.isArray(params) ? params : [params]);
      results.push({ ...jobId, error: null, result });
    } catch (error) {
      results.push({ ...jobId, error: errorText(error), result: null });
    }
  }
  return results;
}

export const core: Methods = {
  "core.ping": () => "pong",
  "core.set_options": (call, [options]) => {
    if (call.sim.release.major === 2504) return null;
    const { session } = call;
    const given = object(options);
    for (const key of ["legacy_jobs", "private_methods", "py_exceptions"] as const) {
      const value = given[key];
      if (typeof value === "boolean") session.options[key] = value;
    }
    return { ...session.options };
  },
  "core.subscribe": (call, [event]) => {
    checkSubscribe(call, String(event));
    const id = randomUUID();
    call.session.subscriptions.set(id, String(event));
    return id;
  },
  "core.unsubscribe": (call, [id]) => {
    call.session.subscriptions.delete(String(id));
    return null;
  },
  "core.get_jobs": (call, [filters, options]) =>
    query(jobRows(call), filters ?? [], object(options)),
  "core.job_wait": async (call, [id]) => {
    const job = call.sim.jobs.get(Number(id));
    if (job === undefined) throw notFound(`Job with id ${id} does not exist`);
    return await job.finished;
  },
  "core.job_abort": (call, [id]) => {
    if (call.sim.jobs.get(Number(id)) !== undefined) return null;
    if (call.sim.release.major === 2504) throw new PythonError("KeyError", `${id}`);
    throw notFound(`Job with id ${id} does not exist`);
  },
  "core.bulk": bulk,
  "core.get_methods": (call, [service]) => {
    const { methods } = modelTable(call.sim.release.dialect);
    const entries = [...methods.values()].filter(({ method }) =>
      typeof service !== "string" || method.startsWith(`${service}.`)
    );
    return Object.fromEntries(
      entries.map((
        { method, roles, job },
      ) => [method, { roles: [...roles ?? []], job: job ?? false }]),
    );
  },
};
