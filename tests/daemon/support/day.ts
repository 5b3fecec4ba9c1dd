/**
 * A day of a node, told in one line of JSON: the real daemon with its real times on a clock that leaps, against a
 * simulated array over loopback. A program of its own, so that its memory and its descriptors are nobody else's.
 */
import { randomInt } from "node:crypto";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { lineLog } from "../../../src/common/log.ts";
import { startDaemon } from "../../../src/daemon/daemon.ts";
import { DAEMON_SOCKET } from "../../../src/daemon/serve.ts";
import { parseState, type State, STATUS_METHOD } from "../../../src/daemon/state.ts";
import type { Simulator } from "../../../src/simulator/simulator.ts";
import { LeapingTime } from "../../support/leaping_time.ts";
import { Place, type Reply, type TransportKind } from "../../support/place.ts";
import { writeStorageCfg } from "../state_support.ts";

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
/** Between two rounds of pvestatd. */
const POLL_MS = 10_000;
const LIST_MS = 5 * MINUTE_MS;
/** Disks that come and go each hour. */
const DISKS = 2;
/** What PVE gives a request. */
const DEADLINE_MS = 45_000;

/** What happens, at which minute of the day, and for how many minutes the array is away for it. */
const REBOOTS = [{ minute: 6 * 60 + 20, away: 3 }, { minute: 15 * 60 + 20, away: 4 }];
const OUTAGE = { minute: 19 * 60 + 20, away: 15 };
const EXPIRY_MINUTE = 10 * 60 + 20;
const NEW_KEY_MINUTE = 22 * 60 + 20;

/** What the node looks like after an hour. */
export interface HourFigures {
  /** Bytes in use after a collection. */
  readonly heap: number;
  readonly descriptors: number;
}

/** How the day went. */
export interface DayReport {
  /** Simulated. */
  readonly hours: number;
  readonly polls: number;
  /** Minutes of the day in which PVE was told that the storage is inactive. */
  readonly inactiveMinutes: readonly number[];
  /** When the array was away: from one minute to another. */
  readonly away: readonly (readonly [from: number, to: number])[];
  /** Requests that failed, while the array was there. */
  readonly failed: readonly string[];
  readonly made: number;
  readonly logins: number;
  readonly calls: number;
  readonly figures: readonly HourFigures[];
  /** Names of zvols, by the end. */
  readonly zvols: readonly string[];
  readonly exports: number;
  readonly snapshots: number;
  readonly links: readonly string[];
  readonly journal: readonly string[];
  readonly state: State;
  /** Lines of the log that are no information. */
  readonly warnings: readonly string[];
  readonly lines: number;
  readonly cpuSeconds: number;
}

async function day(transport: TransportKind, hours: number): Promise<DayReport> {
  let nowMs = () => Date.now();
  /** Calls that this life of the array has answered. */
  let answered = 0;
  // As strict as a real array, by the same clock.
  await using place = await Place.start(transport, {
    // Of its own: while the array is away nobody else is to take its port.
    listen: { address: `127.24.${randomInt(256)}.${randomInt(1, 255)}`, port: 0 },
    loginLimit: 20,
    now: () => nowMs(),
    onExchange: () => answered++,
  });
  await writeStorageCfg(place);
  const { simulator, directory } = place;
  const time = new LeapingTime(directory, {
    signs: () => {
      const { bytesIn, bytesOut, connections } = simulator.stats();
      return bytesIn + bytesOut + connections;
    },
    isBusy: () => callsOf(simulator) > answered,
  });
  nowMs = () => time.nowMs();
  const { host } = time;
  const log: string[] = [];
  const daemon = await time.through(startDaemon({
    host,
    log: lineLog((line) => log.push(line), () => 0),
    setDebugLevel: () => {},
    limitLogins: true,
    // A tenth of the day's cost, and nobody reads them.
    metricsPeriodMs: MINUTE_MS,
  }));
  const node = new Day(place, time, hours, () => answered = 0);
  try {
    return { ...await time.through(node.live()), ...told(log), cpuSeconds: cpuSeconds() };
  } finally {
    await time.through(daemon.stop());
  }
}

class Day {
  readonly #startMs: number;
  readonly #endMs: number;
  readonly #inactive: number[] = [];
  readonly #away: [number, number][] = [];
  readonly #failed: string[] = [];
  readonly #figures: HourFigures[] = [];
  #polls = 0;
  #made = 0;
  /** Of the array's lives before this one. */
  #logins = 0;
  #calls = 0;

