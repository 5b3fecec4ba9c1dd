/** Part of linux.ts: the kernel's last words, for error texts. Never fails: without the log the text is shorter. */
import { constants } from "node:fs";
import { open, readFile } from "node:fs/promises";
import { codeOf } from "./linux_errors.ts";

const MAX_LINES = 50;
/** The ring buffer of a stock kernel holds a few thousand records. */
const MAX_RECORDS = 100_000;
/** `/proc/uptime` counts in hundredths of a second. */
const RESOLUTION_MS = 20;
/** The log's clock is not corrected by NTP: it may run away from the uptime by that share of it. */
const DRIFT = 1e-4;

/** A record of the kernel log. */
export interface KernelRecord {
  /** Milliseconds since the kernel started, by the log's own clock. */
  readonly ms: number;
  readonly text: string;
}

/** A record as `/dev/kmsg` gives it: `6,1234,5678901,-;text`, then lines with a leading blank. Time in microseconds. */
export function parseKernelRecord(record: string): KernelRecord | undefined {
  const match = /^\d+,\d+,(\d+),[^;]*;([^\n]*)/.exec(record);
  return match === null ? undefined : { ms: Number(match[1]) / 1000, text: match[2] ?? "" };
}

/** The records of the last `sinceMs` milliseconds before `uptimeMs`, allowing for the drift of the log's clock. */
export function recentRecords(
  records: readonly KernelRecord[],
  uptimeMs: number,
  sinceMs: number,
): KernelRecord[] {
  const newest = Math.min(records.at(-1)?.ms ?? 0, uptimeMs);
  const slack = uptimeMs * DRIFT + RESOLUTION_MS;
  // Drift moves all records alike: what we look for is near the newest one, and that is near now.
  const from = Math.max(uptimeMs - sinceMs - slack, newest - sinceMs - RESOLUTION_MS);
  return records.filter((record) => record.ms >= from).slice(-MAX_LINES);
}

/** What the kernel has logged during the last `ageMs` milliseconds. */
export async function readKernelLog(ageMs: number): Promise<readonly string[]> {
  try {
    // Before the log is read, which takes a while: its end must not move the window's beginning.
    const uptimeMs = Number((await readFile("/proc/uptime", "utf8")).split(" ")[0]) * 1000;
    const handle = await open("/dev/kmsg", constants.O_RDONLY | constants.O_NONBLOCK);
    const records: KernelRecord[] = [];
    const buffer = new Uint8Array(8192);
    try {
      for (let count = 0; count < MAX_RECORDS; count++) {
        try {
          const { bytesRead } = await handle.read(buffer, 0, buffer.length, null);
          if (bytesRead === 0) break;
          const record = parseKernelRecord(new TextDecoder().decode(buffer.subarray(0, bytesRead)));
          if (record !== undefined) records.push(record);
        } catch (error) {
          // EPIPE: records were overwritten while we read; the next read goes on behind the gap.
          if (codeOf(error) !== "EPIPE") break;
        }
      }
    } finally {
      await handle.close();
    }
    return recentRecords(records, uptimeMs, ageMs).map((record) => record.text);
  } catch {
    return [];
  }
}
