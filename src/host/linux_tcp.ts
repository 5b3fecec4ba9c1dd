/** Part of linux.ts: one short TCP exchange, to learn whether a portal lives. */
import { connect, type Socket } from "node:net";
import { type Bounds, HostError } from "./host.ts";
import { within } from "./linux_deadline.ts";
import { hostError } from "./linux_errors.ts";

/** See `Host.exchangeTcp`. The deadline is ours: the kernel's own for a dropped SYN is minutes. */
export async function exchangeTcp(
  address: string,
  port: number,
  send: Uint8Array,
  expectBytes: number,
  bounds: Bounds,
): Promise<Uint8Array> {
  const doing = `Cannot reach ${address.includes(":") ? `[${address}]` : address}:${port}`;
  let socket: Socket | undefined;
  try {
    return await within(doing, bounds, () => {
      socket = connect({ host: address, port });
      return exchange(doing, socket, send, expectBytes);
    });
  } finally {
    socket?.destroy();
  }
}

function exchange(
  doing: string,
  socket: Socket,
  send: Uint8Array,
  expectBytes: number,
): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const received = new Uint8Array(expectBytes);
    let length = 0;
    socket.on("connect", () => {
      const sent = () => {
        if (expectBytes === 0) resolve(received);
      };
      if (send.length === 0) sent();
      else socket.write(send, sent);
    });
    socket.on("data", (chunk: Uint8Array) => {
      const part = chunk.subarray(0, expectBytes - length);
      received.set(part, length);
      length += part.length;
      if (expectBytes > 0 && length === expectBytes) resolve(received);
    });
    socket.on("error", (error) => reject(hostError(doing, error)));
    socket.on("close", () =>
      reject(
        new HostError("ECONNRESET", `${doing}: closed after ${length} of ${expectBytes} bytes`),
      ));
  });
}
