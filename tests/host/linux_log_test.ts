import { assertEquals } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { parseKernelRecord, recentRecords } from "../../src/host/linux_log.ts";

Deno.test("a record is read without its continuation lines", () => {
  const record = "3,812,5678901,-;nvme nvme0: qid 0: no key\n SUBSYSTEM=nvme\n";
  assertEquals(parseKernelRecord(record), { ms: 5678.901, text: "nvme nvme0: qid 0: no key" });
  assertEquals(parseKernelRecord("nonsense"), undefined);
});

const at = (...times: number[]) => times.map((ms) => ({ ms, text: `${ms}` }));

Deno.test("only what was logged since then is shown", () => {
  const shown = recentRecords(at(1_000, 50_000, 59_500, 59_990), 60_000, 1_000);
  assertEquals(shown.map(({ ms }) => ms), [59_500, 59_990]);
});

Deno.test("an old log is not taken for a new one", () => {
  assertEquals(recentRecords(at(1_000, 2_000), 60_000, 1_000), []);
  assertEquals(recentRecords([], 60_000, 1_000), []);
});

Deno.test("a log whose clock runs away is still read", () => {
  const day = 86_400_000;
  const shown = recentRecords(at(day - 9_000, day - 3_000), day, 1_000);
  assertEquals(shown.map(({ ms }) => ms), [day - 3_000]);
});

Deno.test("at most 50 records are shown, the newest", () => {
  const shown = recentRecords(at(...Array.from({ length: 80 }, (_, i) => 1_000 + i)), 1_100, 1_000);
  assertEquals([shown.length, shown.at(-1)?.ms], [50, 1_079]);
});

Deno.test("reading the log of this machine never fails", async () => {
  assertEquals(Array.isArray(await linuxHost().kernelLog(0)), true);
});
