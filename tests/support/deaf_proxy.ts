/** A TCP proxy on the loopback that can stop forwarding with every connection open, as a partition does. */
import { connect, createServer, type Socket } from "node:net";

/** A proxy before one port of the loopback. */
export class DeafProxy implements AsyncDisposable {
  readonly #server = createServer((near) => this.#join(near));
  readonly #sockets = new Set<Socket>();
  readonly #target: number;
  #isDeaf = false;

  private constructor(target: number) {
    this.#target = target;
  }

  /** Begins to listen; forwards at first. */
  static async start(target: number): Promise<DeafProxy> {
    const proxy = new DeafProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get port(): number {
    const address = this.#server.address();
    if (address === null || typeof address === "string") throw new Error("it does not listen");
    return address.port;
  }

  /** From now on nothing is passed on, in either direction, and nothing is closed. */
  fallSilent(): void {
    this.#isDeaf = true;
  }

  /** Ends all connections, as a node does that has found them dead. */
  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Ends what was silent, and forwards what comes from now on. */
  recover(): void {
    this.cut();
    this.#isDeaf = false;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(near: Socket): void {
    const far = connect(this.#target, "127.0.0.1");
    for (const [from, to] of [[near, far], [far, near]] as const) {
      this.#sockets.add(from);
      from.on("error", () => {});
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      from.on("data", (chunk) => {
        if (!this.#isDeaf) to.write(chunk);
      });
    }
  }
}
