/** The array's clock: the `Date` that its web server puts into every answer, without a login and on every release. */
import { parseAddress } from "./address.ts";
import type { WaitingClock } from "./clock.ts";
import type { Trust } from "./socket.ts";
import { Https } from "./socket_https.ts";

/** Where it is asked. */
export interface ArrayTimeOptions {
  /** As a session tells it: `nas.example:443`. */
  readonly address: string;
  readonly trust: Trust;
  readonly clock: WaitingClock;
  /** Milliseconds for connecting and the answer together. */
  readonly deadlineMs: number;
}

/**
 * Reads it over a connection of its own: milliseconds since the epoch, up to a second too few. Undefined when it
 * cannot be had. Never rejects.
 */
export async function readArrayTime(options: ArrayTimeOptions): Promise<number | undefined> {
  const { address, trust, clock, deadlineMs } = options;
  try {
    const endpoint = parseAddress(address, 443);
    const https = new Https({ endpoint, trust, clock, connectDeadlineMs: deadlineMs });
    try {
      const request = { method: "GET", path: "/api/boot_id", headers: {} } as const;
      const { date } = await https.exchange(request, { deadlineMs, maySend: () => true });
      const time = Date.parse(date ?? "");
      return Number.isNaN(time) ? undefined : time;
    } finally {
      https.close();
    }
  } catch {
    return undefined;
  }
}
