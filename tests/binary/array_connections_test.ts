/** Connections of the compiled daemon to the array that end as badly as they can: bun's TLS is not node's. */
import { connect, createServer, type Socket } from "node:net";
import { assert, assertEquals } from "@std/assert";
import { BareDaemon, Caller, requestLine, section, until } from "./bare_daemon.ts";
import { SimulatorProcess } from "./program.ts";

/** Callers that wait at the moment at which a connection ends. */
const CALLERS = 8;

/** Nobody waits longer for word of an end: far less than any deadline of a login, a read or a ping. */
const WORD_MS = 8_000;

/** The ways in which a connection ends, seen from the side that does it. */
const ENDS: Readonly<Record<string, (near: Socket) => void>> = {
  "is shut down by the array, who goes on reading": (near) => near.end(),
  "is reset": (near) => near.resetAndDestroy(),
  "ends within a TLS record": (near) => near.end(new Uint8Array([0x17, 3, 3, 0, 0x40, 1, 2])),
  "carries what is no TLS": (near) => near.write("HTTP/1.1 502 Bad Gateway\r\n\r\n"),
};

/** A TCP proxy whose connections one can take into one's own hands. */
class Proxy implements AsyncDisposable {
  readonly #server = createServer({ allowHalfOpen: true }, (near) => this.#join(near));
  readonly #all = new Set<Socket>();
  readonly #far: Socket[] = [];
  readonly #near: Socket[] = [];

  private constructor(readonly target: number) {}

  static async start(target: number): Promise<Proxy> {
    const proxy = new Proxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("it does not listen");
    return address.port;
  }

  #join(near: Socket): void {
    const far = connect(this.target, "127.0.0.1");
    this.#near.push(near);
    this.#far.push(far);
    this.#all.add(near).add(far);
    near.on("error", () => {}).on("close", () => far.destroy());
    far.on("error", () => {}).on("close", () => near.end());
    near.on("data", (chunk) => far.write(chunk));
    near.on("end", () => far.end());
    far.on("data", (chunk) => near.write(chunk));
  }

  /** Ends the connections that there are now; what the array still says on them goes nowhere. */
  end(how: (near: Socket) => void): void {
    for (const far of this.#far.splice(0)) {
      far.removeAllListeners("data").removeAllListeners("close").resume();
    }
    for (const near of this.#near.splice(0)) how(near);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#all) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}

/** Callers that all ask now; each gives its answer, which must be whole and its own. */
function ask(
  daemon: BareDaemon,
  config: Record<string, unknown>,
  method = "list_images",
  args: Record<string, unknown> = {},
) {
  return Array.from({ length: CALLERS }, async (_, index) => {
    const id = `caller-${index}-${"x".repeat(20)}`;
    const text = await new Caller(daemon.socket, requestLine(id, method, config, args)).closed;
    assert(text.startsWith(` {"id":"${id}","ok":`) && text.endsWith("}\n"), `an answer is ${text}`);
    return JSON.parse(text);
  });
}

/** A daemon at a simulated array, and a proxy for each way to end. */
async function onArray(
  work: (
    simulator: SimulatorProcess,
    daemon: BareDaemon,
    proxies: readonly { readonly proxy: Proxy; readonly how: (near: Socket) => void }[],
  ) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "tnblock-ends-" });
  try {
    await using open = new AsyncDisposableStack();
    const options = ["--host", folder, "--volumes", "3", "--login-limit", "0"];
    const simulator = open.use(await SimulatorProcess.start(options));
    const daemon = open.use(await BareDaemon.start(folder));
    await simulator.writeSecrets(folder);
    const proxies = [];
    for (const how of Object.values(ENDS)) {
      proxies.push({ proxy: open.use(await Proxy.start(simulator.ready.port)), how });
    }
    await work(simulator, daemon, proxies);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Waits until so many calls of a method have come to the array. */
async function called(simulator: SimulatorProcess, method: string, count: number): Promise<void> {
  await until(`${count} calls of ${method}`, async () => {
    return (await simulator.get("stats")).calls[method] >= count;
  });
}

Deno.test("a connection that ends during the login is told to all who wait, at once and whole", async () => {
  await onArray(async (simulator, daemon, proxies) => {
    const base = await daemon.sockets();
    await simulator.faults([{ method: "auth.login_ex", do: "hold" }]);
    const asked = proxies.map(({ proxy }) => ask(daemon, section(simulator, proxy.port)));
    await called(simulator, "auth.login_ex", proxies.length);
    const start = performance.now();
    for (const { proxy, how } of proxies) proxy.end(how);
    for (const answers of asked) {
      for (const { ok, error } of await Promise.all(answers)) {
        assertEquals([ok, error?.code], [false, "unreachable"]);
      }
    }
    assert(performance.now() - start < WORD_MS);
    await simulator.faults([]);
    for (const { proxy } of proxies) {
      await until("session", async () => {
        return (await Promise.all(ask(daemon, section(simulator, proxy.port))))
          .every(({ ok }) => ok);
      });
      await proxy[Symbol.asyncDispose]();
    }
    await until("free descriptors", async () => await daemon.sockets() <= base);
  });
});

Deno.test("a read whose connection ends is asked again over the next one", async () => {
  await onArray(async (simulator, daemon, proxies) => {
    const base = await daemon.sockets();
    const volumes: string[] = [];
    for (const { proxy } of proxies) {
      const [first] = await Promise.all(ask(daemon, section(simulator, proxy.port)));
      volumes.push(first.result[0].volid.slice("san:".length));
    }
    const before = (await simulator.get("stats")).calls["zfs.resource.query"];
    await simulator.faults([{ method: "zfs.resource.query", do: "hold" }]);
    const asked = proxies.map(({ proxy }, index) =>
      ask(daemon, section(simulator, proxy.port), "volume_size_info", { volname: volumes[index] })
    );
    await called(simulator, "zfs.resource.query", before + proxies.length * CALLERS);
    const start = performance.now();
    for (const { proxy, how } of proxies) proxy.end(how);
    await simulator.faults([]);
    for (const answers of asked) {
      for (const { ok, result } of await Promise.all(answers)) {
        assertEquals([ok, result?.size], [true, 1024 ** 3]);
      }
    }
    assert(performance.now() - start < WORD_MS);
    for (const { proxy } of proxies) await proxy[Symbol.asyncDispose]();
    await until("free descriptors", async () => await daemon.sockets() <= base);
  });
});
