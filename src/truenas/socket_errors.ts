/** What a connection fails with, in our words: TLS, network, HTTP status, close codes. Pure. */
import type { Endpoint } from "./address.ts";
import { ArrayError } from "./errors.ts";
import { formatFingerprint } from "./fingerprint.ts";

/** A dialect that the server does not know: the next one is tried. */
export class UnknownPathError extends ArrayError {}

/** The server is not the one that is trusted; `found` is the fingerprint that it shows. */
export function distrust(endpoint: Endpoint, why: string, found: string | undefined): ArrayError {
  return new ArrayError("tls", `Cannot connect to "${endpoint.text}": ${why}`, {
    outcome: "not-sent",
    reason: why,
    ...(found === undefined ? {} : {
      hint: `The server shows the certificate with the SHA-256 fingerprint ${
        formatFingerprint(found)
      }. Compare it with the one in the TrueNAS UI (Credentials > Certificates), and pin it if they are equal`,
    }),
  });
}

/** No connection. */
export function unreachable(endpoint: Endpoint, why: string): ArrayError {
  return new ArrayError("unreachable", `Cannot connect to "${endpoint.text}": ${why}`, {
    outcome: "not-sent",
    reason: why,
  });
}

/** The caller ended the attempt. */
export function givenUp(endpoint: Endpoint, signal: AbortSignal | undefined): ArrayError {
  return new ArrayError("timeout", `Cannot connect to "${endpoint.text}": the caller gave up`, {
    outcome: "not-sent",
    cause: signal?.reason,
  });
}

const NETWORK_WORDS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  ETIMEDOUT: "no answer",
  ECONNRESET: "the connection was reset",
  EPIPE: "the connection was reset",
  EADDRNOTAVAIL: "the address cannot be reached from here",
  ENOTFOUND: "the host name is not known",
  EAI_AGAIN: "the name server does not answer",
  EAI_FAIL: "the host name is not known",
  EAI_NODATA: "the host name is not known",
  EAI_NONAME: "the host name is not known",
};

/** What went wrong before the handshake was complete; each runtime has its own words and codes. */
export function connectError(endpoint: Endpoint, error: unknown): ArrayError {
  const code = codeOf(error);
  const text = error instanceof Error ? error.message : String(error);
  const words = NETWORK_WORDS[code];
  if (words !== undefined) return unreachable(endpoint, words);
  // Deno may give a name server's failure without a code.
  if (/lookup address|getaddrinfo|not known|ENOTFOUND/i.test(text)) {
    return unreachable(endpoint, "the host name is not known");
  }
  if (isPlainHttp(code, text)) {
    return new ArrayError(
      "tls",
      `Cannot connect to "${endpoint.text}": the server does not speak TLS on this port`,
      {
        outcome: "not-sent",
        reason: "the server does not speak TLS on this port",
        hint: "Give the port of the HTTPS web UI of TrueNAS, 443 as a rule",
      },
    );
  }
  const why = tlsWords(code, text);
  return new ArrayError("tls", `Cannot connect to "${endpoint.text}": ${why}`, {
    outcome: "not-sent",
    reason: why,
    cause: error,
  });
}

function isPlainHttp(code: string, text: string): boolean {
  return /WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|INVALID_RECORD/.test(code) ||
    /wrong version number|http request|packet length|InvalidContentType|corrupt message/i.test(
      text,
    );
}

function tlsWords(code: string, text: string): string {
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID" || /NotValidForName|altnames/i.test(text)) {
    return "its certificate is for another host name";
  }
  if (code === "CERT_HAS_EXPIRED" || /expired/i.test(text)) return "its certificate has expired";
  if (/SELF_SIGNED|UNABLE_TO|CERT_|UnknownIssuer/.test(`${code} ${text}`)) {
    return "its certificate is not trusted";
  }
  return `the TLS handshake failed (${(text || code).replace(/\s+/g, " ").slice(0, 200)})`;
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  if (typeof code === "string") return code;
  // Happy eyeballs: one error for each address of a name.
  const inner = (error as { errors?: readonly unknown[] } | null)?.errors?.[0];
  return inner === undefined ? "" : codeOf(inner);
}

/** An HTTP status instead of the upgrade. */
export function statusError(
  endpoint: Endpoint,
  path: string,
  status: number | undefined,
): ArrayError {
  const begin = `Cannot connect to "${endpoint.text}"`;
  const details = { outcome: "not-sent" as const, reason: `HTTP status ${status}` };
  if (status === 404) {
    return new UnknownPathError("unsupported", `${begin}: it has no API at "${path}"`, {
      ...details,
      hint: "tnblock needs TrueNAS 25.04 or newer; check that the address is that of a TrueNAS",
    });
  }
  if (status === 401 || status === 403) {
    return new ArrayError("denied", `${begin}: it refuses the connection (HTTP ${status})`, {
      ...details,
      hint: "A proxy or the allow list in front of the TrueNAS web UI does not let this node in",
    });
  }
  if (status !== undefined && status >= 500) {
    return new ArrayError("unreachable", `${begin}: the API is not up (HTTP ${status})`, details);
  }
  if (status !== undefined && status >= 300 && status < 400) {
    return new ArrayError("config", `${begin}: it points to another address (HTTP ${status})`, {
      ...details,
      hint: "Give the address of the TrueNAS web UI itself",
    });
  }
  return new ArrayError(
    "unsupported",
    `${begin}: it is no TrueNAS API (HTTP ${status ?? "without a status"})`,
    details,
  );
}

/** Close codes with a meaning (`ws_handler/rpc.py`, `main.py`). */
export function closeError(endpoint: Endpoint, code: number, reason: string): ArrayError {
  const begin = `Cannot go on with "${endpoint.text}"`;
  const words = reason.replace(/\s+/g, " ").slice(0, 200);
  if (code === 1008) {
    return new ArrayError("denied", `${begin}: TrueNAS does not allow this node's address`, {
      outcome: "unknown",
      reason: words,
      hint: "Add this node to System > General Settings > GUI > Allowed IP Addresses on TrueNAS",
    });
  }
  if (code === 1003 || code === 1007 || code === 1009) {
    return new ArrayError(
      "internal",
      `${begin}: TrueNAS did not accept a message (${code}${words === "" ? "" : `, ${words}`})`,
      { outcome: "unknown", reason: words },
    );
  }
  return new ArrayError(
    "unreachable",
    `${begin}: the connection was closed (${code}${words === "" ? "" : `, ${words}`})`,
    { outcome: "unknown", reason: words },
  );
}

/** A failure of an open connection. */
export function frameError(endpoint: Endpoint, error: Error): ArrayError {
  const tooLong = (error as { code?: unknown }).code === "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH";
  return new ArrayError(
    tooLong ? "array-fault" : "unreachable",
    tooLong
      ? `Cannot go on with "${endpoint.text}": an answer is longer than 64 MiB`
      : `Cannot go on with "${endpoint.text}": the connection broke`,
    { outcome: "unknown", cause: error },
  );
}
