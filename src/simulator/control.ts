/** The control endpoint: plain HTTP on loopback for tests and benchmarks to look in and interfere. */

import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { parseFaults } from "./faults.ts";
import { objects } from "./objects.ts";
import type { Sim } from "./sim.ts";

const LARGEST_BODY = 1024 * 1024;

export interface Control {
  readonly url: string;
  close(): Promise<void>;
}

/** @param current the simulation of the moment: a reboot makes another. */
export async function openControl(current: () => Sim): Promise<Control> {
  const sockets = new Set<Socket>();
  const server = createServer((request, response) => {
    serve(current(), request, response).catch((error) => {
      reply(response, 400, { message: error instanceof Error ? error.message : String(error) });
    });
  });
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => resolve());
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify(body));
}

async function body(request: IncomingMessage): Promise<unknown> {
  let text = "";
  for await (const chunk of request) {
    text += chunk;
    if (text.length > LARGEST_BODY) throw new Error("Cannot read the request: it is too large");
  }
  return text === "" ? [] : JSON.parse(text);
}

async function serve(sim: Sim, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = (request.url ?? "").split("?")[0];
  switch (`${request.method} ${path}`) {
    case "GET /stats":
      return reply(response, 200, sim.stats.toJson());
    case "GET /objects":
      return reply(response, 200, objects(sim.world));
    case "POST /reset":
      // Counters and faults; the array keeps what it holds.
      sim.stats.reset();
      sim.faults.set([]);
      return reply(response, 200, {});
    case "POST /faults":
      sim.faults.set(parseFaults(await body(request)));
      return reply(response, 200, {});
    default:
      return reply(response, 404, { message: "Not Found" });
  }
}
