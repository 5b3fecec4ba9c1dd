/** Counters for tests and benchmarks: how many calls of what, logins, connections, bytes. */

export class Stats {
  private calls = new Map<string, number>();
  logins = 0;
  /** Connections opened since the last reset. */
  connections = 0;
  bytesIn = 0;
  bytesOut = 0;

  count(method: string): void {
    this.calls.set(method, (this.calls.get(method) ?? 0) + 1);
  }

  reset(): void {
    this.calls = new Map();
    this.logins =
      this.connections =
      this.bytesIn =
      this.bytesOut =
        0;
  }

  toJson(): {
    calls: Record<string, number>;
    logins: number;
    connections: number;
    bytesIn: number;
    bytesOut: number;
  } {
    const { logins, connections, bytesIn, bytesOut } = this;
    return { calls: Object.fromEntries(this.calls), logins, connections, bytesIn, bytesOut };
  }
}
