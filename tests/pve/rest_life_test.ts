/** The life of a disk with `tnb-api-transport rest`, through the hook. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place, type Reply } from "../support/place.ts";
import { MEGABYTE } from "../support/rest_cases.ts";
import { type RestScript, startRestServer } from "../support/rest_server.ts";

const REST = { "tnb-api-transport": "rest" };

/** Asks over REST. */
function ask(
  place: Place,
  method: string,
  args: Record<string, unknown> = {},
  config: Record<string, unknown> = {},
): Promise<Reply> {
  return place.ask(method, args, { config: { ...REST, ...config } });
}

/** As {@link ask}, for a request that must succeed. */
async function must(
  place: Place,
  method: string,
  args: Record<string, unknown> = {},
  // deno-lint-ignore no-explicit-any
): Promise<any> {
  const reply = await ask(place, method, args);
  if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
  return reply.result;
}

const alloc = (place: Place, vmid = 100): Promise<string> =>
  must(place, "alloc_image", { vmid, format: "raw", name: null, sizeKiB: 65536 });

/** How many of each kind the array has. */
async function counts(place: Place): Promise<Record<string, number | undefined>> {
  const objects = await place.objects();
  return Object.fromEntries(
    ["zvols", "snapshots", "extents", "mappings"].map((kind) => [kind, objects[kind]?.length]),
  );
}

const NOTHING = { zvols: 0, snapshots: 0, extents: 0, mappings: 0 };

for (const release of ["25.04", "25.10.0", "25.10"] as const) {
  const test = (name: string, run: (place: Place) => Promise<void>) =>
    Deno.test(`REST, ${release}: ${name}`, async () => {
      await using place = await Place.start("iscsi", { release });
      await run(place);
    });

  test("a disk is allocated, listed, attached, written, detached, read and freed, and nothing is left", async (place) => {
    await must(place, "activate_storage");
    assertEquals((await must(place, "status")).active, 1);
    const volname = await alloc(place);
    assertMatch(volname, /^vol-vm-100-disk-0-lun\d+$/);
    const [row] = await must(place, "list_images", { vmid: 100 });
    assertEquals([row.volid, row.size], [`san:${volname}`, 65536 * 1024]);
    assertEquals((await must(place, "volume_size_info", { volname })).size, 65536 * 1024);
    await must(place, "activate_volume", { volname });
    await Deno.writeTextFile(place.linkOf(volname), "the guest's data", { create: false });
    await must(place, "deactivate_volume", { volname });
    await must(place, "activate_volume", { volname });
    assertStringIncludes(await place.beginning(volname), "the guest's data");
    const { token } = await must(place, "free_image", { volname, isBase: 0 });
    await must(place, "free_image_finish", { token });
    assertEquals(await counts(place), NOTHING);
  });

  test("a disk is grown, and its snapshots are taken, told, rolled back to and deleted", async (place) => {
    const volname = await alloc(place);
    await must(place, "volume_snapshot", { volname, snapshot: "one" });
    await must(place, "volume_resize", { volname, size: 128 * 2 ** 20, running: 0 });
    assertEquals((await must(place, "volume_size_info", { volname })).size, 128 * 2 ** 20);
    await must(place, "volume_snapshot", { volname, snapshot: "two" });
    assertEquals(
      Object.keys(await must(place, "volume_snapshot_info", { volname })).sort(),
      ["one", "two"],
    );
    const args = { volname, snapshot: "one" };
    const { possible, blockers } = await must(place, "volume_rollback_is_possible", args);
    assertEquals([possible, blockers], [false, ["two"]]);
    await must(place, "volume_snapshot_delete", { volname, snapshot: "two" });
    await must(place, "volume_snapshot_rollback", args);
    assertEquals((await must(place, "volume_size_info", { volname })).size, 64 * 2 ** 20);
    await must(place, "free_image", { volname, isBase: 0, finish: true });
    assertEquals(await counts(place), NOTHING);
  });

  test("a clone of a snapshot lives and dies, and while it lives its origin does not", async (place) => {
    const volname = await alloc(place);
    await must(place, "volume_snapshot", { volname, snapshot: "one" });
    const clone = await must(place, "clone_image", { volname, vmid: 200, snapshot: "one" });
    const refused = await ask(place, "free_image", { volname, isBase: 0 });
    assertEquals(refused.error?.code, "has-dependents");
    await must(place, "activate_volume", { volname: clone });
    await must(place, "free_image", { volname: clone, isBase: 0, finish: true });
    await must(place, "free_image", { volname, isBase: 0, finish: true });
    assertEquals(await counts(place), NOTHING);
  });

  test("every verb makes the same calls as over the WebSocket", async (place) => {
    const verbs = async (transport: string) => {
      const made: Record<string, string[]> = {};
      const make = async (method: string, args: Record<string, unknown> = {}) => {
        place.calls = [];
        const reply = await place.ask(method, args, { config: { "tnb-api-transport": transport } });
        assertEquals(reply.error, undefined);
        made[method] = place.calls.sort();
        return reply.result;
      };
      const args = { vmid: 100, format: "raw", name: null, sizeKiB: 65536 };
      const volname = await make("alloc_image", args);
      const snapshot = "s";
      await make("status");
      await make("list_images");
      await make("volume_size_info", { volname });
      await make("activate_volume", { volname });
      await make("volume_snapshot", { volname, snapshot });
      await make("volume_snapshot_info", { volname });
      await make("volume_snapshot_delete", { volname, snapshot });
      await make("deactivate_volume", { volname });
      await make("free_image", { volname, isBase: 0, finish: true });
      return made;
    };
    // The first disk of a storage is more work than those to come.
    await alloc(place, 300);
    assertEquals(await verbs("rest"), await verbs("ws"));
  });

  if (release === "25.10.0") continue;

  for (
    const method of ["pool.dataset.create", "iscsi.extent.create", "iscsi.targetextent.create"]
  ) {
    for (const act of ["done-then-drop", "cut", "error"]) {
      test(`${method} that ends in ${act} leaves no half of a disk`, async (place) => {
        await place.faults([{ method, nth: 1, do: act, errno: 14 }]);
        const reply = await ask(place, "alloc_image", {
          vmid: 100,
          format: "raw",
          name: null,
          sizeKiB: 65536,
        });
        const found = await counts(place);
        if (reply.ok) assertEquals(found, { zvols: 1, snapshots: 0, extents: 1, mappings: 1 });
        else assertEquals(found, NOTHING);
        // Done and not heard of is found again.
        if (act === "done-then-drop") assertEquals(reply.error, undefined);
      });
    }
  }

  for (
    const method of ["iscsi.targetextent.delete", "iscsi.extent.delete", "pool.dataset.delete"]
  ) {
    test(`a free whose ${method} is done and not heard of ends with nothing left`, async (place) => {
      const volname = await alloc(place);
      await place.faults([{ method, nth: 1, do: "done-then-drop" }]);
      const first = await ask(place, "free_image", { volname, isBase: 0, finish: true });
      if (!first.ok) await must(place, "free_image", { volname, isBase: 0, finish: true });
      assertEquals(await counts(place), NOTHING);
    });
  }
}

