/**
 * The contract that both protocols keep on every release: each behaviour is tried as a first call, as a
 * repeated one, with each of its writes' answers lost, with a stale name, and with a failure at each
 * of its steps. At the end of each case the array holds exactly what it should, and what is foreign
 * is untouched.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place, type Reply } from "../support/place.ts";
import { type Behaviour, linesOf } from "./behaviour.ts";
import { BEHAVIOURS } from "./behaviours/all.ts";
import { cellName, type Column } from "./column.ts";
import { plantForeign } from "./foreign.ts";
import { Stage } from "./stage.ts";

/** The codes of the protocol, without `internal`: no failure of the array is an error of ours. */
const CODES = [
  "not-found",
  "exists",
  "in-use",
  "volume-replaced",
  "not-ours",
  "no-space",
  "invalid",
  "config",
  "auth",
  "denied",
  "rate-limited",
  "unreachable",
  "tls",
  "timeout",
  "busy",
  "has-dependents",
  "unsupported",
  "array-fault",
  "host-fault",
];

const EIO = 5;

/** Array calls that change nothing. */
const READ = /\.(query|config|started|get_instance|get_jobs|get_service|version|info)$/;

/** How a behaviour is tried; the name stands in the table when it fails. */
const VARIATIONS: readonly {
  readonly name: string;
  readonly run: (play: Play) => Promise<void>;
  readonly applies: (behaviour: Behaviour) => boolean;
}[] = [
  { name: "first call", run: firstCall, applies: () => true },
  { name: "repeated call", run: repeatedCall, applies: ({ refused }) => refused === undefined },
  { name: "lost reply", run: lostReply, applies: (one) => !one.brief && one.refused === undefined },
  { name: "stale name", run: staleName, applies: ({ named = false }) => named },
  { name: "failure at each step", run: failureAtEachStep, applies: ({ brief = false }) => !brief },
];

/** Registers the tests of one column, one for each row. */
export function contract(column: Column): void {
  for (const behaviour of BEHAVIOURS) {
    if (behaviour.absent?.(column) === true) continue;
    const why = behaviour.unsupported?.(column);
    Deno.test(cellName(behaviour.row, column, why), async (test) => {
      await using place = await Place.start(column.transport, {
        release: column.release,
        through: column.byDaemon === true ? "daemon" : "hook",
      });
      await plantForeign(place);
      // What adding the storage leaves on the array is no verb's doing.
      await new Stage(place).must("validate_storage");
      const play = new Play(behaviour, column, place);
      if (why !== undefined) return await refusedAsUnsupported(play);
      for (const { name, run, applies } of VARIATIONS) {
        if (applies(behaviour)) await test.step(name, () => run(play));
      }
    });
  }
}

async function firstCall(play: Play): Promise<void> {
  const scene = await play.arrange();
  await scene.mustDo("the first call");
}

async function repeatedCall(play: Play): Promise<void> {
  const scene = await play.arrange();
  await scene.mustDo("the first call");
  await scene.mustRepeat("the second call");
}

async function staleName(play: Play): Promise<void> {
  const scene = await play.arrange();
  const volname = scene.stage.stale(String(scene.args.volname));
  const reply = await scene.stage.ask(play.behaviour.method, { ...scene.args, volname });
  assertEquals([reply.ok, reply.error?.code], [false, "volume-replaced"]);
  await scene.mustBeAsBefore("after the stale name");
  await scene.mustDo("the true name");
}

async function refusedAsUnsupported(play: Play): Promise<void> {
  const stage = new Stage(play.place);
  const args = await play.behaviour.arrange(stage);
  const before = await stage.picture();
  const reply = await stage.ask(play.behaviour.method, args);
  assertEquals([reply.ok, reply.error?.code], [false, "unsupported"]);
  assertMatch(reply.error?.message ?? "", /^Cannot /);
  await stage.mustHold(before.ours, before.others, "after the refusal");
}

/**
 * The answer to each write is lost once before the array has done anything (`cut`) and once after
 * (`done-then-drop`). Then the call has succeeded, or all is as it was and a repetition succeeds.
 */
async function lostReply(play: Play): Promise<void> {
  for (const { method, nth } of (await play.calls()).filter((call) => !READ.test(call.method))) {
    // 25.10.0 makes the calls of 25.10.6, where both are tried.
    const ways = play.column.release === "25.10.0" ? ["done-then-drop"] : ["cut", "done-then-drop"];
    for (const what of ways) {
      const scene = await play.arrange();
      const when = `${what} at ${method} (${nth})`;
      if (await scene.doWith([{ method, nth, do: what }], when)) await scene.mustRepeat(when);
      else await scene.mustDo(`${when}, once more`);
    }
  }
}

/**
 * Each array call fails once, reads too; and each reload that ends a write, which leaves its row. As
 * long as a failure leaves everything as it was, the next one is tried at the same scene.
 */
async function failureAtEachStep(play: Play): Promise<void> {
  const service = play.column.transport === "iscsi" ? "iscsitarget" : "nvmet";
  let scene: Scene | undefined;
  for (const { method, nth } of stepsOf(await play.calls(), play.column, service)) {
    scene ??= await play.arrange();
    const when = `error at ${method} (${nth})`;
    const done = await scene.doWith([{ method, nth, do: "error", errno: EIO }], when);
    // A reload that failed is made up for by the next one, whoever causes it.
    if (method.startsWith("reload.")) await play.place.simulator.setService(service, true);
    if (!done && await scene.isAsBefore()) continue;
    if (!done) await scene.mustDo(`${when}, once more`);
    scene = undefined;
  }
  await scene?.mustDo("after all failures");
}

