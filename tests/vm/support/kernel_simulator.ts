/**
 * The program that runs in the VM and plays the whole array: the simulated API, with the kernel data
 * side behind it. Prints the simulator's ready line, ends on SIGTERM when everything is taken back.
 * On port 7001 the array is changed behind everybody's back, by `POST` with a list of words:
 *
 *     /swap ZVOL ZVOL                           their LUNs and NSIDs change places, as a careless
 *                                               administrator could: the worst that can happen to a
 *                                               node's idea of which disk is which
 *     /remake ZVOL                              its namespace is made again under the same NSID
 *     /chap USER SECRET [PEERUSER PEERSECRET]   the target asks for CHAP, mutual with a peer
 *     /dhchap HOSTNQN KEY [CONTROLLERKEY]       the subsystem lets this host in only, with these keys
 *     /dataset NAME                             there is another dataset, for another storage
 *     /down                                     the array is switched off: no API, no target
 *     /up                                       it has booted: what it holds is the same, its boot id is not
 *
 * usage: kernel-simulator RELEASE LISTEN FOLDER NETNS ADDRESS...
 */

import { Buffer } from "node:buffer";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import process from "node:process";
import type { JsonObject } from "../../../src/simulator/json.ts";
import { kernelDataSide } from "../../../src/simulator/kernel/kernel_data_side.ts";
import { type ReleaseName, startSimulator } from "../../../src/simulator/simulator.ts";
import type { Table } from "../../../src/simulator/table.ts";

const [release = "25.10", listen = "127.0.0.1", directory = "/data", netns = "tgt", ...addresses] =
  process.argv.slice(2);

const simulator = await startSimulator({
  release: release as ReleaseName,
  listen: { address: listen, port: 0 },
  loginLimit: 0,
  dataSide: () => kernelDataSide({ directory, netns }),
  network: {
    iscsiPortals: addresses,
    iscsiPort: 3260,
    nvmePorts: addresses.map((address) => ({ address, port: 4420 })),
  },
});

/** Exchanges one field of the rows that name the two zvols. */
function exchange(table: Table, field: string, rowOf: (zvol: string) => JsonObject | undefined) {
  return (one: string, other: string): boolean => {
    const [first, second] = [rowOf(one), rowOf(other)];
    if (first === undefined || second === undefined) return false;
    const value = first[field] ?? null;
    table.patch(Number(first.id), { [field]: second[field] ?? null });
    table.patch(Number(second.id), { [field]: value });
    return true;
  };
}

const { extent, targetextent, namespace } = simulator.world.tables;
const mappingOf = (zvol: string) => {
  const id = extent.find((row) => row.path === `zvol/${zvol}`)?.id;
  return targetextent.find((row) => row.extent === id);
};
const namespaceOf = (zvol: string) => namespace.find((row) => row.device_path === `zvol/${zvol}`);
const swapLuns = exchange(targetextent, "lunid", mappingOf);
const swapNamespaces = exchange(namespace, "nsid", namespaceOf);

/** As if the namespace had been deleted and made again under its number: it is another disk then. */
function remakeNamespace(zvol: string): boolean {
  const row = namespaceOf(zvol);
  if (row === undefined) return false;
  namespace.patch(Number(row.id), { device_uuid: randomUUID(), device_nguid: randomUUID() });
  return true;
}

function requireChap(user = "", secret = "", peeruser = "", peersecret = ""): boolean {
  const { auth, target } = simulator.world.tables;
  auth.insert({ tag: 1, user, secret, peeruser, peersecret });
  for (const row of target.all()) {
    const groups = (row.groups as JsonObject[])
      .map((group) => ({
        ...group,
        authmethod: peeruser === "" ? "CHAP" : "CHAP_MUTUAL",
        auth: 1,
      }));
    target.patch(Number(row.id), { groups });
  }
  return true;
}

function requireDhchap(hostnqn = "", key = "", controllerKey: string | null = null): boolean {
  const { host, hostSubsys, subsys } = simulator.world.tables;
  const { id } = host.insert({
    hostnqn,
    dhchap_key: key,
    dhchap_ctrl_key: controllerKey,
    dhchap_hash: "SHA-256",
    dhchap_dhgroup: "2048-BIT",
  });
  for (const row of subsys.all()) {
    hostSubsys.insert({ host_id: id, subsys_id: Number(row.id) });
    subsys.patch(Number(row.id), { allow_any_host: false });
  }
  return true;
}

const SERVICES = ["iscsitarget", "nvmet"] as const;
let boot: (() => Promise<void>) | undefined;

async function goDown(): Promise<boolean> {
  for (const name of SERVICES) await simulator.setService(name, false);
  boot = await simulator.goDown();
  return true;
}

async function comeUp(): Promise<boolean> {
  for (const name of SERVICES) {
    const state = simulator.world.services.get(name);
    if (state !== undefined) state.running = true;
  }
  await boot?.();
  return boot !== undefined;
}

function makeDataset(name = ""): boolean {
  simulator.world.zfs.create(name, "FILESYSTEM");
  return true;
}

const CHANGES: Readonly<Record<string, (...words: string[]) => boolean>> = {
  "/swap": (one = "", other = "") =>
    [swapLuns(one, other), swapNamespaces(one, other)].includes(true),
  "/remake": (zvol = "") => remakeNamespace(zvol),
  "/chap": requireChap,
  "/dhchap": requireDhchap,
  "/dataset": makeDataset,
};
const POWER: Readonly<Record<string, () => Promise<boolean>>> = { "/down": goDown, "/up": comeUp };

const control = createServer(async (request, response) => {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk as Uint8Array);
  const words = JSON.parse(Buffer.concat(chunks).toString()) as string[];
  const power = POWER[request.url ?? ""];
  const done = await power?.() ?? CHANGES[request.url ?? ""]?.(...words) ?? false;
  if (power === undefined) { for (const name of SERVICES) await simulator.setService(name, true); }
  response.end(JSON.stringify({ done }));
}).listen(7001);

process.on("SIGTERM", async () => {
  control.close();
  await simulator.stop();
  process.exit(0);
});
process.stdout.write(`${JSON.stringify(simulator.ready)}\n`);
