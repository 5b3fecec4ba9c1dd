/** Part of linux.ts: whether what this process writes goes to the journal. */
import { fstatSync } from "node:fs";

/** The descriptor of standard error. */
const STDERR = 2;

/**
 * Whether standard error is the journal's: `JOURNAL_STREAM` names its device and inode (systemd.exec(5)), and
 * a redirection after the start makes them differ.
 */
export function isJournal(journalStream: string | undefined): boolean {
  if (journalStream === undefined) return false;
  try {
    const { dev, ino } = fstatSync(STDERR, { bigint: true });
    return journalStream === `${dev}:${ino}`;
  } catch {
    return false;
  }
}