  /** @param onReset the array forgets what it has counted. */
  constructor(
    readonly place: Place,
    readonly time: LeapingTime,
    readonly hours: number,
    readonly onReset: () => void,
  ) {
    this.#startMs = time.nowMs();
    this.#endMs = this.#startMs + hours * HOUR_MS;
  }

  async live(): Promise<Omit<DayReport, "warnings" | "lines" | "cpuSeconds">> {
    // A guest that runs all day.
    const kept = await this.#must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });
    await this.#must("activate_volume", { volname: kept });
    await this.place.holdOpen(kept);
    this.time.isConnecting = false;
    await Promise.all([
      this.#every(POLL_MS, () => this.#poll()),
      this.#every(LIST_MS, () => this.#list()),
      this.#every(HOUR_MS, (hour) => this.#work(hour)),
      this.#events(),
    ]);
    return await this.#report();
  }

  #minute(): number {
    return (this.time.nowMs() - this.#startMs) / MINUTE_MS;
  }

  /** In step with the clock, as timers of PVE are. */
  async #every(periodMs: number, act: (nth: number) => Promise<void>): Promise<void> {
    for (let nth = 0;; nth++) {
      const atMs = this.#startMs + nth * periodMs;
      if (atMs >= this.#endMs) return;
      await this.time.wait(Math.max(0, atMs - this.time.nowMs()));
      await act(nth);
    }
  }

  async #poll(): Promise<void> {
    this.#polls++;
    const minute = this.#minute();
    if (await this.#tried("check_connection")) await this.#tried("activate_storage");
    const status = await this.#must("status");
    if (status.active !== 1) this.#inactive.push(minute);
  }

