/** Asking the daemon how it is. */
import { asTnblockError } from "../common/error.ts";
import { DAEMON_SOCKET } from "../daemon/serve.ts";
import { parseState, type State, STATUS_METHOD } from "../daemon/state.ts";
import { type Host, HostError } from "../host/host.ts";

/** What came of asking. */
export type DaemonAnswer =
  | { readonly kind: "answered"; readonly state: State }
  /** Nobody serves its socket. */
  | { readonly kind: "absent" }
  /** The socket is one that others than root can have made, or may not be asked. */
  | { readonly kind: "distrusted"; readonly why: string }
  /** It is there, and does not answer, or something that is not understood. */
  | { readonly kind: "silent"; readonly why: string };

const TAKEN_MS = 2_000;
const ASK_MS = 7_000;
/** Bytes; ten thousand disks fit. */
const MAX_ANSWER = 16 * 1024 * 1024;

/** Never rejects. */
export async function askDaemon(host: Host): Promise<DaemonAnswer> {
  const request = { protocol: 1, id: STATUS_METHOD, method: STATUS_METHOD, deadlineMs: ASK_MS };
  try {
    const text = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      takenMs: TAKEN_MS,
      deadlineMs: ASK_MS,
      maxLine: MAX_ANSWER,
    });
    const answer = JSON.parse(text);
    if (answer?.ok === true) return { kind: "answered", state: parseState(answer.result) };
    return { kind: "silent", why: String(answer?.error?.message ?? "its answer is none") };
  } catch (error) {
    const code = error instanceof HostError ? error.code : "";
    if (code === "ENOENT" || code === "ECONNREFUSED") return { kind: "absent" };
    const why = error instanceof HostError ? error.message : asTnblockError(error).message;
    return { kind: code === "EPERM" || code === "EACCES" ? "distrusted" : "silent", why };
  }
}
