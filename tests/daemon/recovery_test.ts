/** What was stopped half-way is seen to by the daemon. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { ArrayLinks } from "../../src/daemon/array_link.ts";
import { startDaemon } from "../../src/daemon/daemon.ts";
import { type RecoveryTask, startRecovery } from "../../src/daemon/recovery.ts";
import { DEATHS_FILE } from "../../src/daemon/recovery_deaths.ts";
import { afterLook, type AgendaItem, MOST_FAILURES } from "../../src/daemon/recovery_agenda.ts";
import { Storages } from "../../src/daemon/storages.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { TnblockError } from "../../src/common/error.ts";
import { JOURNAL_FOLDER } from "../../src/volumes/journal.ts";
import type { Recovered } from "../../src/volumes/recover/recover.ts";
import { arrayState } from "../support/array_state.ts";
import { DeafProxy } from "../support/deaf_proxy.ts";
import { askUntilDeath, openEntries } from "../support/mortal.ts";
import { Place } from "../support/place.ts";

/** Writes the storage's section where PVE has it. */
async function writeSection(place: Place, also: (text: string) => string): Promise<void> {
  const lines = Object.entries(place.config({ content: "images" }))
    .filter(([key]) => key !== "type")
    .map(([key, value]) => `\t${key} ${value}`);
  await Deno.writeTextFile(
    `${place.directory}/etc/pve/storage.cfg`,
    also(`tnblock: san\n${lines.join("\n")}\n\n`),
  );
}

const hostOf = (place: Place) => linuxHost({ root: place.directory, nodeName: "pve1" });

/** Recovers beside a place until it is disposed of; passes come only when asked for. */
async function recovering(
  place: Place,
  settleMs = 0,
  sections: (text: string) => string = (text) => text,
): Promise<
  { task: RecoveryTask; log: string[]; leap: (ms: number) => void } & AsyncDisposable
> {
  await writeSection(place, sections);
  let leapt = 0;
  const real = hostOf(place);
  const host = { ...real, monotonicMs: () => real.monotonicMs() + leapt };
  const log: string[] = [];
  const world = {
    host,
    log: lineLog((line) => log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
  };
  const links = new ArrayLinks(world);
  const task = startRecovery({
    ...world,
    storages: new Storages({ ...world, sessions: links }),
    periodMs: 3_600_000,
    settleMs,
  });
  return {
    task,
    log,
    leap: (ms) => {
      leapt += ms;
    },
    [Symbol.asyncDispose]: async () => {
      await task.stop();
      links.close();
    },
  };
}

Deno.test("the daemon undoes at its start what a killed hook left", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  await writeSection(place, (text) => text);
  const was = await arrayState(place);
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await askUntilDeath(place, "alloc_image", args, { nth: 2, when: "after" });
  const daemon = await startDaemon({
    host: hostOf(place),
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
    recoveryTiming: { periodMs: 3_600_000, settleMs: 0 },
  });
  try {
    await daemon.recovery.pass();
    assertEquals([await openEntries(place), await arrayState(place)], [[], was]);
  } finally {
    await daemon.stop();
  }
});

Deno.test("without anything open the array is not asked", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const { logins } = await place.stats();
  await using recovery = await recovering(place);
  assertEquals(await recovery.task.pass(), []);
  assertEquals((await place.stats()).logins, logins);
});

Deno.test("an entry that cannot be read is kept, shown by name, and told once", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const file = `${JOURNAL_FOLDER}/${crypto.randomUUID()}.json`;
  await Deno.mkdir(`${place.directory}${JOURNAL_FOLDER}`, { recursive: true });
  await Deno.writeTextFile(`${place.directory}${file}`, `{"v":2,"id":"x"}\n`);
  await using recovery = await recovering(place);
  for (let pass = 0; pass < 3; pass++) await recovery.task.pass();
  assertEquals((await recovery.task.report()).unread, [file]);
  assertEquals(recovery.log.filter((line) => line.includes(file)).length, 1);
  assertEquals(await Deno.readTextFile(`${place.directory}${file}`), `{"v":2,"id":"x"}\n`);
});

