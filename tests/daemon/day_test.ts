import { assert, assertEquals } from "@std/assert";
import type { DayReport } from "./support/day.ts";
import { lastingCommand } from "../support/child.ts";

/** Longer than a slow machine takes for a day; it has about a minute of work in it. */
const LONGEST_MS = 600_000;

/** Minutes after the array's return in which it is found again: the longest pause of the link, and a read. */
const FOUND_AGAIN = 2;

async function day(transport: "iscsi" | "nvme-tcp"): Promise<DayReport> {
  const program = new URL("./support/day.ts", import.meta.url).pathname;
  const { success, stdout, stderr } = await lastingCommand(Deno.execPath(), {
    args: ["run", "-A", "--no-lock", "--no-check", program, transport],
    stdin: "null",
    signal: AbortSignal.timeout(LONGEST_MS),
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Whether a minute of the day is one in which the array was away, or was not found again yet. */
function isAway({ away }: DayReport, minute: number): boolean {
  return away.some(([from, to]) => minute >= from && minute <= to + FOUND_AGAIN);
}

Deno.test("24 simulated hours: few logins, nothing left over, nothing that grows", async (t) => {
  const told = await day("iscsi");
  const { state, figures, away } = told;
  const [storage] = state.storages;

  await t.step("PVE asks every ten seconds, and hears of the array's absence alone", () => {
    assertEquals([told.hours, told.polls, away.length], [24, 8_640, 3]);
    const [first = 0, last = 0] = away[2] ?? [];
    assert(last - first >= 15);
    assertEquals(told.inactiveMinutes.filter((minute) => !isAway(told, minute)), []);
    // A minute is believed, the rest of a quarter of an hour is not.
    assert(told.inactiveMinutes.length > 60, `${told.inactiveMinutes.length} times inactive`);
    assertEquals(told.failed, []);
  });

  await t.step("one login at the start, and one for each time that the array forgot us", () => {
    // Two reboots, an outage, an expiry, a new key.
    assert(told.logins >= 6 && told.logins <= 8, `${told.logins} logins`);
    assertEquals([storage?.array?.state, storage?.memory?.trust], ["up", "good"]);
  });

  await t.step("nothing is left of the disks that came and went", () => {
    assertEquals(told.made, 48);
    assertEquals(told.zvols, ["tank/pve/vm-100-disk-0"]);
    assertEquals([told.exports, told.snapshots], [1, 0]);
    assertEquals(told.links, ["vm-100-disk-0"]);
    assertEquals(told.journal, []);
    assertEquals(state.journal, { open: [], unread: [] });
  });

  await t.step("nothing waits, and nothing is under way", () => {
    assertEquals(state.daemon?.requests.underWay, 0);
    const { queued = {}, writing } = storage?.array ?? {};
    assertEquals([Object.values(queued).every((count) => count === 0), writing], [true, 0]);
  });

  await t.step("memory and descriptors are those of the first hour", () => {
    const first = figures[1];
    const last = figures.at(-1);
    assert(first !== undefined && last !== undefined && figures.length === 24);
    assert(last.heap < first.heap * 1.3, `${first.heap} bytes, then ${last.heap}`);
    assertEquals(last.descriptors, first.descriptors);
  });

  await t.step("the log tells the day on a page", () => {
    assert(told.lines < 400, `${told.lines} lines`);
    assert(told.warnings.length < 40, told.warnings.join("\n"));
  });
});
