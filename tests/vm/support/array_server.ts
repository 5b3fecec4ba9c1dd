/**
 * The program that runs in the VM and plays an array without an API: the kernel data side, its
 * operations called by name over HTTP (`POST /createZvol` with the arguments as a JSON list). The
 * cases about the kernel itself use it; those about the product use `tnblock simulate`.
 *
 * usage: array-server PORT FOLDER NETNS
 */

import { createServer, type IncomingMessage } from "node:http";
import { Buffer } from "node:buffer";
import process from "node:process";
import type { DataSide } from "../../../src/simulator/exports.ts";
import { kernelDataSide } from "../../../src/simulator/kernel/kernel_data_side.ts";

const [port = "7001", directory = "/data", netns = "tgt"] = process.argv.slice(2);

async function body(request: IncomingMessage): Promise<unknown[]> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of request) chunks.push(chunk as Uint8Array);
  return JSON.parse(new TextDecoder().decode(Buffer.concat(chunks))) as unknown[];
}

const dataSide: DataSide = await kernelDataSide({ directory, netns });

createServer(async (request, response) => {
  const name = (request.url ?? "").slice(1) as keyof DataSide;
  try {
    const operation = dataSide[name] as (...args: unknown[]) => unknown;
    const result = await operation(...await body(request));
    response.end(JSON.stringify({ result: result ?? null }));
    if (name === "close") process.exit(0);
  } catch (error) {
    const { message, name } = error as Error;
    response.end(JSON.stringify({ error: message, kind: name }));
  }
}).listen(Number(port));