Deno.test("with the array away what is open stays, is told once, and is seen to later", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await askUntilDeath(place, "alloc_image", args, { nth: 1, when: "after" });
  const away = ["auth.login_ex", "auth.login_with_api_key"].map((method) => ({
    method,
    do: "cut",
  }));
  await place.faults(away);
  await using recovery = await recovering(place);
  for (let pass = 0; pass < 3; pass++) {
    await recovery.task.pass();
    recovery.leap(600_000);
  }
  const { open } = await recovery.task.report();
  assertEquals(open.map(({ outcome, failures }) => [outcome, failures]), [["failed", 0]]);
  const told = recovery.log.filter((line) => line.includes("cannot be seen to yet"));
  assertEquals(told.length, 1);
  assert(!recovery.log.join().includes(place.simulator.ready.apiKey));
  await place.faults([]);
  recovery.leap(600_000);
  assertEquals((await recovery.task.pass()).map(({ outcome }) => outcome), ["undone"]);
  assertEquals((await recovery.task.report()).open, []);
});

const FOUND: Omit<Recovered, "outcome"> = { id: "a", op: "alloc", zvol: "vm-1", why: "because" };

Deno.test("an operation that cannot be ended is told once and given up in the end, then told again", () => {
  let item: AgendaItem | undefined;
  const said: string[] = [];
  let now = 0;
  for (let look = 0; look < MOST_FAILURES; look++) {
    const error = new TnblockError("array-fault", "no");
    const next = afterLook(item, { ...FOUND, outcome: "failed", error }, now);
    assert(next !== undefined);
    if (next.say !== undefined) said.push(next.say.level);
    item = next.item;
    now = Math.max(now, item.nextMs);
  }
  assertEquals([said, item?.nextMs], [["warning", "error"], Infinity]);
});

Deno.test("with the array away for a day nothing is given up, and little is said", () => {
  let item: AgendaItem | undefined;
  let said = 0;
  let looks = 0;
  for (let now = 0; now < 86_400_000; now = item.nextMs) {
    const error = new TnblockError("unreachable", `away since ${now}`);
    const next = afterLook(item, { ...FOUND, outcome: "failed", error }, now);
    assert(next !== undefined);
    if (next.say !== undefined) said++;
    item = next.item;
    looks++;
  }
  assert(looks < 200);
  assertEquals([said, item?.failures], [1, 0]);
});

Deno.test("an operation that has ended is forgotten, one under way is looked at in the next pass", () => {
  for (const outcome of ["undone", "finished", "closed"] as const) {
    assertEquals(afterLook(undefined, { ...FOUND, outcome }, 5), undefined);
  }
  assertEquals(afterLook(undefined, { ...FOUND, outcome: "running" }, 5)?.item.nextMs, 5);
});

Deno.test("a storage whose array does not answer keeps no other one waiting", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await askUntilDeath(place, "alloc_image", args, { nth: 2, when: "after" });
  const [entry] = await openEntries(place);
  assert(entry !== undefined);
  // An array that takes connections and says nothing, of a storage that comes before the other one.
  await using silent = await DeafProxy.start(place.simulator.ready.port);
  silent.fallSilent();
  const far = { ...entry, id: crypto.randomUUID(), storage: "far", place: undefined, startedMs: 1 };
  const file = `${JOURNAL_FOLDER}/${far.id}.json`;
  await Deno.writeTextFile(`${place.directory}${file}`, JSON.stringify(far));
  const secrets = `${place.directory}/etc/pve/priv/storage`;
  await Deno.copyFile(`${secrets}/san.tnblock`, `${secrets}/far.tnblock`);
  await using recovery = await recovering(place, 0, (text) => {
    const port = `tnb-api-port ${silent.port}`;
    const first = text.replace("tnblock: san", "tnblock: far").replace(/tnb-api-port \d+/, port);
    return first + text;
  });
  const until = Date.now() + 10_000;
  while ((await openEntries(place)).length > 1 && Date.now() < until) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assertEquals((await openEntries(place)).map(({ storage }) => storage), ["far"]);
  assertEquals((await recovery.task.report()).open.map(({ outcome }) => outcome), [undefined]);
  // What is told to end does not wait for it either.
  const began = Date.now();
  await recovery.task.stop();
  assert(Date.now() - began < 5_000);
});

