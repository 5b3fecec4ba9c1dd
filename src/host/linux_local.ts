/**
 * Part of linux.ts: unix sockets of the node, one line asked and one answered over each connection. Kept
 * apart from the protocol: whoever serves gets the line, takes it and answers it.
 *
 * A line may lie in the kernel's queue for long: while the one that serves starts anew (systemd holds the
 * socket meanwhile), or stands still. So a line that is taken is answered by a blank at once, which JSON does
 * not mind; who has not seen the blank may turn elsewhere, for what is begun is begun after it alone, and
 * not for a caller that has left.
 */
import { Buffer } from "node:buffer";
import { chmod, lstat, mkdir, rename, unlink } from "node:fs/promises";
import { connect, createServer, type Server, type Socket } from "node:net";
import { posix } from "node:path";
import process from "node:process";
import {
  type Host,
  HostError,
  type LocalLine,
  type LocalServer,
  type ServeOptions,
} from "./host.ts";
import { ask, TAKEN } from "./linux_ask.ts";
import { wait } from "./linux_deadline.ts";
import { codeOf, hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** The first descriptor that systemd hands over (sd_listen_fds(3)). */
const FIRST_INHERITED = 3;

/** Connections that the kernel keeps waiting; PVE's dozens of processes come in bursts. */
const BACKLOG = 1024;

/** How long an answered caller may take to close; then it is taken for one that has read the answer. */
const FAREWELL_MS = 5_000;

/** Bytes of an answer that a caller must have read before its time begins anew. */
const PIECE = 64 * 1024;

/** Time for connections that the kernel has made already, when no more are wanted. */
const LAST_CALLERS_MS = 50;

const NEVER = new AbortController().signal;

/** The socket functions of a node. */
export function linuxLocal(root: Root): Pick<Host, "serveLocal" | "askLocal"> {
  return {
    serveLocal: async (path, options, onLine) => {
      const real = await root.follow(path);
      const open = new Set<Socket>();
      const silent = new Set<Socket>();
      // Before it listens: a connection that nobody is there for is taken all the same, and lost.
      const server = createServer({ allowHalfOpen: true }, (socket) => {
        if (open.size >= options.maxConnections && !leaveOut(silent)) {
          socket.on("error", () => {});
          socket.end(options.full);
          destroyAfter(socket, FAREWELL_MS);
          return;
        }
        open.add(socket);
        silent.add(socket);
        socket.on("close", () => {
          open.delete(socket);
          silent.delete(socket);
        });
        serve(socket, options, (line) => {
          silent.delete(socket);
          onLine(line);
        });
      });
      const made = await listen(server, real, options.mode);
      return closer(server, { open, silent, farewell: options.full }, made);
    },
    askLocal: async (path, line, options) => await ask(await root.follow(path), line, options),
  };
}

/** Takes the socket that systemd has made for us, or makes it; `made` is the one that goes at the end. */
async function listen(
  server: Server,
  path: string,
  mode: number,
): Promise<MadeSocket | undefined> {
  const inherited = process.env["LISTEN_PID"] === String(process.pid) &&
    process.env["LISTEN_FDS"] === "1";
  if (inherited) {
    await listening(server, path, (ready) => server.listen({ fd: FIRST_INHERITED }, ready));
    return undefined;
  }
  await makeRoom(path);
  // By another name first: nobody connects before the mode is right; and the runtimes remove a socket by the
  // name that it was made by, which must not be the one that the next daemon may have by then.
  const first = `${path}.${process.pid}`;
  await listening(server, path, (ready) => server.listen({ path: first, backlog: BACKLOG }, ready));
  try {
    await chmod(first, mode);
    const { ino } = await lstat(first);
    await rename(first, path);
    return { path, inode: ino };
  } catch (error) {
    server.close();
    throw hostError(`Cannot listen on ${path}`, error);
  }
}

/** A socket in the file system. */
interface MadeSocket {
  readonly path: string;
  readonly inode: number;
}

async function listening(
  server: Server,
  path: string,
  begin: (ready: () => void) => void,
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) => reject(hostError(`Cannot listen on ${path}`, error)));
    begin(resolve);
  });
  // What goes wrong with one connection is its own.
  server.on("error", () => {});
}

/** Removes what a dead process left; a living one keeps its socket. */
async function makeRoom(path: string): Promise<void> {
  await mkdir(posix.dirname(path), { recursive: true, mode: 0o755 });
  const status = await lstat(path).catch((error) => {
    if (codeOf(error) === "ENOENT") return undefined;
    throw hostError(`Cannot listen on ${path}`, error);
  });
  if (status === undefined) return;
  if (!status.isSocket()) {
    throw new HostError("EEXIST", `Cannot listen on ${path}: it is no socket`);
  }
  const answers = await new Promise<boolean>((resolve) => {
    const probe = connect({ path });
    probe.on("connect", () => (probe.destroy(), resolve(true)));
    // A queue that is full has somebody behind it.
    probe.on("error", (error) => resolve(codeOf(error) === "EAGAIN"));
  });
  if (answers) throw new HostError("EADDRINUSE", `Cannot listen on ${path}: another process does`);
  await unlink(path);
}