/** One simulator is enough for these. */
const test = (name: string, run: (place: Place) => Promise<void>) =>
  Deno.test(`REST: ${name}`, async () => {
    await using place = await Place.start("iscsi");
    await run(place);
  });

Deno.test("REST, 25.10: a disk becomes a template, a linked clone hangs on it, and a disk is reassigned", async () => {
  await using place = await Place.start("iscsi");
  const base = await must(place, "create_base", { volname: await alloc(place) });
  assertMatch(base, /^vol-base-100-disk-0-lun\d+$/);
  const clone = await must(place, "clone_image", { volname: base, vmid: 200 });
  assert(clone.startsWith(`${base}/`), clone);
  assertEquals(
    (await ask(place, "free_image", { volname: base, isBase: 1 })).error?.code,
    "has-dependents",
  );
  await must(place, "free_image", { volname: clone, isBase: 0, finish: true });
  const moved = await must(place, "rename_volume", {
    volname: await alloc(place, 300),
    targetVmid: 400,
  });
  assertMatch(moved, /^vol-vm-400-disk-0-lun\d+$/);
  for (const [volname, isBase] of [[base, 1], [moved, 0]]) {
    await must(place, "free_image", { volname, isBase, finish: true });
  }
  assertEquals(await counts(place), NOTHING);
});

Deno.test("REST: a reply that never comes ends with the proxy's, and what was made is found", async () => {
  await using place = await Place.start("iscsi", { idleMs: 300 });
  await place.faults([{ method: "iscsi.extent.create", nth: 1, do: "drop-reply" }]);
  const reply = await ask(place, "alloc_image", {
    vmid: 100,
    format: "raw",
    name: null,
    sizeKiB: 65536,
  });
  const found = await counts(place);
  if (reply.ok) assertEquals(found, { zvols: 1, snapshots: 0, extents: 1, mappings: 1 });
  else assertEquals([reply.error?.code, found], ["timeout", NOTHING]);
});

