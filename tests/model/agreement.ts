/**
 * Random sequences of verbs from two nodes, compared with a small model after every step. A failure
 * prints the seed, the shortest sequence that fails, and what was asked and answered.
 *
 * `TNBLOCK_MODEL_RUNS` (runs for each protocol) and `TNBLOCK_MODEL_SEED` change how much is tried.
 */
import fc from "fast-check";
import type { TransportKind } from "../support/place.ts";
import { perform, VERBS } from "./verbs.ts";
import { World } from "./world.ts";

const RUNS = Number(Deno.env.get("TNBLOCK_MODEL_RUNS") ?? 15);
const STEPS = 15;
const SEED = Deno.env.get("TNBLOCK_MODEL_SEED");

/** One step of a sequence: which verb, and the numbers that its choices are made of. */
const step = fc.record({
  verb: fc.oneof(
    ...VERBS.map(({ name, often }) => ({ weight: often, arbitrary: fc.constant(name) })),
  ),
  node: fc.nat(1),
  pick: fc.nat(9999),
  coin: fc.boolean(),
});

/** Registers the test of one protocol. */
export function agreement(transport: TransportKind): void {
  Deno.test(`${transport}: whatever two nodes ask in whatever order, array, nodes and listings agree with the model`, async () => {
    const sequences = fc.asyncProperty(
      fc.constantFrom("25.10" as const, "26" as const),
      // A failing sequence shrinks by steps that are left out.
      fc.array(fc.option(step, { freq: 50 }), { minLength: STEPS, maxLength: STEPS }),
      async (release, steps) => {
        await using world = await World.start(transport, release);
        try {
          for (const one of steps) {
            if (one === null) continue;
            const { verb, node, pick, coin } = one;
            await perform(world, verb, () => world.choice(node, pick, coin));
            await world.check();
          }
        } catch (error) {
          const reason = error instanceof Error ? error.message : String(error);
          throw new Error(`${reason}\nafter\n  ${world.story.join("\n  ")}`, { cause: error });
        }
      },
    );
    await fc.assert(sequences, {
      numRuns: RUNS,
      ...(SEED === undefined ? {} : { seed: Number(SEED) }),
    });
  });
}