/** Closes the oldest connection that has not sent its line, if there is one. */
function leaveOut(silent: Set<Socket>): boolean {
  const [oldest] = silent;
  if (oldest === undefined) return false;
  silent.delete(oldest);
  oldest.destroy();
  return true;
}

function serve(socket: Socket, options: ServeOptions, onLine: (line: LocalLine) => void): void {
  const chunks: Uint8Array[] = [];
  let size = 0;
  let isWhole = false;
  const gone = new AbortController();
  const stop = destroyAfter(socket, options.lineDeadlineMs);
  socket.on("error", () => gone.abort());
  socket.on("close", () => gone.abort());
  // A caller that has what it wants closes; one that shuts down its half has gone as well.
  socket.on("end", () => {
    gone.abort();
    // Without a whole line there is nothing to answer; and what is being answered ends by itself.
    if (!isWhole) socket.destroy();
  });
  const onData = (chunk: Uint8Array) => {
    const end = chunk.indexOf(0x0a);
    const piece = end < 0 ? chunk : chunk.subarray(0, end);
    size += piece.length;
    chunks.push(piece);
    if (end < 0 && size <= options.maxLine) return;
    isWhole = true;
    socket.off("data", onData);
    // Read on, or the end of the caller is never seen.
    socket.resume();
    stop();
    onLine({
      text: size > options.maxLine ? undefined : Buffer.concat(chunks).toString("utf8"),
      gone: gone.signal,
      take: async () =>
        await write(socket, TAKEN, options.lineDeadlineMs, gone.signal) && !gone.signal.aborted,
      answer: (text) => reply(socket, text, options.lineDeadlineMs, gone.signal),
    });
  };
  socket.on("data", onData);
}

/**
 * Destroys a socket after `ms`, unless the returned function is called first. Not by the socket's own timer: that
 * begins anew with each byte, and bun's never ends while something waits to be written (oven-sh/bun#42403).
 */
function destroyAfter(socket: Socket, ms: number): () => void {
  if (socket.destroyed) return () => {};
  const timer = setTimeout(() => socket.destroy(), ms);
  const stop = () => {
    clearTimeout(timer);
    socket.off("close", stop);
  };
  socket.once("close", stop);
  return stop;
}

/**
 * Writes, piece by piece; false when the caller had gone before, or has not made room for a piece within
 * `pieceMs`, in which case the socket is destroyed.
 */
async function write(
  socket: Socket,
  text: string,
  pieceMs: number,
  gone: AbortSignal,
): Promise<boolean> {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; at += PIECE) {
    const stop = destroyAfter(socket, pieceMs);
    const isWritten = await writePiece(socket, bytes.subarray(at, at + PIECE), gone);
    stop();
    if (!isWritten) return false;
  }
  return true;
}

function writePiece(socket: Socket, piece: Uint8Array, gone: AbortSignal): Promise<boolean> {
  return new Promise((resolve) => {
    const lost = () => resolve(false);
    if (gone.aborted || socket.destroyed) {
      socket.destroy();
      lost();
      return;
    }
    // On a socket that breaks meanwhile not every runtime calls back.
    socket.once("close", lost);
    socket.write(piece, (error) => {
      socket.off("close", lost);
      // A caller that is quick has read it and left by now.
      resolve(!error);
    });
  });
}

/**
 * Writes the answer and waits until the caller has closed. A caller that dies with the answer unread resets
 * the connection, and one that could not pass it on says anything else before it closes: false, both.
 */
async function reply(
  socket: Socket,
  text: string,
  pieceMs: number,
  gone: AbortSignal,
): Promise<boolean> {
  let isRead = true;
  socket.once("error", () => isRead = false);
  socket.once("data", () => isRead = false);
  if (!await write(socket, text, pieceMs, gone)) {
    socket.destroy();
    return false;
  }
  socket.end();
  return await new Promise((resolve) => {
    const done = () => resolve(isRead);
    destroyAfter(socket, FAREWELL_MS);
    if (socket.destroyed) done();
    else socket.once("close", done);
  });
}

/** Connections, those among them that have not sent their line, and what these hear at the end. */
interface Connections {
  readonly open: Set<Socket>;
  readonly silent: Set<Socket>;
  readonly farewell: string;
}

function closer(
  server: Server,
  { open, silent, farewell }: Connections,
  made: MadeSocket | undefined,
): LocalServer {
  return {
    connections: () => open.size,
    stopListening: async () => {
      if (made !== undefined) {
        // Gone before the last answer: the next call finds no daemon, and no dead one either.
        const now = await lstat(made.path).catch(() => undefined);
        if (now?.ino === made.inode) await unlink(made.path).catch(() => {});
        await wait(LAST_CALLERS_MS);
      }
      // The socket of systemd stays, with those in its queue.
      server.close();
    },
    close: async () => {
      server.close();
      await Promise.all([...silent].map((socket) => write(socket, farewell, FAREWELL_MS, NEVER)));
      for (const socket of open) socket.destroy();
    },
  };
}
