/** Part of linux.ts: the asking side of a unix socket, see `linux_local.ts`. */
import { Buffer } from "node:buffer";
import { lstat } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import process from "node:process";
import { type AskOptions, HostError } from "./host.ts";
import { wait, within } from "./linux_deadline.ts";
import { codeOf, hostError } from "./linux_errors.ts";

/** What says that a line was taken. */
export const TAKEN = " ";

/** Pause before a full queue of connections is tried again, in ms. */
const FULL_PAUSE_MS = 20;

/** Sends one line and reads one. */
export async function ask(path: string, line: string, options: AskOptions): Promise<string> {
  const doing = `Cannot ask ${path}`;
  const start = performance.now();
  const left = (ms: number) => ({
    ...options,
    deadlineMs: Math.min(options.deadlineMs, ms) - (performance.now() - start),
  });
  await requireOurs(doing, path);
  const socket = await connected(doing, path, () => left(options.takenMs ?? options.deadlineMs));
  try {
    const conversation = converse(doing, socket, line, options);
    // Who leaves earlier hears nothing more of it.
    conversation.taken.catch(() => {});
    conversation.answer.catch(() => {});
    await within(
      `${doing} to take the request`,
      left(options.takenMs ?? options.deadlineMs),
      () => conversation.taken,
    );
    options.onTaken?.();
    const text = await within(doing, left(options.deadlineMs), () => conversation.answer);
    const isPassedOn = await (options.passOn?.(text) ?? true);
    // Before all is torn down, or the other side takes the answer for unread.
    await new Promise<void>((resolve) => socket.end(isPassedOn ? "" : "lost\n", () => resolve()));
    return text;
  } finally {
    socket.destroy();
  }
}

/** Whoever can make or replace the socket gets to see requests, and answers them. */
async function requireOurs(doing: string, path: string): Promise<void> {
  const status = await lstat(path).catch((error) => {
    throw hostError(doing, error);
  });
  const wrong = !status.isSocket()
    ? "it is no socket"
    : status.uid !== 0 && status.uid !== process.geteuid?.()
    ? `it belongs to user ${status.uid}, not to root`
    : (status.mode & 0o022) !== 0
    ? "others than its owner may write to it"
    : undefined;
  if (wrong !== undefined) throw new HostError("EPERM", `${doing}: ${wrong}`);
}

/** Connects; waits while the queue of the one that serves is full. */
async function connected(
  doing: string,
  path: string,
  bounds: () => { readonly deadlineMs: number; readonly signal?: AbortSignal },
): Promise<Socket> {
  for (;;) {
    const socket = connect({ path, allowHalfOpen: true });
    try {
      await within(doing, bounds(), () =>
        new Promise<void>((resolve, reject) => {
          socket.once("connect", resolve);
          socket.once("error", reject);
        }));
      return socket;
    } catch (error) {
      socket.on("error", () => {});
      socket.destroy();
      if (codeOf(error) !== "EAGAIN") throw hostError(doing, error);
      await wait(FULL_PAUSE_MS, bounds().signal);
    }
  }
}

/** The two things that are heard: that the line was taken, and the answer. */
function converse(
  doing: string,
  socket: Socket,
  line: string,
  options: AskOptions,
): { readonly taken: Promise<void>; readonly answer: Promise<string> } {
  const chunks: Uint8Array[] = [];
  let size = 0;
  let take = () => {};
  let fail = (_error: unknown) => {};
  const taken = new Promise<void>((resolve, reject) => {
    take = resolve;
    fail = reject;
  });
  const answer = new Promise<string>((resolve, reject) => {
    const broken = (error: unknown) => {
      fail(error);
      reject(error);
    };
    socket.on("data", (chunk: Uint8Array) => {
      const end = chunk.indexOf(0x0a);
      chunks.push(end < 0 ? chunk : chunk.subarray(0, end));
      size += chunk.length;
      // An answer without the blank before it: nothing was begun.
      if (chunks[0]?.[0] === TAKEN.charCodeAt(0) || end >= 0) take();
      if (size > options.maxLine) {
        broken(new HostError("EMSGSIZE", `${doing}: the answer is too long`));
      } else if (end >= 0) resolve(Buffer.concat(chunks).toString("utf8").trim());
    });
    const closed = () =>
      broken(new HostError("ECONNRESET", `${doing}: the connection was closed without an answer`));
    socket.on("error", (error) => broken(hostError(doing, error)));
    socket.on("end", closed);
    socket.on("close", closed);
  });
  socket.write(line.endsWith("\n") ? line : `${line}\n`);
  return { taken, answer };
}
