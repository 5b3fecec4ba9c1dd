/** Guests that a daemon starts while the array's API is away, and how soon it knows that it is. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Deadline } from "../../src/common/deadline.ts";
import { silentLog } from "../../src/common/log.ts";
import type { ApiSettings } from "../../src/common/storage_settings.ts";
import { ArrayLinks } from "../../src/daemon/array_link.ts";
import { type LinkState, whyAway } from "../../src/daemon/link_state.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { Place, TRANSPORTS } from "../support/place.ts";
import { configure, keptNames, reboot } from "../volumes/reboot_support.ts";
import { isLinked, type KeptNode, keptNode } from "./keeper_support.ts";
import { eventually } from "./memory_support.ts";

const HOUR_MS = 3_600_000;
const error = { code: "unreachable", message: "connection refused" } as const;

for (
  const [what, change, isAway] of [
    ["has been lost for longer than a request waits", {}, true],
    ["is being tried again", { kind: "connecting" }, true],
    ["is silent", { error: { ...error, code: "timeout" } }, true],
    ["was lost a moment ago", { sinceMs: 96_000 }, false],
    ["is up", { kind: "up" }, false],
    ["is not wanted", { kind: "idle" }, false],
    ["was never tried", { error: undefined }, false],
    ["refuses the key", { error: { ...error, code: "auth" } }, false],
    ["shows another certificate", { error: { ...error, code: "tls" } }, false],
    ["has locked us out", { error: { ...error, code: "rate-limited" } }, false],
  ] as const
) {
  Deno.test(`an array that ${what} is ${isAway ? "away" : "not known to be away"}`, () => {
    const state = { kind: "down", sinceMs: 90_000, error, ...change } as LinkState;
    const found = whyAway(state, 5_000, 100_000);
    assertEquals(found?.code, isAway ? state.error?.code : undefined);
  });
}

function apiOf(place: Place): ApiSettings {
  const { host, port, user, apiKey, fingerprint } = place.simulator.ready;
  return {
    transport: "ws",
    hosts: [host],
    port,
    user,
    key: apiKey,
    tls: { kind: "fingerprint", sha256: fingerprint },
    retryMax: 0,
    retryDelayMs: 100,
  };
}

Deno.test("a link knows that its array is away, and that it is back", async () => {
  await using place = await Place.start("nvme-tcp");
  const host = linuxHost({ root: place.directory });
  const times = { patienceMs: 50, stableMs: 0 };
  const links = new ArrayLinks({ host, log: silentLog, limitLogins: false, times });
  const api = apiOf(place);
  assertEquals(await links.away(api), undefined);
  await links.session(api, new Deadline(host, 10_000));
  assertEquals(await links.away(api), undefined);
  const up = await place.simulator.goDown();
  await eventually(async () => assertEquals((await links.away(api))?.code, "unreachable"));
  await up();
  await eventually(async () => assertEquals(await links.away(api), undefined));
  links.close();
});

function both(name: string, run: (place: Place) => Promise<void>): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, { release: "25.10" });
      await run(place);
    });
  }
}

/** A guest's disks, which the daemon has made, attached, and let go of for want of use. */
async function idleDisks(place: Place, node: KeptNode, count: number): Promise<string[]> {
  const made: string[] = [];
  for (let index = 0; index < count; index++) {
    const vmid = 100 + index;
    made.push(await node.must("alloc_image", { vmid, format: "raw", sizeKiB: 65536 }));
    await configure(place, vmid, made[index] ?? "");
    await node.must("activate_volume", { volname: made[index] });
  }
  // One look sees them, the next one after their time lets go.
  await node.keeper.round();
  node.leap(61_000);
  await node.keeper.round();
  for (const volname of made) assertEquals(await isLinked(place, volname), false);
  return made;
}

both(
  "a daemon that begins with the API away starts guests whose disks were let go of",
  async (place) => {
    let disks: string[];
    {
      await using node = await keptNode(place);
      disks = await idleDisks(place, node, 3);
    }
    await reboot(place);
    const up = await place.simulator.goDown();
    await using node = await keptNode(place);
    assertEquals(await node.must("check_connection"), true);
    await node.must("activate_storage");
    const began = performance.now();
    for (const volname of disks) await node.must("activate_volume", { volname });
    // Nobody waits for an array that is known to be away; this one is bounded by what the machine does besides.
    assert(performance.now() - began < 20_000);
    for (const volname of disks) assertEquals(await isLinked(place, volname), true);
    assertEquals(node.calls, []);
    assertMatch(node.log.join("\n"), /"vm-101-disk-0" is attached by what the array said of it/);

    // It answers again: then it is asked.
    await up();
    for (const volname of disks) await node.must("deactivate_volume", { volname });
    await eventually(() => node.must("list_images"));
    node.log.length = 0;
    for (const volname of disks) await node.must("activate_volume", { volname });
    assertEquals(
      node.log.filter((line) => line.includes("is attached by what the array said")),
      [],
    );
  },
);

both("what is known of a disk that stays attached for months does not grow old", async (place) => {
  await using node = await keptNode(place);
  const volname = await node.must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });
  await node.must("activate_volume", { volname });
  assertEquals(await keptNames(place), ["vm-100-disk-0"]);
  const file = `${place.directory}/var/lib/tnblock/.verified/san/vm-100-disk-0.json`;
  const told = async () => JSON.parse(await Deno.readTextFile(file)).toldMs;
  const first = await told();
  await node.keeper.round();
  assertEquals(await told(), first);
  node.leap(2 * HOUR_MS);
  await node.must("list_images");
  await node.keeper.round();
  assert(await told() >= first + 2 * HOUR_MS);
  // With the API away it is as old as it is.
  const last = await told();
  await place.simulator.goDown();
  node.leap(2 * HOUR_MS);
  await node.keeper.round();
  assertEquals(await told(), last);
});
