import { assertEquals } from "@std/assert";
import type { LocalServer, ServeOptions } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";

const SOCKET = "/run/tnblock/daemon.sock";

const OPTIONS: ServeOptions = {
  mode: 0o600,
  maxLine: 1000,
  lineDeadlineMs: 5_000,
  maxConnections: 10,
  full: "full\n",
};

/** A node's folder, a way to serve its socket by a name, and a way to ask who serves it. */
async function node() {
  const directory = await Deno.makeTempDir({ prefix: "tnblock-local-" });
  const host = linuxHost({ root: directory });
  return {
    directory,
    serve: (name: string): Promise<LocalServer> =>
      host.serveLocal(SOCKET, OPTIONS, async (line) => {
        if (await line.take()) await line.answer(`${name} ${line.text}\n`);
      }),
    ask: (text: string) => host.askLocal(SOCKET, text, { deadlineMs: 5_000, maxLine: 1000 }),
    [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }),
  };
}

Deno.test("a line is answered by who serves the socket, and the socket goes with him", async () => {
  await using at = await node();
  const server = await at.serve("one");
  assertEquals(await at.ask("hello"), "one hello");
  await server.stopListening();
  await server.close();
  assertEquals(await Array.fromAsync(Deno.readDir(`${at.directory}/run/tnblock`)), []);
  const error = await at.ask("hello").then(() => undefined, (error) => error);
  assertEquals(error?.code, "ENOENT");
});

Deno.test("one that ends leaves the socket of the next alone", async () => {
  await using at = await node();
  const one = await at.serve("one");
  const path = `${at.directory}${SOCKET}`;
  const stopped = one.stopListening();
  while (await Deno.lstat(path).then(() => true, () => false)) continue;
  const two = await at.serve("two");
  await stopped;
  await one.close();
  assertEquals(await at.ask("hello"), "two hello");
  await one.stopListening();
  assertEquals(await at.ask("hello"), "two hello");
  await two.stopListening();
  await two.close();
});

Deno.test("only one serves a socket, and no file is taken for one", async () => {
  await using at = await node();
  const one = await at.serve("one");
  const codeOf = (work: Promise<unknown>) => work.then(() => "served", (error) => error.code);
  assertEquals(await codeOf(at.serve("two")), "EADDRINUSE");
  await one.stopListening();
  await one.close();
  await Deno.writeTextFile(`${at.directory}${SOCKET}`, "");
  assertEquals(await codeOf(at.serve("two")), "EEXIST");
  assertEquals(await codeOf(at.ask("hello")), "EPERM");
});

Deno.test("an answer that is too long, or never comes, is an error in time", async () => {
  await using at = await node();
  const host = linuxHost({ root: at.directory });
  const server = await host.serveLocal(SOCKET, OPTIONS, async (line) => {
    if (line.text === "long" && await line.take()) await line.answer("x".repeat(2_000) + "\n");
    if (line.text === "silent") await line.take();
  });
  const ask = async (text: string, options: { takenMs?: number; onTaken?: () => void } = {}) =>
    await host.askLocal(SOCKET, text, { deadlineMs: 300, maxLine: 1000, ...options })
      .then(() => "answered", (error) => error.code);
  let taken = 0;
  const onTaken = () => taken++;
  assertEquals(await ask("silent", { onTaken }), "ETIMEDOUT");
  assertEquals(taken, 1);
  assertEquals(await ask("untaken", { takenMs: 50, onTaken }), "ETIMEDOUT");
  assertEquals(taken, 1);
  assertEquals(await ask("long"), "EMSGSIZE");
  await server.stopListening();
  await server.close();
});
