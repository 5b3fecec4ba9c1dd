/**
 * Part of linux.ts: locks between processes without flock(2), which node does not have. A lock is an
 * abstract unix socket that somebody listens on: the kernel gives the name to one process only, and
 * takes it back when that process ends, however it ends. Who waits connects to the holder and is
 * woken by the end of that connection. Abstract names belong to a network namespace, so all of our
 * processes must share the host's.
 */
import { createHash, randomBytes } from "node:crypto";
import { link, mkdir, open, readFile, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { posix } from "node:path";
import { type Bounds, type Host, LockError } from "./host.ts";
import { wait } from "./linux_deadline.ts";
import { codeOf, hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** Random text that goes into every name, so that an ordinary user cannot take our names first. */
const TOKEN_FILE = "/run/tnblock/lock-token";

/** A holder that is stuck does not read our connection; look again after that long in any case. */
const LOOK_AGAIN_MS = 1_000;

/** The lock function of a node. */
export function linuxLock(root: Root): Host["lock"] {
  let token: Promise<string> | undefined;
  return async (name, bounds) => {
    token ??= readToken(root);
    let text: string;
    try {
      text = await token;
    } catch (error) {
      token = undefined;
      throw hostError(`Cannot lock "${name}"`, error);
    }
    const digest = createHash("sha256").update(`${text}\n${root.directory}\n${name}`).digest(
      "hex",
    );
    return await take(name, `\0tnblock-${digest}`, bounds);
  };
}

async function take(name: string, path: string, bounds: Bounds): Promise<() => void> {
  const end = performance.now() + bounds.deadlineMs;
  for (;;) {
    bounds.signal?.throwIfAborted();
    const release = await tryListen(name, path);
    if (release !== undefined) return release;
    const left = end - performance.now();
    if (left <= 0) {
      throw new LockError(name, bounds.deadlineMs);
    }
    await holderGone(path, Math.min(left, LOOK_AGAIN_MS), bounds.signal);
  }
}

/** Listens on the name; undefined when somebody else does. */
function tryListen(name: string, path: string): Promise<(() => void) | undefined> {
  return new Promise((resolve, reject) => {
    const waiting = new Set<Socket>();
    const server: Server = createServer((socket) => {
      waiting.add(socket);
      socket.unref();
      socket.on("error", () => {});
      socket.on("close", () => waiting.delete(socket));
    });
    server.once("error", (error) => {
      if (codeOf(error) === "EADDRINUSE") resolve(undefined);
      else reject(hostError(`Cannot lock "${name}"`, error));
    });
    server.listen({ path }, () => {
      // A lock alone is no reason for the process to stay.
      server.unref();
      resolve(() => {
        server.close();
        for (const socket of waiting) socket.destroy();
      });
    });
  });
}

/** Waits until the holder lets go, at most `ms`. */
async function holderGone(path: string, ms: number, signal: AbortSignal | undefined) {
  const socket = connect({ path });
  const gone = new Promise<boolean>((resolve) => {
    socket.on("error", () => resolve(true));
    socket.on("close", () => resolve(true));
    socket.resume();
  });
  const enough = new AbortController();
  const stop = () => enough.abort(signal?.reason);
  signal?.addEventListener("abort", stop, { once: true });
  try {
    await Promise.race([gone, wait(ms, enough.signal)]);
  } finally {
    signal?.removeEventListener("abort", stop);
    enough.abort();
    socket.destroy();
  }
}

/** The token, made once: whoever links its file first wins, everybody reads that one. */
async function readToken(root: Root): Promise<string> {
  const path = await root.follow(TOKEN_FILE);
  const existing = await readFile(path, "utf8").catch((error) => {
    if (codeOf(error) === "ENOENT") return undefined;
    throw error;
  });
  if (existing !== undefined) return existing;
  await mkdir(posix.dirname(path), { recursive: true, mode: 0o755 });
  const temporary = `${path}.${process.pid}.${randomBytes(6).toString("hex")}`;
  const handle = await open(temporary, "wx", 0o600);
  try {
    await handle.writeFile(randomBytes(32).toString("hex"));
    await handle.close();
    await link(temporary, path).catch((error) => {
      if (codeOf(error) !== "EEXIST") throw error;
    });
  } finally {
    await unlink(temporary).catch(() => {});
  }
  return await readFile(path, "utf8");
}
