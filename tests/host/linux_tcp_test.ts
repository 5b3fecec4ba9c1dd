import { type AddressInfo, createServer, type Socket } from "node:net";
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";

const LONG = { deadlineMs: 30_000 };
const host = linuxHost();

async function withServer(
  onSocket: (socket: Socket) => void,
  test: (port: number) => Promise<void>,
): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    onSocket(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await test((server.address() as AddressInfo).port);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

async function codeOf(work: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(work);
  assertInstanceOf(error, HostError);
  return error.code;
}

Deno.test("what was sent arrives, and the answer is put together from its parts", async () => {
  await withServer((socket) => {
    socket.once("data", (data) => {
      socket.write(data.slice(0, 1));
      setTimeout(() => socket.write(Uint8Array.of(7, 8, 9)), 5);
    });
  }, async (port) => {
    const answer = await host.exchangeTcp("127.0.0.1", port, Uint8Array.of(42), 3, LONG);
    assertEquals([...answer], [42, 7, 8]);
  });
});

Deno.test("with nothing to send and nothing expected a connection is enough", async () => {
  await withServer(() => {}, async (port) => {
    const answer = await host.exchangeTcp("127.0.0.1", port, new Uint8Array(0), 0, LONG);
    assertEquals(answer.length, 0);
  });
});

Deno.test("a silent server ends at our deadline", async () => {
  await withServer(() => {}, async (port) => {
    const bounds = { deadlineMs: 50 };
    const ask = () => host.exchangeTcp("127.0.0.1", port, Uint8Array.of(1), 1, bounds);
    assertEquals(await codeOf(ask), "ETIMEDOUT");
  });
});

Deno.test("a server that hangs up early is ECONNRESET", async () => {
  await withServer((socket) => socket.end(Uint8Array.of(1)), async (port) => {
    const ask = () => host.exchangeTcp("127.0.0.1", port, new Uint8Array(0), 2, LONG);
    assertEquals(await codeOf(ask), "ECONNRESET");
  });
});

Deno.test("a port that nobody listens on is ECONNREFUSED", async () => {
  let closed = 0;
  await withServer(() => {}, (port) => {
    closed = port;
    return Promise.resolve();
  });
  const ask = () => host.exchangeTcp("127.0.0.1", closed, new Uint8Array(0), 0, LONG);
  assertEquals(await codeOf(ask), "ECONNREFUSED");
});

Deno.test("an abort gives its reason", async () => {
  await withServer(() => {}, async (port) => {
    const signal = AbortSignal.abort(new Error("gone"));
    await assertRejects(
      () => host.exchangeTcp("127.0.0.1", port, new Uint8Array(0), 9, { ...LONG, signal }),
      "gone",
    );
  });
});
