/** The array's boot id (`GET /api/boot_id`, no login, 25.10+): another one says that it was booted since. */
import { parseAddress } from "./address.ts";
import type { WaitingClock } from "./clock.ts";
import type { Trust } from "./socket.ts";
import { Https } from "./socket_https.ts";

/** Where it is asked. */
export interface BootIdOptions {
  /** As a session tells it: `nas.example:443`. */
  readonly address: string;
  readonly trust: Trust;
  readonly clock: WaitingClock;
  /** Milliseconds for connecting and the answer together. */
  readonly deadlineMs: number;
}

/** Reads it over a connection of its own; undefined when it cannot be had, as on 25.04. Never rejects. */
export async function readBootId(options: BootIdOptions): Promise<string | undefined> {
  const { address, trust, clock, deadlineMs } = options;
  try {
    const https = new Https({
      endpoint: parseAddress(address, 443),
      trust,
      clock,
      connectDeadlineMs: deadlineMs,
    });
    try {
      const { status, text } = await https.exchange(
        { method: "GET", path: "/api/boot_id", headers: {} },
        { deadlineMs, maySend: () => true },
      );
      const id: unknown = status === 200 ? JSON.parse(text) : undefined;
      return typeof id === "string" && /^[\x21-\x7e]{1,100}$/.test(id) ? id : undefined;
    } finally {
      https.close();
    }
  } catch {
    return undefined;
  }
}