test("a read whose connection is cut is asked again", async (place) => {
  await alloc(place);
  await place.faults([{ method: "iscsi.extent.query", nth: 1, do: "cut" }]);
  const reply = await ask(place, "list_images", {}, { "tnb-api-retry-delay": 0.1 });
  assertEquals(reply.result?.length, 1);
});

test("no login is drawn from the node's budget, and each call is one of the key", async (place) => {
  await must(place, "status");
  const before = await place.stats();
  await must(place, "status");
  const after = await place.stats();
  assertEquals([after.connections - before.connections, after.logins - before.logins], [1, 2]);
  const run = await Array.fromAsync(Deno.readDir(`${place.directory}/run/tnblock`));
  assertEquals(run.filter(({ name }) => /^logins-|\.dialect$/.test(name)), []);
});

test("a wrong key is refused with auth, and is not repeated in any word", async (place) => {
  const key = place.simulator.ready.apiKey.replace(/-.*/, `-${"x".repeat(64)}`);
  await place.writeSecrets({ "tnb-api-key": key });
  const { error } = await ask(place, "status");
  assertEquals(error?.code, "auth");
  assert(!JSON.stringify(error).includes("xxxx") && !place.log.join().includes("xxxx"));
  await place.writeSecrets({ "tnb-api-key": `4711-${"x".repeat(64)}` });
  assertEquals((await ask(place, "status")).error?.code, "auth");
});

test("another certificate than the pinned one is refused with tls", async (place) => {
  const { error } = await ask(place, "status", {}, { "tnb-tls-fingerprint": "ab".repeat(32) });
  assertEquals(error?.code, "tls");
  assertEquals((await place.stats()).logins, 0);
});

test("an array that is away is unreachable, and a list then fails", async (place) => {
  const away = { "tnb-api-port": 1, "tnb-api-retry-max": 0 };
  assertEquals((await ask(place, "list_images", {}, away)).error?.code, "unreachable");
});

Deno.test("REST: a key that is no full administrator's is denied, with the way out", async () => {
  await using place = await Place.start("iscsi", { roles: ["READONLY_ADMIN"] });
  const { error } = await ask(place, "status");
  assertEquals(error?.code, "denied");
  assertStringIncludes(error?.hint ?? "", "full administrators");
});

Deno.test("REST is refused with NVMe/TCP, with the reason, before anything is sent", async () => {
  await using place = await Place.start("nvme-tcp");
  const { error } = await ask(place, "status");
  assertEquals([error?.code, error?.field], ["config", "tnb-api-transport"]);
  assertMatch(error?.message ?? "", /iSCSI only/);
  assertEquals((await place.stats()).connections, 0);
});

Deno.test("REST is refused on 26, with the reason and what to set", async () => {
  await using place = await Place.start("iscsi", { release: "26" });
  for (const method of ["status", "validate_storage", "list_images"]) {
    const { error } = await ask(place, method);
    assertEquals([error?.code, error?.field], ["unsupported", "tnb-api-transport"], method);
    assertMatch(error?.message ?? "", /removed it in release 26/);
    assertStringIncludes(error?.hint ?? "", "tnb-api-transport ws");
  }
});

// An array that answers with anything but the truth

const HOSTILE: readonly (readonly [string, NonNullable<RestScript["onRequest"]>, string])[] = [
  ["a web page", (_, reply) => reply.text(200, "text/html", "<html></html>"), "unsupported"],
  [
    "10 MB of a web page",
    (_, reply) => reply.text(200, "text/html", MEGABYTE.repeat(10)),
    "array-fault",
  ],
  ["half a JSON", (_, reply) => reply.text(200, "application/json", '"25.'), "unsupported"],
  [
    "a redirect",
    (_, reply) => reply.text(301, "text/html", "", { location: "https://x/" }),
    "config",
  ],
  ["no word", (_, reply) => reply.cut(), "unreachable"],
];

for (const [what, act, code] of HOSTILE) {
  test(`an array that answers with ${what} is told apart (${code}), and the node stays as it was`, async (place) => {
    await using server = await startRestServer({ onRequest: (...all) => (act(...all), true) });
    const [host, port] = server.address.split(":");
    const { error } = await ask(place, "list_images", {}, {
      "tnb-api-host": host,
      "tnb-api-port": port,
      "tnb-tls-fingerprint": server.fingerprint,
      "tnb-api-retry-max": 0,
    });
    assertEquals(error?.code, code, error?.message);
    await server.idle();
  });
}
