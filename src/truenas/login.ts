/**
 * The login with an API key. A refused key is a *result* of `auth.login_ex`, not an error, and comes
 * after a delay of 1 to 2 s; the 21st login in a minute is an error after 1 to 10 s. Nothing here is
 * ever repeated: each try counts.
 */
import * as v from "valibot";
import type { Wait } from "./caller.ts";
import { ArrayError, isUnsupported } from "./errors.ts";
import { checked } from "./request.ts";
import type { Rpc } from "./rpc.ts";
import { KEY_MENU } from "./key_menu.ts";

/** Who logs in. */
export interface Credentials {
  /** The key's user; without it the older call is used, which 27 has no more. */
  readonly user?: string;
  /** `<id>-<64 characters>`. */
  readonly apiKey: string;
}

const answerSchema = v.looseObject({
  response_type: v.string(),
  urls: v.optional(v.array(v.string())),
});

/**
 * Logs in on a fresh connection.
 *
 * @returns undefined, or the addresses of the other controller that one is sent to (HA).
 * @throws ArrayError `auth`, `denied`, `rate-limited`, `unsupported`. The key is in none of them.
 */
export async function logIn(
  rpc: Rpc,
  credentials: Credentials,
  wait: Wait,
): Promise<readonly string[] | undefined> {
  const doing = "Cannot log in to TrueNAS";
  const options = { ...wait, doing };
  try {
    if (credentials.user === undefined) return await logInWithKeyOnly(rpc, credentials, options);
    const request = {
      method: "auth.login_ex",
      params: [{
        mechanism: "API_KEY_PLAIN",
        username: credentials.user,
        api_key: credentials.apiKey,
        login_options: { user_info: false },
      }],
      doing,
    };
    let answer: unknown;
    try {
      answer = await rpc.call(request.method, request.params, options);
    } catch (error) {
      if (isUnsupported(error)) return await logInWithKeyOnly(rpc, credentials, options);
      throw error;
    }
    return judge(checked(answerSchema, answer, request), doing);
  } catch (error) {
    throw withoutKey(error, credentials.apiKey);
  }
}

type LoginOptions = Wait & { readonly doing: string };

async function logInWithKeyOnly(
  rpc: Rpc,
  credentials: Credentials,
  options: LoginOptions,
): Promise<undefined> {
  const accepted = await rpc.call("auth.login_with_api_key", [credentials.apiKey], options);
  if (accepted !== true) throw refused(options.doing, "AUTH_ERR");
}

function judge(
  answer: v.InferOutput<typeof answerSchema>,
  doing: string,
): readonly string[] | undefined {
  if (answer.response_type === "SUCCESS") return undefined;
  if (answer.response_type === "REDIRECT") return answer.urls ?? [];
  throw refused(doing, answer.response_type);
}

function refused(doing: string, type: string): ArrayError {
  const details = { outcome: "answered" as const, method: "auth.login_ex", reason: type };
  const menu = `${KEY_MENU}, then set tnb-api-key`;
  switch (type) {
    case "AUTH_ERR":
      return new ArrayError("auth", `${doing}: the API key or its user name is wrong`, {
        ...details,
        hint: `Check tnb-api-user, or make a new key in ${menu}`,
      });
    case "EXPIRED":
      return new ArrayError("auth", `${doing}: the API key has expired or was revoked`, {
        ...details,
        hint:
          `Make a new key in ${menu}. TrueNAS revokes a key for good when it is used once without TLS, also behind a proxy`,
      });
    case "DENIED":
      return new ArrayError("denied", `${doing}: the user may not use the API`, details);
    case "OTP_REQUIRED":
      return new ArrayError("unsupported", `${doing}: it asks for a one-time code`, {
        ...details,
        hint:
          "API keys work at the authenticator assurance level 1 only; use a user without two-factor authentication",
      });
    default:
      return new ArrayError(
        "unsupported",
        `${doing}: it asks for a login of another kind`,
        details,
      );
  }
}

/** The server's words about a bad request could repeat what was sent. */
function withoutKey(error: unknown, key: string): unknown {
  if (!(error instanceof ArrayError)) return error;
  const texts = [error.message, error.reason, error.hint, JSON.stringify(error.findings)];
  if (!texts.some((text) => text?.includes(key))) return error;
  const hide = (text: string) => text.replaceAll(key, "********");
  return new ArrayError(error.code, hide(error.message), {
    outcome: error.outcome,
    ...(error.method === undefined ? {} : { method: error.method }),
    ...(error.rpcCode === undefined ? {} : { rpcCode: error.rpcCode }),
    ...(error.reason === undefined ? {} : { reason: hide(error.reason) }),
    ...(error.errno === undefined ? {} : { errno: error.errno }),
  });
}
