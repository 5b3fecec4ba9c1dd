/** What `tnblock hook` makes of a daemon that works, is not there, stands still, dies or lies. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createServer, type Socket } from "node:net";
import { forward, type Forwarded } from "../../src/daemon/forward.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { linuxHost } from "../../src/host/linux.ts";

interface Request {
  readonly id: string;
  readonly method: string;
  readonly deadlineMs: number;
}

/** What a daemon does with a connection; the line has come unless told otherwise. */
type Behaviour = (socket: Socket, request: Request, line: string) => void;

/** A stand-in daemon and the node that it is on. */
class Stage implements AsyncDisposable {
  /** What the caller was given. */
  readonly delivered: string[] = [];
  readonly #server = createServer({ allowHalfOpen: true });
  readonly #open = new Set<Socket>();

  private constructor(readonly directory: string) {}

  static async start(behaviour: Behaviour, takes = true): Promise<Stage> {
    const stage = new Stage(await Deno.makeTempDir({ prefix: "tnblock-forward-" }));
    await Deno.mkdir(`${stage.directory}/run/tnblock`, { recursive: true });
    stage.#server.on("connection", (socket) => {
      stage.#open.add(socket);
      socket.on("error", () => {});
      let text = "";
      const onData = (chunk: Uint8Array) => {
        text += new TextDecoder().decode(chunk);
        if (!text.endsWith("\n")) return;
        socket.off("data", onData);
        if (takes) socket.write(" ");
        behaviour(socket, JSON.parse(text), text);
      };
      socket.on("data", onData);
    });
    await new Promise<void>((resolve) =>
      stage.#server.listen(`${stage.directory}${DAEMON_SOCKET}`, resolve)
    );
    await Deno.chmod(`${stage.directory}${DAEMON_SOCKET}`, 0o600);
    return stage;
  }

  async forward(
    method: string,
    options: { deadlineMs?: number; reads?: boolean; signal?: AbortSignal } = {},
  ): Promise<Forwarded> {
    const line = JSON.stringify({
      protocol: 1,
      id: "7f3a",
      method,
      storage: "san",
      deadlineMs: options.deadlineMs ?? 20_000,
    });
    return await forward(line, linuxHost({ root: this.directory }), {
      signal: options.signal ?? new AbortController().signal,
      deliver: (text) => {
        this.delivered.push(text);
        return Promise.resolve(options.reads ?? true);
      },
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#open) socket.destroy();
    await new Promise((resolve) => this.#server.close(resolve));
    await Deno.remove(this.directory, { recursive: true });
  }
}

const reply = (id: unknown, rest: Record<string, unknown>) =>
  JSON.stringify({ id, ...rest }) + "\n";
const failure = (code: string, field?: string) => ({
  ok: false,
  error: { code, message: "m", field },
});

/** One of each: repeated, undone, finished. */
const METHODS = ["list_images", "activate_volume", "volume_snapshot_delete"] as const;
const ONCE = ["alloc_image", "volume_resize"] as const;

Deno.test("the daemon's answer is passed on as it is, a failure too", async () => {
  await using stage = await Stage.start((socket, { id, method }) => {
    const ok = method === "alloc_image";
    socket.end(reply(id, ok ? { ok, result: "a" } : failure("unsupported")));
  });
  assertEquals(await stage.forward("alloc_image"), { kind: "answered", ok: true });
  assertEquals(await stage.forward("volume_resize"), { kind: "answered", ok: false });
  assertEquals(stage.delivered, [
    reply("7f3a", { ok: true, result: "a" }),
    reply("7f3a", failure("unsupported")),
  ]);
});

Deno.test("the daemon hears whether its answer was passed on", async () => {
  for (const reads of [true, false]) {
    const heard = Promise.withResolvers<string>();
    await using stage = await Stage.start((socket, { id }) => {
      let text = "";
      socket.on("data", (chunk) => text += String(chunk));
      socket.on("end", () => heard.resolve(text));
      socket.write(reply(id, { ok: true }));
    });
    await stage.forward("alloc_image", { reads });
    assertEquals(await heard.promise, reads ? "" : "lost\n");
  }
});

Deno.test("where nobody serves the socket the request is done here, as it is", async () => {
  await using stage = await Stage.start(() => {});
  const path = `${stage.directory}${DAEMON_SOCKET}`;
  await Deno.remove(path);
  for (const dead of [false, true]) {
    if (dead) Deno.listen({ transport: "unix", path }).close();
    const { kind, line } = await stage.forward("alloc_image") as { kind: string; line: string };
    assertEquals([kind, JSON.parse(line).deadlineMs], ["here", 20_000]);
  }
});

Deno.test("what is no request is answered here", async () => {
  await using stage = await Stage.start(() => {});
  const host = linuxHost({ root: stage.directory });
  const options = { signal: new AbortController().signal, deliver: () => Promise.resolve(true) };
  assertEquals(await forward("{", host, options), { kind: "here", line: "{" });
});

const untaken: readonly [string, Behaviour][] = [
  ["closes without taking it", (socket) => socket.destroy()],
  ["stands still", () => {}],
  ["works to its limit", (socket) => socket.end(reply(null, failure("busy")))],
  [
    "does not know the method",
    (socket, { id }) => socket.end(reply(id, failure("unsupported", "method"))),
  ],
  [
    "speaks another protocol",
    (socket, { id }) => socket.end(reply(id, failure("unsupported", "protocol"))),
  ],
];
for (const [name, behaviour] of untaken) {
  Deno.test(`a request to a daemon that ${name} is done here, in the time that is left`, async () => {
    await using stage = await Stage.start(behaviour, false);
    for (const method of ["list_images", "alloc_image"]) {
      const done = await stage.forward(method, { deadlineMs: 1_000 });
      assert(done.kind === "here", done.kind);
      const { deadlineMs } = JSON.parse(done.line);
      assert(deadlineMs > 0 && deadlineMs <= 1_000, String(deadlineMs));
    }
    assertEquals(stage.delivered, []);
  });
}

const lost: readonly [string, Behaviour][] = [
  ["goes away", (socket) => socket.destroy()],
  ["gives half a line", (socket) => socket.end('{"id":"7f3a","ok":true,')],
  ["answers another request", (socket) => socket.end(reply("x", { ok: true }))],
  ["answers garbage", (socket) => socket.end("Segmentation fault\n")],
  ["answers null", (socket) => socket.end("null\n")],
];
for (const [name, behaviour] of lost) {
  Deno.test(`where a daemon ${name}, what may be repeated is done here, the rest fails`, async () => {
    await using stage = await Stage.start(behaviour);
    for (const method of METHODS) assertEquals((await stage.forward(method)).kind, "here");
    for (const method of ONCE) {
      const done = await stage.forward(method);
      assert(done.kind === "failed", done.kind);
      const { id, ok, error } = JSON.parse(done.text);
      assertEquals([id, ok, error.code], ["7f3a", false, "host-fault"]);
      assertStringIncludes(
        error.message,
        method === "alloc_image" ? "what it made is taken back" : "what it began is finished",
      );
    }
    assertEquals(stage.delivered, []);
  });
}

Deno.test("a daemon that says nothing costs the deadline, and nothing is repeated", async () => {
  await using stage = await Stage.start(() => {});
  for (const method of ["list_images", "alloc_image"]) {
    const done = await stage.forward(method, { deadlineMs: 100 });
    assert(done.kind === "failed", done.kind);
    assertStringIncludes(JSON.parse(done.text).error.message, "it gave no answer in time");
  }
});

Deno.test("a caller that is told to end leaves the daemon's socket", async () => {
  const left = Promise.withResolvers<void>();
  const taken = Promise.withResolvers<void>();
  await using stage = await Stage.start((socket) => {
    socket.on("close", () => left.resolve());
    socket.on("end", () => socket.destroy());
    socket.resume();
    taken.resolve();
  });
  const stop = new AbortController();
  const done = stage.forward("list_images", { signal: stop.signal });
  await taken.promise;
  stop.abort();
  assertEquals((await done).kind, "failed");
  await left.promise;
});

Deno.test("a socket that others than its owner may write to is not asked", async () => {
  await using stage = await Stage.start(() => {
    throw new Error("it was asked");
  });
  await Deno.chmod(`${stage.directory}${DAEMON_SOCKET}`, 0o620);
  const done = await stage.forward("list_images");
  assert(done.kind === "failed", done.kind);
  assertStringIncludes(
    JSON.parse(done.text).error.message,
    "others than its owner may write to it",
  );
});
