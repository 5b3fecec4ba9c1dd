/** Replays recorded conversations against a simulator and tells where it answers otherwise. */

import { readFileSync } from "node:fs";
import { noDataSide, ZvolBusyError } from "../../src/simulator/exports.ts";
import type { DataSide } from "../../src/simulator/exports.ts";
import type { ReleaseName, Simulator, SimulatorOptions } from "../../src/simulator/simulator.ts";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { Client } from "./client.ts";
import type { Any } from "./client.ts";

const FOLDER = new URL("../fixtures/truenas/transcripts/", import.meta.url);

export interface Differing {
  readonly seq: number;
  readonly what: string;
  readonly expected: string;
  readonly actual: string;
}

export interface Outcome {
  readonly matched: number;
  readonly compared: number;
  /** Sent, but without a recorded answer to compare with. */
  readonly keptBack: number;
  readonly differing: Differing[];
}

/** Values that are random or local: only their type is compared. */
const VOLATILE = new Set([
  "device_uuid",
  "device_nguid",
  "guid",
  "serial",
  "naa",
  "login_id",
  "createtxg",
  "objsetid",
  "$date",
  "creation",
  "basenqn",
  "message_ids",
  "exception",
  "truenas",
  "available",
  "refreservation",
  "written",
]);
const isVolatile = (key: string) => VOLATILE.has(key) || key.startsWith("used");
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const kind = (value: Any): string =>
  value === null ? "null" : Array.isArray(value) ? "list" : typeof value;

