/**
 * A session over the REST API v2.0 (TrueNAS 25.04 and 25.10; 26 has it no more): the same interface
 * as over the WebSocket, so that every resource file works over both. There is no login: each request
 * carries the key in its header and is checked by itself. So nothing is counted against the 20 logins
 * a minute (`authorize_method_call` in `middlewared/main.py` is not asked by `restful.py`), and each
 * call costs the array a check of the key and an entry in its audit log.
 */
import * as v from "valibot";
import { type Endpoint, parseAddress } from "./address.ts";
import { isAtLeast, parseRelease, type Release } from "./dialect.ts";
import { ArrayError } from "./errors.ts";
import { checked } from "./request.ts";
import { StatusError } from "./rest_errors.ts";
import { RestSession } from "./rest_open_session.ts";
import type { Session, SessionOptions } from "./session.ts";
import { KEY_MENU } from "./key_menu.ts";

const LOGGING_IN = "Cannot log in to TrueNAS over REST";
const DEFAULT_PORT = 443;
const LOGIN_DEADLINE_MS = 25_000;

/**
 * Opens a session: one request, which proves the key and tells the release.
 *
 * Of the options `user`, `loginBudget`, `dialect` and `pingEveryMs` mean nothing here: the key alone
 * says who one is.
 *
 * @throws ArrayError `config`, `unreachable`, `tls`, `auth`, `denied`, `unsupported` (no REST there).
 *   The API key is in none of them.
 */
export async function openRestSession(options: SessionOptions): Promise<Session> {
  if (options.addresses.length === 0) throw configError("no address is configured (tnb-api-host)");
  // It becomes a header: nothing may end the line.
  if (!/^[\x21-\x7e]{1,1000}$/.test(options.apiKey)) {
    throw configError("the API key is empty or holds blanks (tnb-api-key)");
  }
  const endpoints = options.addresses.map((address) =>
    parseAddress(address, options.port ?? DEFAULT_PORT)
  );
  const failures: ArrayError[] = [];
  for (const endpoint of endpoints) {
    try {
      return await openAt(endpoint, options);
    } catch (error) {
      if (!(error instanceof ArrayError) || error.code !== "unreachable") throw error;
      failures.push(error);
    }
  }
  const [first] = failures;
  throw failures.length === 1 && first !== undefined ? first : new ArrayError(
    "unreachable",
    `Cannot connect to TrueNAS: ${
      failures.map((error, index) =>
        `"${endpoints[index]?.text}": ${error.reason ?? error.message}`
      ).join("; ")
    }`,
    { outcome: "not-sent", cause: first },
  );
}

function configError(what: string): ArrayError {
  return new ArrayError("config", `Cannot log in to TrueNAS: ${what}`, { outcome: "not-sent" });
}

async function openAt(endpoint: Endpoint, options: SessionOptions): Promise<Session> {
  const session = new RestSession(endpoint, options);
  const request = {
    method: "system.version",
    params: [],
    doing: LOGGING_IN,
  };
  try {
    const version = await session.call(request.method, request.params, {
      doing: request.doing,
      deadlineMs: options.loginDeadlineMs ?? LOGIN_DEADLINE_MS,
      ...(options.signal ? { signal: options.signal } : {}),
    }).catch((error) => {
      throw error instanceof StatusError ? asFirstAnswer(error, endpoint) : error;
    });
    session.release = restRelease(checked(v.string(), version, request), endpoint);
    return session;
  } catch (error) {
    session.close();
    throw error;
  }
}

/**
 * What a release can do over REST: all but to answer with the result of a job. NVMe is told of, too:
 * before a zvol is destroyed one looks whether it is exported that way.
 */
function restRelease(version: string, endpoint: Endpoint): Release {
  const release = parseRelease(version, "current");
  if (isAtLeast(release, 26, 0)) throw noRest(endpoint, `TrueNAS ${release.text}`);
  return { ...release, can: { ...release.can, jobResults: false } };
}

/** What a status means that comes as the very first answer, when it would mean something else later. */
function asFirstAnswer(error: StatusError, endpoint: Endpoint): ArrayError {
  switch (error.status) {
    case 200:
    case 404:
    case 405:
      return noRest(endpoint, error.status === 200 ? "its answer is no JSON" : "HTTP 404");
    case 500:
      // A key with a number that the array does not know ends in an exception there, not in a 401.
      return new ArrayError(
        "auth",
        `${LOGGING_IN}: the array could not look the API key up (HTTP 500)`,
        {
          outcome: "answered",
          hint:
            `As a rule the key was deleted: make a new one in ${KEY_MENU}, then set tnb-api-key`,
        },
      );
    default:
      return error;
  }
}

function noRest(endpoint: Endpoint, what: string): ArrayError {
  return new ArrayError(
    "unsupported",
    `Cannot use REST at "${endpoint.text}": there is no REST API (${what}), TrueNAS has removed it in release 26`,
    {
      outcome: "answered",
      reason: what,
      field: "tnb-api-transport",
      hint:
        "Set tnb-api-transport ws, the WebSocket API, which TrueNAS has since 25.04; or check that the address is that of a TrueNAS",
    },
  );
}
