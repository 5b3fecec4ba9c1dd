/**
 * The data side's doors, where nothing better plays it: iSCSI portals that accept and say nothing,
 * NVMe/TCP ports that answer the connection request with their own, as a probe wants it.
 */

import { Buffer } from "node:buffer";
import type { AddressInfo, Server, Socket } from "node:net";
import { createServer } from "node:net";

/** The PDU that opens NVMe/TCP in either direction has this length. */
const IC_LENGTH = 128;

export interface Portals {
  readonly iscsi: { readonly addresses: readonly string[]; readonly port: number };
  readonly nvme: readonly { readonly address: string; readonly port: number }[];
  close(): Promise<void>;
}

class Listeners {
  private readonly servers: Server[] = [];
  private readonly sockets = new Set<Socket>();
  private readonly others: Listeners[] = [];

  /** Closes these as well in the end. */
  adopt(others: Listeners): void {
    this.others.push(others);
  }

  async listen(address: string, port: number, serve: (socket: Socket) => void): Promise<number> {
    const server = createServer((socket) => {
      this.sockets.add(socket);
      socket.on("close", () => this.sockets.delete(socket));
      socket.on("error", () => socket.destroy());
      serve(socket);
    });
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, address, () => resolve());
    });
    this.servers.push(server);
    return (server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    const closed = this.servers.map((server) =>
      new Promise<void>((resolve) => server.close(() => resolve()))
    );
    for (const socket of this.sockets) socket.destroy();
    await Promise.all([...closed, ...this.others.map((others) => others.close())]);
  }
}

/** Answers one ICReq with an ICResp and then keeps still. */
function answerNvme(socket: Socket): void {
  let received = 0;
  socket.on("data", (data: Buffer) => {
    const before = received;
    received += data.length;
    if (before >= IC_LENGTH || received < IC_LENGTH) return;
    const response = Buffer.alloc(IC_LENGTH);
    Buffer.from([0x01, 0x00, 0x80, 0x00, 0x80, 0x00, 0x00, 0x00]).copy(response);
    socket.write(response);
  });
}

const ATTEMPTS = 20;

/** Opens the portals on the given addresses; iSCSI ones share one free port, as the array does. */
export async function openPortals(addresses: readonly string[]): Promise<Portals> {
  const listeners = new Listeners();
  const nvme: { address: string; port: number }[] = [];
  try {
    const port = await openShared(listeners, addresses);
    for (const address of addresses) {
      nvme.push({ address, port: await listeners.listen(address, 0, answerNvme) });
    }
    return { iscsi: { addresses, port }, nvme, close: () => listeners.close() };
  } catch (error) {
    await listeners.close();
    throw error;
  }
}

/** A port that is free on the first address may be taken on the second: then another is tried. */
async function openShared(listeners: Listeners, addresses: readonly string[]): Promise<number> {
  const [first, ...others] = addresses;
  if (first === undefined) return 3260;
  for (let attempt = 1;; attempt += 1) {
    const trial = new Listeners();
    try {
      const port = await trial.listen(first, 0, (socket) => socket.resume());
      for (const address of others) await trial.listen(address, port, (socket) => socket.resume());
      listeners.adopt(trial);
      return port;
    } catch (error) {
      await trial.close();
      if (attempt >= ATTEMPTS) throw error;
    }
  }
}