Deno.test("the next daemon of the same boot counts on from what the former one saw", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10" });
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await askUntilDeath(place, "alloc_image", args, { nth: 1, when: "after" });
  const outcomes = async () => {
    await using recovery = await recovering(place, 300_000);
    return (await recovery.task.pass()).map(({ outcome }) => outcome);
  };
  assertEquals([await outcomes(), await outcomes()], [["waits"], ["waits"]]);
  const file = `${place.directory}${DEATHS_FILE}`;
  const age = async (seconds: number) => {
    const deaths: Record<string, number> = JSON.parse(await Deno.readTextFile(file));
    const older = Object.entries(deaths).map(([id, at]) => [id, at - seconds]);
    await Deno.writeTextFile(file, JSON.stringify(Object.fromEntries(older)));
  };
  // A later boot's seconds are fewer: what they cannot mean counts for nothing.
  await age(-86_400_000);
  assertEquals(await outcomes(), ["waits"]);
  await age(301);
  assertEquals([await outcomes(), await openEntries(place)], [["undone"], []]);
});

Deno.test("what another node or another storage left is left alone", async () => {
  await using place = await Place.start("nvme-tcp", { release: "25.10", nodes: ["pve1", "pve2"] });
  const args = { vmid: 100, format: "raw", sizeKiB: 65536 };
  await askUntilDeath(place, "alloc_image", args, { nth: 2, when: "after" });
  // The node's name was changed since.
  const [entry] = await openEntries(place);
  assert(entry !== undefined);
  const file = `${place.directory}${JOURNAL_FOLDER}/${entry.id}.json`;
  await Deno.writeTextFile(file, JSON.stringify({ ...entry, node: "pve9" }));
  await using recovery = await recovering(place);
  await recovery.task.pass();
  const [open] = (await recovery.task.report()).open;
  assertEquals(open?.outcome, "foreign");
  assertStringIncludes(open?.why ?? "", "pve9");
  const told = recovery.log.filter((line) => line.includes("pve9"));
  assertEquals(told.length, 1);
  assertStringIncludes(told[0] ?? "", `write "node":"pve1" into ${JOURNAL_FOLDER}/${entry.id}`);
  assertEquals((await place.objects()).zvols?.length, 1);
});

Deno.test("what is kept of storages that are gone goes, once nobody would believe it", async () => {
  await using place = await Place.start("nvme-tcp");
  const kept = `${place.directory}/var/lib/tnblock/.verified`;
  const old = (Date.now() - 31 * 24 * 3_600_000) / 1000;
  for (const storage of ["san", "gone"]) {
    await Deno.mkdir(`${kept}/${storage}`, { recursive: true });
    for (const name of ["new.json", "old.json"]) {
      await Deno.writeTextFile(`${kept}/${storage}/${name}`, "{}");
    }
    await Deno.utime(`${kept}/${storage}/old.json`, old, old);
  }
  {
    await using running = await recovering(place);
    await running.task.stop();
  }
  const names = async (storage: string) =>
    (await Array.fromAsync(Deno.readDir(`${kept}/${storage}`))).map(({ name }) => name).sort();
  assertEquals([await names("san"), await names("gone")], [["new.json", "old.json"], ["new.json"]]);
});
