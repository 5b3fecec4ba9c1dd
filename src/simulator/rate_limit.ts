/**
 * The limit on calls before a login: so many of one method from one address in a minute that starts
 * with the first; refused ones count too. The table of pairs is bounded, and full it refuses all.
 */

const WINDOW_MS = 60_000;
const PAIRS = 100;
const CLEARED_MS = 600_000;

export class RateLimit {
  private readonly windows = new Map<string, { since: number; calls: number }>();
  private cleared: number;

  /** @param most calls a minute; 0 for no limit. */
  constructor(private readonly most: number, private readonly now: () => number) {
    this.cleared = now();
  }

  admit(method: string, address: string): boolean {
    if (this.most === 0) return true;
    const now = this.now();
    if (now - this.cleared >= CLEARED_MS) {
      this.windows.clear();
      this.cleared = now;
    }
    const key = `${method} ${address}`;
    const known = this.windows.get(key);
    if (known === undefined && this.windows.size >= PAIRS) return false;
    if (known === undefined || now - known.since >= WINDOW_MS) {
      this.windows.set(key, { since: now, calls: 1 });
      return true;
    }
    known.calls += 1;
    return known.calls <= this.most;
  }
}