/**
 * What is to fail: on 25.10.6 every call. The other releases differ in what they do, not in what an
 * unanswered question means: there every write, and of the reads the first and the last of each kind;
 * on 25.10.0, whose calls are those of 25.10.6, the writes alone. `TNBLOCK_CONTRACT=all` tries every call everywhere.
 */
function stepsOf(calls: readonly Step[], { release, byDaemon }: Column, service: string): Step[] {
  const writes = calls.filter((call) => !READ.test(call.method));
  const last = new Map(calls.map(({ method, nth }) => [method, nth]));
  // The daemon reads of its own accord too: which of its reads is the request's cannot be told.
  const chosen = byDaemon === true
    ? writes
    : release === "25.10" || Deno.env.get("TNBLOCK_CONTRACT") === "all"
    ? calls
    : release === "25.10.0"
    ? writes
    : calls.filter((call) =>
      writes.includes(call) || call.nth === 1 || call.nth === last.get(call.method)
    );
  return [
    ...chosen,
    ...writes.map((_, index) => ({ method: `reload.${service}`, nth: index + 1 })),
  ];
}

/** One array call of a run. */
interface Step {
  readonly method: string;
  /** Which call of this method in the run, from 1. */
  readonly nth: number;
}

/** A behaviour in its column, in one place. */
class Play {
  #calls: Promise<Step[]> | undefined;

  constructor(
    readonly behaviour: Behaviour,
    readonly column: Column,
    readonly place: Place,
  ) {}

  /** A new stage with everything the call starts from. */
  async arrange(): Promise<Scene> {
    const stage = new Stage(this.place);
    const args = await this.behaviour.arrange(stage);
    const { ours, others } = await stage.picture();
    assertEquals(ours, [...linesOf(this.behaviour.before, this.column)].sort(), "as arranged");
    return new Scene(this, stage, args, others);
  }

  /** The array calls of a run without failures. */
  calls(): Promise<Step[]> {
    return this.#calls ??= this.#record();
  }

  async #record(): Promise<Step[]> {
    const scene = await this.arrange();
    this.place.calls.length = 0;
    await scene.mustDo("a run without failures");
    const seen = new Map<string, number>();
    return this.place.calls.map((method) => {
      const nth = (seen.get(method) ?? 0) + 1;
      seen.set(method, nth);
      return { method, nth };
    });
  }
}

/** A stage with everything the call starts from. */
class Scene {
  constructor(
    readonly play: Play,
    readonly stage: Stage,
    readonly args: Record<string, unknown>,
    private readonly others: string,
  ) {}

  private get before(): readonly string[] {
    return linesOf(this.play.behaviour.before, this.play.column);
  }

  private get after(): readonly string[] {
    return linesOf(this.play.behaviour.after ?? this.play.behaviour.before, this.play.column);
  }

  private async call(): Promise<Reply> {
    return await this.stage.ask(this.play.behaviour.method, this.args);
  }

  /** Calls; fails unless it succeeds, or is refused as the behaviour says. */
  async mustDo(when: string): Promise<void> {
    await this.judge(await this.call(), when, false);
  }

  /** Calls with faults; says whether it succeeded. */
  async doWith(faults: readonly Record<string, unknown>[], when: string): Promise<boolean> {
    await this.stage.place.faults(faults);
    const reply = await this.call();
    await this.stage.place.faults([]);
    await this.judge(reply, when, true);
    return reply.ok;
  }

  private async judge(reply: Reply, when: string, mayFail: boolean): Promise<void> {
    const { refused, result } = this.play.behaviour;
    if (reply.ok) {
      assert(refused === undefined, `${when}: it must be refused`);
      await this.stage.mustHold(this.after, this.others, when);
      await result?.(reply.result, this.stage);
      return;
    }
    const { code = "", message = "" } = reply.error ?? {};
    const told = `${when}: ${message} [${code}]`;
    if (refused !== undefined && !mayFail) {
      assert(refused.codes.includes(code), told);
      assertStringIncludes(message, this.stage.named(refused.says ?? ""), told);
    } else assert(mayFail && CODES.includes(code), told);
    assertMatch(message, /^Cannot /, told);
    await this.mustBeLeftWell(told);
  }

  private async mustBeLeftWell(when: string): Promise<void> {
    const { mayLeave } = this.play.behaviour;
    const { ours } = await this.stage.picture();
    const text = JSON.stringify(ours);
    const isFinished = mayLeave === "finished" && text === JSON.stringify([...this.after].sort());
    const isWell = isFinished || (typeof mayLeave === "function" && mayLeave(ours));
    await this.stage.mustHold(isWell ? ours : this.before, this.others, when);
  }

  async isAsBefore(): Promise<boolean> {
    const { ours } = await this.stage.picture();
    return JSON.stringify(ours) === JSON.stringify([...this.before].sort());
  }

  async mustBeAsBefore(when: string): Promise<void> {
    await this.stage.mustHold(this.before, this.others, when);
  }

  /** Calls once more after a success. */
  async mustRepeat(when: string): Promise<void> {
    const { again, result } = this.play.behaviour;
    const reply = await this.call();
    const told = `${when}, again: ${reply.error?.message} [${reply.error?.code}]`;
    if (again === "same") {
      assert(reply.ok, told);
      await this.stage.mustHold(this.after, this.others, told);
      await result?.(reply.result, this.stage);
    } else if ("refused" in again) {
      assert(!reply.ok && again.refused.includes(reply.error?.code ?? ""), told);
      await this.stage.mustHold(this.after, this.others, told);
    } else {
      assert(reply.ok, told);
      await this.stage.mustHold(linesOf(again.holds, this.play.column), this.others, told);
    }
  }
}
