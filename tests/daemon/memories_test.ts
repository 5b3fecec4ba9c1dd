import { assert, assertEquals } from "@std/assert";
import { silentLog } from "../../src/common/log.ts";
import { Memories } from "../../src/daemon/memories.ts";
import type { MemoryLink } from "../../src/daemon/memory.ts";
import type { Host } from "../../src/host/host.ts";
import type { MemorizedStorage } from "../../src/pve/hook.ts";
import { FakeClock } from "../support/fake_clock.ts";

/** Storages, a clock, and how often a link was asked for. */
function worldOf() {
  const clock = new FakeClock();
  const host = {
    monotonicMs: () => clock.monotonicMs(),
    wait: (ms: number, signal?: AbortSignal) => clock.wait(ms, signal),
    files: { readText: () => Promise.resolve(undefined) },
    randomInteger: () => 0,
  } as unknown as Host;
  const links: string[] = [];
  const memories = new Memories({
    host,
    log: silentLog,
    linkOf: (api) => {
      links.push(api.key);
      return {
        session: ({ signal }) =>
          new Promise((_, refuse) =>
            signal.addEventListener("abort", () => refuse(signal.reason), { once: true })
          ),
        onSession: () => () => {},
        onDown: () => () => {},
        keepUp: () => () => {},
      } satisfies MemoryLink;
    },
  });
  const storage = (id: string, key = "1-a") =>
    ({
      host,
      log: silentLog,
      clusterId: "c",
      settings: {
        id,
        dataset: "tank/pve",
        api: { hosts: ["nas"], port: 443, key },
        transport: { kind: "iscsi", targetIqn: "iqn.x", portals: [] },
      },
      transport: { kind: "iscsi" },
    }) as unknown as MemorizedStorage;
  return { clock, memories, storage, links };
}

Deno.test("a storage has one memory as long as its settings are the same", async () => {
  const { memories, storage } = worldOf();
  const one = memories.of(storage("san"));
  assert(one !== undefined);
  assertEquals(memories.of(storage("san")) === one, true);
  assertEquals(memories.of(storage("san", "1-b")) === one, false);
  assertEquals(memories.of(storage("other")) === one, false);
  await memories.stop();
  assertEquals(memories.of(storage("san")), undefined);
});

Deno.test("settings that are only checked connect to nothing", async () => {
  const { memories, storage, links } = worldOf();
  const memory = memories.of(storage("san"));
  memory?.changed(["vm-1"]);
  assertEquals(links, []);
  memory?.status();
  await memory?.begin();
  assertEquals(links, ["1-a"]);
  await memories.stop();
});

Deno.test("the memory of former settings goes half a minute after the last question", async () => {
  const { clock, memories, storage } = worldOf();
  const former = memories.of(storage("san", "1-a"));
  await clock.pass(20_000);
  const present = memories.of(storage("san", "1-b"));
  assertEquals(memories.reports().length, 2);
  assertEquals(memories.of(storage("san", "1-a")) === former, true);
  await clock.pass(29_000);
  assertEquals(memories.of(storage("san", "1-b")) === present, true);
  await clock.pass(29_000);
  memories.of(storage("san", "1-b"));
  assertEquals(memories.reports().length, 1);
  assertEquals(memories.of(storage("san", "1-b")) === present, true);
  await memories.stop();
});

Deno.test("a storage that nobody asks for is forgotten, and no more than a hundred are remembered", async () => {
  const { clock, memories, storage } = worldOf();
  memories.of(storage("gone"));
  await clock.pass(300_000);
  memories.of(storage("san"));
  assertEquals(memories.reports().map((report) => report.storage), ["san"]);
  for (let count = 0; count < 300; count++) memories.of(storage(`s${count}`));
  assert(memories.reports().length <= 101);
  await memories.stop();
});