/** The first difference between a recorded value and an answer; undefined when there is none. */
export function difference(expected: Any, actual: Any, at = "", loose = false): string | undefined {
  if (kind(expected) !== kind(actual)) return `${at}: ${kind(expected)} is ${kind(actual)}`;
  if (Array.isArray(expected)) {
    if (expected.length !== actual.length) {
      return `${at}: ${expected.length} is ${actual.length} long`;
    }
    for (let index = 0; index < expected.length; index += 1) {
      const found = difference(expected[index], actual[index], `${at}.${index}`, loose);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (kind(expected) === "object") {
    const missing = Object.keys(expected).filter((key) => !(key in actual));
    const extra = Object.keys(actual).filter((key) => !(key in expected));
    if (missing.length + extra.length > 0) return `${at}: lacks [${missing}], has [${extra}]`;
    for (const key of Object.keys(expected)) {
      const free = loose || isVolatile(key);
      const found = difference(expected[key], actual[key], `${at}.${key}`, free);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (loose || Object.is(expected, actual)) return undefined;
  if (UUID.test(expected) && UUID.test(actual)) return undefined;
  return `${at}: ${JSON.stringify(expected)} is ${JSON.stringify(actual)}`;
}

/** Random numbers inside a text of the database. */
const steady = (text: Any) =>
  typeof text === "string" ? text.replace(/'[0-9a-f]{20}'/g, "'<serial>'") : text;

function answerDifference(expected: Any, actual: Any): string | undefined {
  if (actual?.close_code !== undefined || expected.close_code !== undefined) {
    return difference(expected, actual);
  }
  if ("result" in expected) {
    return "result" in actual
      ? difference(expected.result, actual.result)
      : `answered ${JSON.stringify(actual.error).slice(0, 300)}`;
  }
  const [want, have] = [expected.error, actual.error];
  if (have === undefined) return `no error, but ${JSON.stringify(actual.result).slice(0, 200)}`;
  const core = ({ code, message, data }: Any) => ({
    code,
    message,
    ...(data === undefined ? {} : {
      error: data.error,
      errname: data.errname,
      reason: steady(data.reason),
      extra: data.extra,
      class: data.trace?.class ?? null,
      trace: data.trace === null ? null : Object.keys(data.trace).sort(),
    }),
  });
  return difference(core(want), core(have));
}

/** A data side that a test can give a session or a busy zvol. */
interface Stage extends DataSide {
  session: string | undefined;
  busy: boolean;
}

function stage(): Stage {
  const nobody = noDataSide();
  return {
    ...nobody,
    session: undefined,
    busy: false,
    sessions() {
      const { session } = this;
      return {
        iscsi: session === undefined
          ? []
          : [{ iqn: session, initiator: "iqn.1993-08.org.debian:01:abc", address: "192.0.2.99" }],
        nvmet: [],
      };
    },
    destroyZvol() {
      return this.busy ? Promise.reject(new ZvolBusyError("busy")) : Promise.resolve();
    },
  };
}

class Replay {
  private readonly clients = new Map<string, Client>();

  constructor(
    private readonly simulator: Simulator,
    private readonly stage: Stage,
    private readonly old: boolean,
  ) {}

  async client(name: string): Promise<Client> {
    const known = this.clients.get(name);
    if (known !== undefined) return known;
    const client = await Client.open(this.simulator.ready.port);
    this.clients.set(name, client);
    // Only the second administrator has no login of its own in the record.
    if (name === "admin-2") {
      const key = this.simulator.ready.users?.truenas_admin ?? "";
      await client.login("truenas_admin", key);
    }
    return client;
  }

  /** Brings about what the note says, and the calls whose records were not kept. */
  async prepare(record: Any): Promise<void> {
    const note: string = record.note ?? "";
    this.stage.session = note.includes("session to the target is simulated")
      ? "iqn.2005-10.org.freenas.ctl:t1"
      : undefined;
    this.stage.busy = note.includes("busy simulated");
    await this.simulator.setService("nvmet", note.includes('"running" simulated'));
    const snapshots = this.old ? "zfs.snapshot.create" : "pool.snapshot.create";
    const first = JSON.stringify(record.params ?? []);
    const admin = () => this.client("admin");
    if (record.method === "pool.dataset.destroy_snapshots" && first.includes('"a1"')) {
      for (const name of ["a1", "a2", "a3"]) {
        await (await admin()).send(snapshots, [{ dataset: "tank/vm-2", name }]);
      }
    }
    if (record.method === "pool.dataset.delete" && first === '["tank/thick"]') {
      await (await admin()).send(snapshots, [{ dataset: "tank/thick", name: "k1" }]);
    }
    if (
      record.method === "iscsi.extent.create" && first.includes('"f1"') && first.includes("none")
    ) {
      const found = await (await admin()).call("iscsi.extent.query", [["name", "=", "nt"]]);
      await (await admin()).send("iscsi.extent.delete", [found[0].id]);
    }
    if (note === "before the cascade") {
      const extent = { name: "cas", type: "DISK", disk: "zvol/tank/vm-2" };
      await (await admin()).send("iscsi.extent.create", [extent]);
    }
  }

  async answer(record: Any): Promise<Any> {
    const client = await this.client(record.conn);
    if (record.request_text !== undefined) return await this.frame(client, record.request_text);
    const note: string = record.note ?? "";
    const crowd = /^(\d+) calls sent at once/.exec(note);
    if (crowd !== null) {
      const calls = Array.from(
        { length: Number(crowd[1]) },
        () => client.send(record.method, record.params),
      );
      const refused = (await Promise.all(calls)).filter((answer) => answer.error !== undefined);
      return refused.length === 6
        ? refused[0]
        : { error: { code: 0, message: `${refused.length}` } };
    }
    if (/^call 21 /.test(note)) {
      for (let call = 2; call < 21; call += 1) await client.send(record.method, record.params);
    }
    return await client.send(record.method, record.params);
  }

  private async frame(client: Client, text: string): Promise<Any> {
    const size = /^<(\d+) characters>$/.exec(text);
    if (size !== null) return await client.raw("x".repeat(Number(size[1])));
    if (text === "<binary frame>") return await client.raw(new Uint8Array([1, 2, 3]));
    if (!text.includes('"id"') && text.includes('"no.such"')) {
      client.raw(text).catch(() => {});
      // Answers come in order here, so an answer to it would come before this one's.
      const next = await client.raw('{"jsonrpc":"2.0","id":"after","method":"core.ping"}');
      return next.id === "after" ? null : next;
    }
    return await client.raw(text);
  }

  notification(record: Any): Any {
    const wanted = record.notification.params;
    const kindOf = (params: Any) =>
      [params.collection, params.msg, params.fields?.state ?? ""].join(" ");
    const all = [...this.clients.get(record.conn)?.notifications ?? []];
    return all.find(({ params }) => kindOf(params) === kindOf(wanted));
  }

  close(): void {
    for (const client of this.clients.values()) client.close();
  }
}

/** Sends every record in order and compares those that have an answer. */
export async function replay(
  file: string,
  release: ReleaseName,
  options: SimulatorOptions = {},
): Promise<Outcome> {
  const text = readFileSync(new URL(file, FOLDER), "utf8");
  const records: Any[] = text.split("\n").filter((line) => line !== "").map((line) =>
    JSON.parse(line)
  );
  const side = stage();
  const simulator = await startSimulator({
    ...options,
    empty: true,
    release,
    dataSide: () => side,
  });
  const run = new Replay(simulator, side, release === "25.04");
  const differing: Differing[] = [];
  let compared = 0;
  let keptBack = 0;
  try {
    for (const record of records) {
      if (record.conn === undefined) continue;
      const what = record.method ?? record.request_text ?? "notification";
      let found: string | undefined;
      let actual: Any;
      if (record.notification !== undefined) {
        actual = run.notification(record);
        found = actual === undefined
          ? "never sent"
          : difference(record.notification.params, actual.params);
      } else {
        await run.prepare(record);
        actual = await run.answer(record);
        if (record.kept_back) {
          keptBack += 1;
          kept.push({ seq: record.seq, record, actual });
          continue;
        }
        found = record.response === null
          ? (actual === null ? undefined : "answered")
          : answerDifference(record.response, actual);
      }
      compared += 1;
      if (found === undefined) continue;
      differing.push({
        seq: record.seq,
        what: `${what} ${JSON.stringify(record.params ?? "")}`.slice(0, 160),
        expected: found,
        actual: JSON.stringify(actual ?? null).slice(0, 400),
      });
    }
  } finally {
    run.close();
    await simulator.stop();
  }
  return { matched: compared - differing.length, compared, keptBack, differing };
}

/** Answers to the records without one, for a look by eye. */
export const kept: { seq: number; record: Any; actual: Any }[] = [];