  async #list(): Promise<void> {
    await this.#tried("list_images");
  }

  /** Some disks are made, used and freed, ten minutes into the hour; at its end it is looked how the node is. */
  async #work(hour: number): Promise<void> {
    await this.time.wait(10 * MINUTE_MS);
    const names = await Promise.all(
      Array.from({ length: DISKS }, async (_, nth) => {
        const vmid = 200 + nth;
        const volname = await this.#must("alloc_image", { vmid, format: "raw", sizeKiB: 16384 });
        await this.#must("activate_volume", { volname });
        return volname;
      }),
    );
    this.#made += names.length;
    await this.#must("volume_snapshot", { volname: names[0], snapshot: "daily" });
    await this.time.wait(3 * MINUTE_MS);
    for (const [nth, volname] of names.entries()) {
      // One is let go of by the guest's end, the others by the keeper.
      if (nth === 0) {
        await this.#must("deactivate_volume", { volname });
        await this.#must("volume_snapshot_delete", { volname, snapshot: "daily" });
      }
      const { token } = await this.#must("free_image", { volname, isBase: 0 });
      await this.#must("free_image_finish", { token });
    }
    await this.time.wait(Math.max(0, (hour + 1) * HOUR_MS - this.#minute() * MINUTE_MS - 5_000));
    this.#figures.push(figures());
  }

  async #events(): Promise<void> {
    const { simulator, player } = this.place;
    const events: { readonly minute: number; readonly act: () => Promise<void> }[] = [
      ...REBOOTS.map(({ minute, away }) => ({ minute, act: () => this.#goAway(away) })),
      { minute: EXPIRY_MINUTE, act: () => Promise.resolve(simulator.expireSessions()) },
      {
        minute: OUTAGE.minute,
        act: async () => {
          const portals = portalsOf(this.place);
          for (const [address, port] of portals) await player.setPortalUp(address, port, false);
          await this.#goAway(OUTAGE.away);
          for (const [address, port] of portals) await player.setPortalUp(address, port, true);
        },
      },
      { minute: NEW_KEY_MINUTE, act: () => this.#newKey() },
    ];
    for (const { minute, act } of events.sort((one, other) => one.minute - other.minute)) {
      if (minute >= this.hours * 60) return;
      await this.time.wait(minute * MINUTE_MS - this.#minute() * MINUTE_MS);
      await this.#connecting(act);
    }
  }

  /** What ends sessions: the next ones are made within some minutes. */
  async #connecting(act: () => Promise<void>): Promise<void> {
    this.time.isConnecting = true;
    await act();
    await this.time.wait(3 * MINUTE_MS);
    this.time.isConnecting = false;
  }

  async #goAway(minutes: number): Promise<void> {
    const from = this.#minute();
    this.#count();
    const back = await this.place.simulator.goDown();
    await this.time.wait(minutes * MINUTE_MS);
    this.onReset();
    await back();
    this.#away.push([from, this.#minute()]);
  }

  /** An administrator makes a new key, hands it to PVE, and takes the old one away. */
  async #newKey(): Promise<void> {
    const { simulator } = this.place;
    const { users } = simulator.world;
    const user = users.get(simulator.ready.user);
    if (user === undefined) throw new Error("the array has no such user");
    const apiKey = `${user.apiKey.slice(0, -4)}rota`;
    users.set(user.name, { ...user, apiKey });
    await this.place.writeSecrets({ "tnb-api-key": apiKey });
    simulator.expireSessions();
  }

  /** Takes down what the array has counted, which a reboot forgets. */
  #count(): void {
    this.#logins += this.place.simulator.stats().logins;
    this.#calls += callsOf(this.place.simulator);
  }

  async #ask(method: string, args: Record<string, unknown> = {}): Promise<Reply> {
    const request = this.place.request(method, args, { deadlineMs: DEADLINE_MS });
    const bounds = { deadlineMs: DEADLINE_MS, maxLine: 1 << 24 };
    return JSON.parse(
      await this.time.host.askLocal(DAEMON_SOCKET, JSON.stringify(request), bounds),
    );
  }

  // deno-lint-ignore no-explicit-any
  async #must(method: string, args: Record<string, unknown> = {}): Promise<any> {
    const reply = await this.#ask(method, args);
    if (!reply.ok) {
      throw new Error(`${method}, minute ${this.#minute()}: ${JSON.stringify(reply.error)}`);
    }
    return reply.result;
  }

  /** Asks what may fail while the array is away. */
  async #tried(method: string): Promise<boolean> {
    const minute = this.#minute();
    const { ok, error } = await this.#ask(method);
    if (!ok) this.#failed.push(`${minute.toFixed(1)} ${method}: ${error?.message}`);
    return ok;
  }

  async #report(): Promise<Omit<DayReport, "warnings" | "lines" | "cpuSeconds">> {
    // What the last hour left is let go of after a minute.
    await this.time.wait(2 * MINUTE_MS);
    this.#count();
    const { zvols = [], snapshots = [], extents = [], namespaces = [] } = await this.place
      .objects();
    const root = this.place.directory;
    const names = (path: string) => [...Deno.readDirSync(path)].map(({ name }) => name).sort();
    const { result } = await this.#ask(STATUS_METHOD);
    const isAway = (text: string) =>
      this.#away.some(([from, to]) => parseFloat(text) >= from && parseFloat(text) <= to + 1);
    return {
      hours: this.hours,
      polls: this.#polls,
      inactiveMinutes: this.#inactive,
      away: this.#away,
      failed: this.#failed.filter((text) => !isAway(text)),
      made: this.#made,
      logins: this.#logins,
      calls: this.#calls,
      figures: this.#figures,
      zvols: zvols.map(({ name }) => name),
      exports: extents.length + namespaces.length,
      snapshots: snapshots.length,
      links: names(`${root}/dev/tnblock/san`),
      journal: names(`${root}/var/lib/tnblock/journal`),
      state: parseState(result),
    };
  }
}

function callsOf(simulator: Simulator): number {
  let sum = 0;
  const { calls } = simulator.stats();
  for (const method in calls) sum += calls[method] ?? 0;
  return sum;
}

function told(log: readonly string[]): Pick<DayReport, "warnings" | "lines"> {
  return { warnings: log.filter((line) => !line.startsWith("info")), lines: log.length };
}

function figures(): HourFigures {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return {
    heap: Deno.memoryUsage().heapUsed,
    descriptors: [...Deno.readDirSync("/proc/self/fd")].length,
  };
}

function cpuSeconds(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
}

/** The storage's portals as address and port. */
function portalsOf(place: Place): (readonly [string, number])[] {
  const { iscsi, nvme } = place.simulator.ready.portals;
  return (place.transport === "iscsi" ? iscsi : nvme).map((text) => {
    const at = text.lastIndexOf(":");
    return [text.slice(0, at), Number(text.slice(at + 1))] as const;
  });
}

if (import.meta.main) {
  const [transport = "nvme-tcp", hours = "24"] = Deno.args;
  const report = await day(transport as TransportKind, Number(hours));
  console.log(JSON.stringify(report));
}
