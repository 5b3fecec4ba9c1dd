/** What the user of this session may do. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { NEEDED_ROLES } from "./needed_roles.ts";
import { read } from "./request.ts";

/** The rights of a session. */
export interface Privileges {
  readonly isFullAdmin: boolean;
  /** All of them, those that another one includes too. */
  readonly roles: ReadonlySet<string>;
}

/** Python's sets come as `{"$set": [...]}`. */
const texts = v.pipe(
  v.union([v.array(v.string()), v.object({ $set: v.array(v.string()) })]),
  v.transform((value) => Array.isArray(value) ? value : value.$set),
);

const meSchema = v.looseObject({
  privilege: v.looseObject({
    roles: texts,
    allowlist: v.optional(v.array(v.looseObject({ method: v.string(), resource: v.string() })), []),
  }),
});

/**
 * Asks the array who we are; a call that needs a login and no role, on every release.
 *
 * `roles` comes with what each role includes (`middlewared/plugins/account_/privilege.py`,
 * compose_privilege); a key of 25.04's older kind has an allowlist instead.
 */
export async function readPrivileges(caller: Caller, wait?: Wait): Promise<Privileges> {
  const request = {
    method: "auth.me",
    params: [],
    doing: "Cannot read what the API key may do",
  };
  const { privilege } = await read(caller, request, meSchema, wait);
  const roles = new Set(privilege.roles);
  return {
    isFullAdmin: roles.has("FULL_ADMIN") ||
      privilege.allowlist.some(({ method, resource }) => method === "*" && resource === "*"),
    roles,
  };
}

/** Whether a method may be called; true for one that is not known here. */
export function mayCall(privileges: Privileges, method: string): boolean {
  if (privileges.isFullAdmin) return true;
  const needed = Object.hasOwn(NEEDED_ROLES, method) ? NEEDED_ROLES[method] : undefined;
  return needed === undefined || needed.some((role) => privileges.roles.has(role));
}
