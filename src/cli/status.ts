/** `tnblock status`: the daemon, its arrays and this node's share in the storages, and what is not as it should be. */
import { asTnblockError, TnblockError } from "../common/error.ts";
import { silentLog } from "../common/log.ts";
import { DAEMON_SOCKET } from "../daemon/serve.ts";
import { parseState, type State, STATUS_METHOD } from "../daemon/state.ts";
import { StateSource } from "../daemon/state_source.ts";
import { type Host, HostError } from "../host/host.ts";
import { EXIT } from "./framework.ts";
import { findingsOf, type NoDaemon, verdictOf } from "./status_findings.ts";
import { renderStatus } from "./status_view.ts";

/** A daemon that lives takes a request at once: this is for one that hangs. */
const TAKEN_MS = 2_000;

/** The daemon bounds its own look at the node (`state_source.ts`) by less. */
const ASK_MS = 7_000;

/** Bytes; ten thousand disks fit. */
const MAX_ANSWER = 16 * 1024 * 1024;

/** The statuses that it ends with. */
const STATUS = { ok: EXIT.done, degraded: EXIT.failed, unreachable: EXIT.unreachable } as const;

/** How it is printed. */
export interface StatusOptions {
  readonly json: boolean;
  /** Of the terminal; undefined when it is none. */
  readonly columns: number | undefined;
  /** Of this program. */
  readonly version: string;
}

/**
 * Prints it. Changes nothing, and asks no array.
 *
 * @returns the exit status: 0 when all is well, 1 when something is degraded, 6 when an array or all portals of a
 *   storage cannot be reached.
 * @throws TnblockError `denied` for somebody who may not ask the daemon.
 */
export async function runStatus(
  host: Host,
  { json, columns, version }: StatusOptions,
  out: (text: string) => void,
): Promise<number> {
  const { state, noDaemon } = await readState(host);
  const findings = findingsOf(state, { version, noDaemon });
  const verdict = verdictOf(findings);
  const { schemaVersion, ...rest } = state;
  out(
    json
      ? `${JSON.stringify({ schemaVersion, status: verdict, findings, ...rest }, null, 2)}\n`
      : renderStatus(state, findings, columns),
  );
  return STATUS[verdict];
}

/** Of the daemon; where there is none, of the node alone. */
async function readState(host: Host): Promise<{ state: State; noDaemon?: NoDaemon }> {
  try {
    return { state: await askDaemon(host) };
  } catch (error) {
    const noDaemon = whyNot(error);
    const world = { host, log: silentLog, setDebugLevel: () => {}, limitLogins: true };
    return { state: await new StateSource(world).state(), noDaemon };
  }
}

async function askDaemon(host: Host): Promise<State> {
  const request = { protocol: 1, id: STATUS_METHOD, method: STATUS_METHOD, deadlineMs: ASK_MS };
  let isTaken = false;
  const text = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
    takenMs: TAKEN_MS,
    deadlineMs: ASK_MS,
    maxLine: MAX_ANSWER,
    onTaken: () => isTaken = true,
  }).catch((error) => {
    if (error instanceof HostError && error.code === "ETIMEDOUT") throw hangs(isTaken);
    throw error;
  });
  let answer: { ok?: unknown; result?: unknown; error?: { code?: string; message?: string } };
  try {
    answer = JSON.parse(text);
  } catch {
    answer = {};
  }
  if (answer?.ok === true) return parseState(answer.result);
  const { code, message = "its answer is none" } = answer?.error ?? {};
  if (code === "unsupported") return parseState(undefined);
  throw new TnblockError("host-fault", `the daemon does not tell how it is: ${message}`);
}

function hangs(isTaken: boolean): TnblockError {
  const seconds = (isTaken ? ASK_MS : TAKEN_MS) / 1000;
  const what = isTaken ? "has not answered" : "has not taken a request";
  return new TnblockError(
    "timeout",
    `the daemon hangs: it is there, and ${what} for ${seconds} s`,
    {
      hint: `${LOOK}, then systemctl restart tnblock`,
    },
  );
}

const LOOK = "journalctl -u tnblock -e";

/** @throws TnblockError `denied`. */
function whyNot(error: unknown): NoDaemon {
  if (!(error instanceof HostError)) {
    const { message, hint } = asTnblockError(error);
    return { text: message, fix: hint ?? LOOK };
  }
  switch (error.code) {
    case "ENOENT":
    case "ECONNREFUSED":
      return { text: "the daemon is not running", fix: `systemctl start tnblock, then ${LOOK}` };
    case "EACCES":
      throw new TnblockError("denied", "Cannot ask the daemon: only root may", {
        hint: "Run it as root",
        cause: error,
      });
    case "EPERM":
      return { text: error.message, fix: "Remove it, then run systemctl restart tnblock" };
    default:
      return { text: error.message, fix: LOOK };
  }
}
