/**
 * The array of the bench, in a process of its own so that its work is not ours: the simulator, and one
 * played node for each folder that it is told. Prints the simulator's ready line; ends when its standard
 * input does.
 *
 *     deno run -A scripts/bench/array.ts '{"volumes":100,"nodes":["/tmp/a/pve1"]}'
 */
import { type HostPlayer, hostPlayer } from "../../src/simulator/host_player/player.ts";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { sharedArray } from "../../tests/support/shared_array.ts";

/** What it is told. */
export interface ArrayPlan {
  /** Volumes of storage `san`, exported from the beginning. */
  readonly volumes: number;
  /** Root folders of the cluster's nodes. */
  readonly nodes: readonly string[];
}

async function main(plan: ArrayPlan): Promise<void> {
  const clusterId = crypto.randomUUID();
  const players: HostPlayer[] = [];
  for (const directory of plan.nodes) players.push(await hostPlayer({ directory, clusterId }));
  const [only] = players;
  const simulator = await startSimulator({
    latency: "lan",
    loginLimit: 0,
    volumes: plan.volumes,
    clusterId,
    ...(only === undefined
      ? {}
      : { dataSide: () => players.length === 1 ? only : sharedArray(players) }),
  });
  console.log(JSON.stringify(simulator.ready));
  for await (const _ of Deno.stdin.readable);
  await simulator.stop();
}

if (import.meta.main) await main(JSON.parse(Deno.args[0] ?? "{}"));
