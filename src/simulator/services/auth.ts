/** `auth` and `api_key`: logging in and being somebody. */

import { randomBytes } from "node:crypto";
import type { Json, JsonObject } from "../json.ts";
import { date } from "../json.ts";
import { CallError, PythonError } from "../errors.ts";
import { query } from "../filters.ts";
import { pause } from "../latency.ts";
import type { User } from "../world.ts";
import { object } from "./service.ts";
import type { Call, Methods } from "./service.ts";

interface Token {
  readonly user: User;
  readonly ttl: number;
  readonly singleUse: boolean;
  readonly address: string | undefined;
  lastUse: number;
}

const tokens = new WeakMap<object, Map<string, Token>>();

function tokensOf(call: Call): Map<string, Token> {
  const known = tokens.get(call.sim) ?? new Map<string, Token>();
  tokens.set(call.sim, known);
  return known;
}

function byKey(call: Call, key: Json | undefined): User | undefined {
  return [...call.sim.world.users.values()].find((user) => user.apiKey === key);
}

function byToken(call: Call, text: string): User | undefined {
  const all = tokensOf(call);
  const token = all.get(text);
  const now = call.sim.now();
  if (token === undefined || now - token.lastUse > token.ttl * 1000) return undefined;
  if (token.address !== undefined && token.address !== call.session.address) return undefined;
  if (token.singleUse) all.delete(text);
  token.lastUse = now;
  return token.user;
}

function logIn(call: Call, user: User, mechanism: "LOGIN_PASSWORD" | "API_KEY" | "TOKEN"): void {
  call.sim.stats.logins += 1;
  call.session.login(user, mechanism, call.sim.now());
}

async function refusal(call: Call): Promise<void> {
  await pause(call.sim.latency.loginFailure());
}

function userInfo(user: User): JsonObject {
  const full = user.roles.includes("FULL_ADMIN");
  return {
    pw_name: user.name,
    pw_gecos: user.name,
    pw_dir: "/var/empty",
    pw_shell: "/usr/sbin/nologin",
    pw_uid: 950,
    pw_gid: 950,
    grouplist: [],
    sid: null,
    source: "LOCAL",
    local: true,
    attributes: {},
    two_factor_config: { provisioning_uri: null, secret_configured: false },
    privilege: {
      roles: { $set: [...user.roles] },
      allowlist: full ? [{ method: "*", resource: "*" }] : [],
      web_shell: full,
      webui_access: full,
    },
    account_attributes: ["LOCAL", "API_KEY"],
  };
}

async function loginEx(call: Call, [given]: Json[]): Promise<Json> {
  const data = object(given);
  const { users } = call.sim.world;
  let user: User | undefined;
  let mechanism: "LOGIN_PASSWORD" | "API_KEY" | "TOKEN" = "LOGIN_PASSWORD";
  switch (data.mechanism) {
    case "API_KEY_PLAIN":
      mechanism = "API_KEY";
      user = users.get(String(data.username));
      if (user?.apiKey !== data.api_key) user = undefined;
      break;
    case "PASSWORD_PLAIN":
      user = users.get(String(data.username));
      if (user?.password === undefined || user.password !== data.password) user = undefined;
      break;
    case "TOKEN_PLAIN":
      mechanism = "TOKEN";
      user = byToken(call, String(data.token));
      break;
    case "OTP_TOKEN":
      throw new CallError("OTP_TOKEN: no authentication in progress", 22);
  }
  if (user === undefined) {
    await refusal(call);
    return { response_type: "AUTH_ERR" };
  }
  logIn(call, user, mechanism);
  const wanted = object(data.login_options).user_info !== false;
  return {
    response_type: "SUCCESS",
    user_info: wanted ? userInfo(user) : null,
    authenticator: "LEVEL_1",
    ...(call.sim.release.major < 2600 ? {} : { reconnect_token: null }),
  };
}

function keyEntry(call: Call, user: User): JsonObject {
  const secret: JsonObject = call.sim.release.major < 2600 ? { keyhash: "********" } : {
    iterations: 500_000,
    salt: "********",
    server_key: "********",
    stored_key: "********",
  };
  return {
    id: user.apiKeyId,
    name: user.name,
    username: user.name,
    user_identifier: 950,
    ...secret,
    created_at: date(0),
    expires_at: null,
    local: true,
    revoked: false,
    ...(call.sim.release.major < 2510 ? {} : { revoked_reason: null }),
  };
}

const keyEntries = (call: Call) =>
  [...call.sim.world.users.values()].map((user) => keyEntry(call, user));

export const auth: Methods = {
  "auth.login_ex": loginEx,
  "auth.login_ex_continue": () => {
    throw new CallError("OTP_TOKEN: no authentication in progress", 22);
  },
  "auth.login": async (call, [name, password]) => {
    const user = call.sim.world.users.get(String(name));
    if (user?.password === undefined || user.password !== password) {
      await refusal(call);
      return false;
    }
    logIn(call, user, "LOGIN_PASSWORD");
    return true;
  },
  "auth.login_with_api_key": async (call, [key]) => {
    const user = byKey(call, key);
    if (user === undefined) await refusal(call);
    else logIn(call, user, "API_KEY");
    return user !== undefined;
  },
  "auth.login_with_token": async (call, [token]) => {
    const user = byToken(call, String(token));
    if (user === undefined) await refusal(call);
    else logIn(call, user, "TOKEN");
    return user !== undefined;
  },
  "auth.mechanism_choices": (call) => {
    // 25.x asks the session that is not there before a login.
    if (call.session.user === undefined && call.sim.release.major < 2600) {
      const text = "'NoneType' object has no attribute 'may_create_auth_token'";
      throw new PythonError("AttributeError", text);
    }
    const all = ["API_KEY_PLAIN", "PASSWORD_PLAIN", "TOKEN_PLAIN"];
    return call.sim.release.major < 2600 ? all : [...all, "SCRAM"];
  },
  "auth.generate_token": (call, [ttl, _attrs, matchOrigin, singleUse]) => {
    const { user, address } = call.session;
    if (user === undefined) return null;
    const token = randomBytes(48).toString("base64url").slice(0, 64);
    tokensOf(call).set(token, {
      user,
      ttl: typeof ttl === "number" ? ttl : 600,
      singleUse: singleUse === true,
      address: matchOrigin === false ? undefined : address,
      lastUse: call.sim.now(),
    });
    return token;
  },
  "auth.logout": (call) => {
    call.session.logout();
    return true;
  },
  "auth.me": (call) => call.session.user === undefined ? null : userInfo(call.session.user),
  "auth.sessions": (call, [filters, options]) => {
    const { type, data } = call.session.credentials();
    const row = {
      id: call.session.id,
      current: true,
      internal: false,
      origin: call.session.address,
      credentials: type ?? "",
      credentials_data: data ?? {},
      created_at: date(call.session.loginAt),
      secure_transport: true,
    };
    return query([row], filters ?? [], object(options));
  },
  "api_key.query": (call, [filters, options]) =>
    query(keyEntries(call), filters ?? [], object(options)),
  "api_key.my_keys": (call) =>
    keyEntries(call).filter((entry) => entry.username === call.session.user?.name),
};
