/**
 * The node as the rest of tnblock sees it: files, programs, clock, locks. All side effects on the
 * node go through this interface; `linux.ts` is its only real implementation and the only place
 * that knows that everything may lie below another root.
 *
 * Paths are absolute and always those of a real system (`/sys/block`, `/dev/nvme-fabrics`).
 */

/** What a path is. */
export interface FileStatus {
  /** Below a root other than `/` a regular file below `/dev` counts as a block device. */
  readonly kind: "file" | "directory" | "block" | "character" | "other";
  /** Bytes; 0 for devices. */
  readonly size: number;
  readonly inode: number;
  /** Permission bits, e.g. `0o600`. */
  readonly mode: number;
  /** Numeric owner. */
  readonly uid: number;
  /** `major:minor` of a device node; undefined for everything else. */
  readonly device: string | undefined;
  /** Milliseconds since the epoch. */
  readonly modifiedMs: number;
}

/** A bounded wait: every one has a deadline, and may be given up. */
export interface Bounds {
  /** Milliseconds from now. */
  readonly deadlineMs: number;
  readonly signal?: AbortSignal;
}

/** How a program ended. */
export interface ProgramResult {
  /** Exit status; 128 + signal number when a signal ended it. */
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a program is run. */
export interface RunOptions extends Bounds {
  /** Text for its standard input; empty when absent. */
  readonly input?: string;
  /** What its environment holds beside PATH and LC_ALL. */
  readonly environment?: Readonly<Record<string, string>>;
}

/**
 * A failed operation of the node, with the kernel's name for it, e.g. `ENOENT`, `EBUSY`.
 * Callers turn it into a `TnblockError` that says what was being done.
 */
export class HostError extends Error {
  override readonly name = "HostError";
  constructor(
    /** The kernel's symbolic name, e.g. `ECONNREFUSED`; `ETIMEDOUT` also when our own deadline passed. */
    readonly code: string,
    message: string,
    options?: { cause?: unknown },
  ) {
    super(message, options);
  }
}

/** A lock of the node that somebody else held for too long. */
export class LockError extends HostError {
  constructor(lock: string, heldMs: number) {
    super("ETIMEDOUT", `Cannot lock "${lock}": held for ${heldMs} ms`);
  }
}

/** How a control file is written. */
export interface ControlBounds extends Bounds {
  /**
   * Called once, when the write is over or was never begun: however long after the deadline that is.
   * Who holds a lock for the write gives it back here, so that nobody sends another write after one
   * that hangs; neither could be killed.
   */
  readonly onEnd?: () => void;
}

/** Files of the node. Absence is `undefined` where reading may find nothing; all else is a {@link HostError}. */
export interface HostFiles {
  /** The text of a file (at most 1 MiB), or undefined when it does not exist. */
  readText(path: string): Promise<string | undefined>;
  /** The bytes of a file (at most 1 MiB), or undefined when it does not exist. */
  readBytes(path: string): Promise<Uint8Array | undefined>;
  /** The names in a directory, sorted; undefined when it does not exist. */
  list(path: string): Promise<string[] | undefined>;
  /** Status of what the path resolves to; undefined when it does not exist or dangles. */
  status(path: string): Promise<FileStatus | undefined>;
  /** The text of a symbolic link, or undefined when there is no link at this path. */
  readLink(path: string): Promise<string | undefined>;
  /** The path with all links resolved (as seen from the root), or undefined when it dangles. */
  resolve(path: string): Promise<string | undefined>;
  /**
   * Writes a whole file by a temporary name and a rename; the directory is made when missing. `durable`: it is
   * there after a loss of power too.
   */
  replaceText(
    path: string,
    text: string,
    mode: number,
    options?: { readonly durable: boolean },
  ): Promise<void>;
  /**
   * Points a symbolic link at `target` by a temporary name and a rename. An absolute target below a
   * root is written as a relative link. The directory must exist.
   */
  replaceLink(path: string, target: string): Promise<void>;
  /** Removes a file or link; false when there was none. `durable`: it stays away after a loss of power. */
  remove(path: string, options?: { readonly durable: boolean }): Promise<boolean>;
  /** Makes a directory and its parents; fine when it exists. */
  makeDirectory(path: string, mode: number): Promise<void>;
  /**
   * Writes to a kernel control file (a sysfs attribute). Returns when the kernel has taken it.
   * Bounded: after the deadline `ETIMEDOUT`, the write itself may still go on in the kernel.
   */
  writeControl(path: string, text: string, bounds: ControlBounds): Promise<void>;
}

/**
 * The links to disks. `/dev/tnblock` is a read-only view of a link tree that is written elsewhere, and
 * the links lead through a read-only view of `/dev`: so a program that opens a missing or dangling
 * path with O_CREAT fails with EROFS and never leaves a file (docs/kernel-facts.md).
 */
export interface LinkPlace {
  /** Where links are read: `/dev/tnblock`. */
  readonly view: string;
  /** Where the same links are written. */
  readonly folder: string;
  /** What stands for `/dev` in the text of a link that is two folders below {@link view}. */
  readonly devices: string;
}

/** One line that came over a unix socket, and the way to answer it. */
export interface LocalLine {
  /** Without its line feed; undefined when it was longer than is taken. */
  readonly text: string | undefined;
  /** Aborted when the caller has closed its end. */
  readonly gone: AbortSignal;
  /**
   * Tells the caller that its line is taken, which must come before anything is begun; false when the
   * caller is gone, and may have turned to somebody else.
   */
  take(): Promise<boolean>;
  /**
   * Writes the answer (which ends in a line feed) and closes; resolves when the caller has closed too.
   * False when it was gone before it had read the answer, or could not pass it on.
   */
  answer(text: string): Promise<boolean>;
}

/** A unix socket that is served. */
export interface LocalServer {
  /** Connections that are open. */
  connections(): number;
  /** Takes no more connections; those that are open go on. */
  stopListening(): Promise<void>;
  /** Ends everything. */
  close(): Promise<void>;
}

/** How a unix socket is served. */
export interface ServeOptions {
  /** Permission bits of the socket. */
  readonly mode: number;
  /** Bytes of a line; a longer one is told as undefined. */
  readonly maxLine: number;
  /** Milliseconds within which a connection must have sent its line, and then must go on reading the answer. */
  readonly lineDeadlineMs: number;
  /** With so many open the oldest that has not sent its line is closed; if all have, a new one gets {@link full}. */
  readonly maxConnections: number;
  /** A line, with its line feed. */
  readonly full: string;
}

/** How a line is sent to a unix socket. The deadline bounds all of it. */
export interface AskOptions extends Bounds {
  /** Bytes of the answer. */
  readonly maxLine: number;
  /** Milliseconds within which the line must have been taken; as long as the deadline unless told. */
  readonly takenMs?: number;
  /** Called when the line was taken: whatever fails later may have been done. */
  readonly onTaken?: () => void;
  /** Passes the answer on; where that fails (false) the other side hears that nobody has its answer. */
  readonly passOn?: (text: string) => Promise<boolean>;
}

/** The node. */
export interface Host {
  readonly files: HostFiles;
  /** The node's name, e.g. `pve1`. */
  readonly nodeName: string;
  /** Milliseconds since the epoch. */
  now(): number;
  /** Milliseconds of a clock that never jumps. */
  monotonicMs(): number;
  /** Waits; rejects with the signal's reason when it is aborted. */
  wait(ms: number, signal?: AbortSignal): Promise<void>;
  /** A random UUID, lower case. */
  randomUuid(): string;
  /** A random integer from 0 up to, not including, `limit`. */
  randomInteger(limit: number): number;
  /**
   * Runs a program by its absolute path with an argument array, a clean environment and `/` as
   * working directory. A non-zero status is a result, not an error. Output is cut at 1 MiB. Errors:
   * `ENOENT` when there is no such program, `ETIMEDOUT` when the deadline passed (it is killed then).
   */
  run(program: string, args: readonly string[], options: RunOptions): Promise<ProgramResult>;
  /**
   * Takes a lock of the node, across processes; it is given back by the returned function, or when
   * this process ends. {@link LockError} when it could not be had in time.
   */
  lock(name: string, bounds: Bounds): Promise<() => void>;
  /** Opens a TCP connection, sends, reads `expectBytes` bytes (0: none), and closes. Errors as the kernel names them. */
  exchangeTcp(
    address: string,
    port: number,
    send: Uint8Array,
    expectBytes: number,
    bounds: Bounds,
  ): Promise<Uint8Array>;
  /**
   * Listens on a unix socket: on the one that systemd has opened for us (sd_listen_fds(3)) when there is
   * one, else on one made at `path`. One line is read from each connection. `EADDRINUSE` when another
   * process serves it.
   */
  serveLocal(
    path: string,
    options: ServeOptions,
    onLine: (line: LocalLine) => void,
  ): Promise<LocalServer>;
  /**
   * Sends one line to a unix socket and gives the line that is answered. Errors: `ENOENT`, `ECONNREFUSED`
   * where nobody serves it; `EPERM` for a socket that others than root can have made; `ETIMEDOUT`; `ECONNRESET`.
   */
  askLocal(path: string, line: string, options: AskOptions): Promise<string>;
  /**
   * Writes a connect string to `/dev/nvme-fabrics` and returns the kernel's answer
   * (`instance=0,cntlid=1`). The error's code is the kernel's (`EALREADY`, `EIO`, `ENOKEY` ...).
   */
  connectFabrics(options: string, bounds: Bounds): Promise<string>;
  /** The connect options this kernel takes (the text of a bare read of `/dev/nvme-fabrics`), or undefined without the module. */
  fabricsOptions(): Promise<string | undefined>;
  /**
   * Opens a block device read-only and exclusively, and closes it: "free", "busy" (`EBUSY`), or
   * "unknown" where the runtime cannot ask or the device cannot answer, as a dead path.
   */
  probeExclusive(path: string): Promise<"free" | "busy" | "unknown">;
  /**
   * Processes (not this one) that hold one of the devices (or, below a root, of the files) open. A
   * path where there is nothing has none.
   */
  holders(
    paths: readonly string[],
  ): Promise<readonly { readonly pid: number; readonly name: string }[]>;
  /** Where links to disks are written and what they say, see {@link LinkPlace}. */
  readonly linkPlace: LinkPlace;
  /** Makes the mounts behind {@link linkPlace}, once a boot; below a root a plain directory. */
  prepareLinks(): Promise<void>;
  /** The kernel's messages written since `sinceMs` (monotonic), newest last, at most 50; for error texts only. */
  kernelLog(sinceMs: number): Promise<readonly string[]>;
}
