/** Setting the stage for the simulator's tests: one simulator, one client that is logged in. */

import { noDataSide } from "../../src/simulator/exports.ts";
import type { DataSide } from "../../src/simulator/exports.ts";
import type { Simulator, SimulatorOptions } from "../../src/simulator/simulator.ts";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { Client } from "./client.ts";

export interface Stage {
  readonly simulator: Simulator;
  readonly client: Client;
  /** Another connection of the same user. */
  another(): Promise<Client>;
}

/** Runs a test against a fresh simulator and takes everything down again. */
export async function onStage(
  options: SimulatorOptions,
  test: (stage: Stage) => Promise<void>,
): Promise<void> {
  const simulator = await startSimulator(options);
  const clients: Client[] = [];
  const another = async () => {
    const client = await Client.open(simulator.ready.port);
    clients.push(client);
    await client.login(simulator.ready.user, simulator.ready.apiKey);
    return client;
  };
  try {
    await test({ simulator, client: await another(), another });
  } finally {
    for (const client of clients) client.close();
    await simulator.stop();
  }
}

/** A zvol of 1 GiB below the start world's dataset, thin unless said otherwise. */
export async function makeZvol(client: Client, name: string, more: object = {}): Promise<string> {
  const full = `tank/pve/${name}`;
  await client.call("pool.dataset.create", {
    name: full,
    type: "VOLUME",
    volsize: 1 << 30,
    sparse: true,
    ...more,
  });
  return full;
}

/** A zvol with its extent and mapping; answers with their ids. */
export async function makeLun(
  client: Client,
  name: string,
): Promise<{ extent: number; mapping: number }> {
  const zvol = await makeZvol(client, name);
  const extent = await client.call("iscsi.extent.create", { name, disk: `zvol/${zvol}` });
  const mapping = await client.call("iscsi.targetextent.create", { target: 1, extent: extent.id });
  return { extent: extent.id, mapping: mapping.id };
}

/** A data side whose doings a test decides. */
export function playedDataSide(parts: Partial<DataSide>): () => DataSide {
  return () => ({ ...noDataSide(), ...parts });
}

const PATIENCE_MS = 5000;

/** Waits until something holds, looking each turn of the event loop. */
export async function until(holds: () => boolean): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  while (!holds()) {
    if (Date.now() > deadline) throw new Error("it did not come to hold in time");
    await new Promise((resolve) => setImmediate(resolve));
  }
}
