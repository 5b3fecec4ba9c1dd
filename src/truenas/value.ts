/**
 * The one normaliser of property values. TrueNAS writes a property in four ways:
 *
 *   pool.dataset.query   {"parsed": 16384, "rawvalue": "16384", "value": "16K", "source": "DEFAULT", ...}
 *   zfs.resource.query   {"raw": "16384", "value": 16384, "source": null}
 *   user properties there  "node1"
 *   and not at all, when the property does not exist for the type or was not asked for.
 *
 * The exact text wins (`rawvalue`, `raw`): `value` is made for people in one form and parsed in the
 * other, and `parsed` loses digits of guids.
 */

/** The exact text of a property, or undefined when it has none. Nothing is made up for absence. */
export function textOf(property: unknown): string | undefined {
  if (typeof property === "string") return property;
  if (typeof property === "number" || typeof property === "boolean") return String(property);
  if (typeof property !== "object" || property === null) return undefined;
  const object = property as Readonly<Record<string, unknown>>;
  for (const key of ["rawvalue", "raw", "parsed", "value"]) {
    const value = object[key];
    if (typeof value === "string") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
  }
  return undefined;
}

/**
 * A property as a number (bytes, mostly), or undefined when it is absent, `none` or no number.
 * Exact up to 8 PiB; beyond, and for guids, take {@link textOf}.
 */
export function numberOf(property: unknown): number | undefined {
  const text = textOf(property);
  return text !== undefined && /^-?\d+$/.test(text) ? Number(text) : undefined;
}

/** Milliseconds since the epoch, from `{"$date": ms}` or from a property whose raw text is in seconds. */
export function timeOf(property: unknown): number | undefined {
  if (typeof property === "object" && property !== null) {
    const date = (property as Readonly<Record<string, unknown>>)["$date"];
    if (typeof date === "number") return date;
  }
  const seconds = numberOf(property);
  return seconds === undefined ? undefined : seconds * 1000;
}

/** Text that stands for "nothing" in ZFS (`origin`, `clones`, ...) becomes undefined. */
export function nameOf(property: unknown): string | undefined {
  const text = textOf(property);
  return text === undefined || text === "" || text === "none" || text === "-" ? undefined : text;
}

/**
 * User properties as plain text. TrueNAS's own ones stand among them under short names without a
 * colon (`comments`) and are left out. Values may be inherited: no release tells reliably, so a
 * mark must carry what it marks (its full path) in itself.
 */
export function userPropertiesOf(properties: unknown): Readonly<Record<string, string>> {
  const found: Record<string, string> = {};
  if (typeof properties !== "object" || properties === null) return found;
  for (const [key, property] of Object.entries(properties)) {
    const text = textOf(property);
    if (key.includes(":") && text !== undefined) found[key] = text;
  }
  return found;
}
