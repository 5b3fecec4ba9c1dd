/** Where a TrueNAS is: reading what an administrator wrote. */
import { ArrayError } from "./errors.ts";

/** An address to connect to. */
export interface Endpoint {
  /** Host name or numeric address, IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** As people write it: `nas.example:443`, `[fd00::5]:443`. */
  readonly text: string;
}

/**
 * Reads `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT`, a bare IPv6 address, or a URL that begins with
 * `https://` or `wss://`.
 *
 * @throws ArrayError `config`; for `http://` and `ws://` too: TrueNAS revokes an API key that was
 *   once used in clear (`middlewared/plugins/auth.py`).
 */
export function parseAddress(text: string, defaultPort: number): Endpoint {
  const trimmed = text.trim();
  if (/^(http|ws):/i.test(trimmed)) {
    throw new ArrayError(
      "config",
      `Cannot use "${trimmed}" as the address of TrueNAS: it is not encrypted`,
      {
        outcome: "not-sent",
        hint:
          "Give the host name alone, or https://HOST: TrueNAS revokes an API key that was used without TLS",
      },
    );
  }
  const bare = trimmed.replace(/^(https|wss):\/\//i, "").replace(/\/(api(\/current)?\/?)?$/, "");
  const match =
    /^(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?))(?::(\d{1,5}))?$/
      .exec(bare);
  const host = match?.[1] ?? match?.[2] ??
    (/^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$/.test(bare) ? bare : undefined);
  const port = match?.[3] === undefined ? defaultPort : Number(match[3]);
  if (host === undefined || !Number.isInteger(port) || port < 1 || port > 65535) {
    throw new ArrayError(
      "config",
      `Cannot use "${trimmed}" as the address of TrueNAS: it is not HOST or HOST:PORT`,
      { outcome: "not-sent", hint: "Give a host name or a numeric address, IPv6 in brackets" },
    );
  }
  return { host, port, text: `${host.includes(":") ? `[${host}]` : host}:${port}` };
}
