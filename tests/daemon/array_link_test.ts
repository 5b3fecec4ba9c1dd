import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { connect, type PeerCertificate } from "node:tls";
import { Deadline } from "../../src/common/deadline.ts";
import { TnblockError } from "../../src/common/error.ts";
import { lineLog } from "../../src/common/log.ts";
import type { ApiSettings } from "../../src/common/storage_settings.ts";
import { type ArrayLink, ArrayLinks } from "../../src/daemon/array_link.ts";
import type { LinkTimes } from "../../src/daemon/link_state.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import { startSimulator } from "../../src/simulator/simulator.ts";
import { ArrayError } from "../../src/truenas/errors.ts";
import type { Session } from "../../src/truenas/session.ts";
import { testCertificate } from "../support/scripted_array.ts";
import { until } from "../simulator/world.ts";
import { Place, type PlaceOptions, type Reply, TRANSPORTS } from "../support/place.ts";

/** The certificate that a server shows. */
async function certificateOf(host: string, port: number): Promise<PeerCertificate> {
  const tls = connect({ host, port, rejectUnauthorized: false });
  await new Promise((resolve) => tls.once("secureConnect", resolve));
  const certificate = tls.getPeerCertificate();
  tls.destroy();
  return certificate;
}

/** A place whose requests share the links of one process, as in the daemon. */
class Linked implements AsyncDisposable {
  readonly host;
  readonly links: ArrayLinks;

  private constructor(readonly place: Place, limitLogins: boolean, times: Partial<LinkTimes>) {
    this.host = linuxHost({ root: place.directory });
    const log = lineLog((line) => place.log.push(line), () => 2);
    this.links = new ArrayLinks({ host: this.host, log, limitLogins, times });
  }

  static async start(
    transport: "iscsi" | "nvme-tcp",
    options: PlaceOptions & { limitLogins?: boolean; times?: Partial<LinkTimes> } = {},
  ): Promise<Linked> {
    // Tests break sessions one after the other: that is no flapping array.
    const { limitLogins = false, times = { stableMs: 0 }, ...place } = options;
    return new Linked(await Place.start(transport, place), limitLogins, times);
  }

  api(change: Partial<ApiSettings> = {}): ApiSettings {
    const { ready } = this.place.simulator;
    return {
      transport: "ws",
      hosts: [ready.host],
      port: ready.port,
      user: ready.user,
      key: ready.apiKey,
      tls: { kind: "fingerprint", sha256: ready.fingerprint.replaceAll(":", "").toLowerCase() },
      retryMax: 3,
      retryDelayMs: 100,
      ...change,
    };
  }

  deadline(ms = 20_000): Deadline {
    return new Deadline(this.host, ms);
  }

  session(link: ArrayLink): Promise<Session> {
    return link.session(this.deadline());
  }

  /** Resolves when the link tells of a session that it has not yet. */
  async next(link: ArrayLink): Promise<{ session: Session; rebooted: boolean }> {
    const before = link.state().sessions;
    const told = Promise.withResolvers<{ session: Session; rebooted: boolean }>();
    const stop = link.onSession((session, { rebooted }) => {
      if (link.state().sessions > before) told.resolve({ session, rebooted });
    });
    const over = new AbortController();
    this.host.wait(30_000, over.signal).then(
      () => told.reject(new Error("there was no next session in time")),
      () => {},
    );
    try {
      return await told.promise;
    } finally {
      over.abort();
      stop();
    }
  }

  /** Asks as the daemon's socket would, with the storage's settings changed. */
  async ask(
    method: string,
    args: Record<string, unknown> = {},
    config: Record<string, unknown> = {},
    deadlineMs = 45_000,
    onReply: () => void = () => {},
  ): Promise<Reply> {
    const { place, host, links } = this;
    const request = place.request(method, args, { config, deadlineMs });
    const { reply, settled } = answer(JSON.stringify(request), {
      host,
      log: lineLog((line) => place.log.push(line), () => 2),
      setDebugLevel: () => {},
      limitLogins: false,
      sessions: links,
      onArrayCall: (call) => place.calls.push(call.method),
    });
    const parsed = JSON.parse((await reply).text) as Reply;
    onReply();
    await settled;
    return parsed;
  }

  async must(
    method: string,
    args: Record<string, unknown> = {},
    config: Record<string, unknown> = {},
    // deno-lint-ignore no-explicit-any
  ): Promise<any> {
    const reply = await this.ask(method, args, config);
    if (!reply.ok) throw new Error(`${method}: ${reply.error?.message} [${reply.error?.code}]`);
    return reply.result;
  }

  alloc(vmid = 100): Promise<string> {
    return this.must("alloc_image", { vmid, format: "raw", name: null, sizeKiB: 65536 });
  }

  async free(volname: string): Promise<void> {
    await this.must("free_image", { volname, isBase: false, finish: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.links.close();
    await this.place[Symbol.asyncDispose]();
  }
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a burst of requests, then a day's worth of others, is one login`, async () => {
    await using linked = await Linked.start(transport);
    const names = await Promise.all([100, 101, 102, 103].map((vmid) => linked.alloc(vmid)));
    assertEquals(new Set(names).size, 4);
    for (let request = 0; request < 5; request++) await linked.must("list_images");
    for (const name of names) await linked.free(name);
    const { logins, connections } = linked.place.simulator.stats();
    // An upgrade in a dialect that the server has not costs a connection without a login.
    assertEquals([logins, connections], [1, 1]);
  });

  Deno.test(`${transport}: a login that is forgotten at any call is made again once, and nothing is done twice or not`, async () => {
    await using linked = await Linked.start(transport);
    await linked.alloc();
    const { place } = linked;
    const clean = await place.objects({ weight: true });
    const count = (objects: Record<string, unknown[]>) =>
      Object.fromEntries(Object.entries(objects).map(([name, rows]) => [name, rows.length]));
    place.calls = [];
    await linked.free(await linked.alloc(101));
    const methods = new Set(place.calls.filter((method) => method !== "auth.me"));
    assert(methods.size > 5);
    for (const method of methods) {
      const before = place.simulator.stats().logins;
      await place.faults([{ method, nth: 1, do: "expire" }]);
      await linked.free(await linked.alloc(101));
      assertEquals(place.simulator.stats().logins - before, 1, method);
      assertEquals(count(await place.objects({ weight: true })), count(clean), method);
    }
  });

  Deno.test(`${transport}: a connection that is cut between requests costs nobody anything`, async () => {
    await using linked = await Linked.start(transport);
    const volname = await linked.alloc();
    linked.place.simulator.cutConnections();
    await linked.must("activate_volume", { volname });
    linked.place.simulator.cutConnections();
    await linked.must("deactivate_volume", { volname });
    await linked.free(volname);
    assert(linked.place.simulator.stats().logins <= 3);
  });

  Deno.test(`${transport}: when all logins expire at once under load, all requests go on over one new login`, async () => {
    await using linked = await Linked.start(transport);
    const { simulator } = linked.place;
    await linked.alloc();
    const method = transport === "iscsi" ? "iscsi.targetextent.create" : "nvmet.namespace.create";
    await linked.place.faults([{ method, nth: 1, do: "hold" }]);
    const names = [101, 102, 103, 104, 105].map((vmid) => linked.alloc(vmid));
    await simulator.held(method);
    simulator.expireSessions();
    // The one that runs goes on; those behind it find that nobody knows them.
    const reads = [1, 2, 3].map(() => linked.must("list_images"));
    await Promise.all(reads);
    await linked.place.faults([]);
    assertEquals(new Set(await Promise.all(names)).size, 5);
    assertEquals(simulator.stats().logins, 2);
    const { zvols } = await linked.place.objects();
    assertEquals((zvols as { name: string }[]).length, 6);
  });
}

Deno.test("two storages with one key share the session, another key has its own", async () => {
  await using linked = await Linked.start("iscsi");
  const first = linked.links.link(linked.api());
  assertEquals(linked.links.link(linked.api({ retryMax: 9 })), first);
  const other = linked.links.link(linked.api({ key: "2-wrong" }));
  assert(other !== first);
  await linked.session(first);
  const error = await assertRejects(() => linked.session(other));
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "auth");
  const shown = JSON.stringify(linked.links.states());
  assert(!shown.includes("2-wrong") && !shown.includes(linked.api().key));
  assertEquals(linked.links.states().map(({ state }) => state.kind), ["up", "down"]);
});

Deno.test("a key that was replaced is used at once, however long the old one waits for its next try", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 2 });
  const key = linked.place.simulator.ready.apiKey;
  await linked.place.writeSecrets({ "tnb-api-key": `1-${"x".repeat(64)}` });
  const refused = await linked.ask("list_images");
  assertEquals(refused.error?.code, "auth");
  const again = performance.now();
  assertEquals((await linked.ask("list_images")).error?.code, "auth");
  assert(performance.now() - again < 1_000);
  await linked.place.writeSecrets({ "tnb-api-key": key });
  assertEquals((await linked.must("list_images")).length, 2);
});

Deno.test("a certificate authority that was put right is used at once", async () => {
  await using linked = await Linked.start("iscsi");
  const { ready } = linked.place.simulator;
  const file = "/etc/tnblock/ca.pem";
  const api = linked.api({ tls: { kind: "ca", file } });
  const open = () => linked.links.session(api, linked.deadline());
  assertEquals((await assertRejects(open) as TnblockError).code, "config");
  const other = (await testCertificate("issued")).ca;
  await linked.host.files.replaceText(file, other, 0o644);
  assertEquals((await assertRejects(open) as TnblockError).code, "tls");
  assertEquals((await assertRejects(open) as TnblockError).code, "tls");
  const { raw } = await certificateOf(ready.host, ready.port);
  const lines = Buffer.from(raw).toString("base64").match(/.{1,64}/g)?.join("\n");
  const pem = `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
  await linked.host.files.replaceText(file, pem, 0o644);
  assert((await open()).isOpen);
});

Deno.test("a lock-out by the array keeps every link of the node from trying, and is told at once", async () => {
  await using linked = await Linked.start("iscsi", { loginLimit: 1, limitLogins: true });
  const first = linked.links.link(linked.api());
  await linked.session(first);
  linked.place.simulator.cutConnections();
  const told = Promise.withResolvers<string>();
  first.onDown((error) => {
    if (error.code === "rate-limited") told.resolve(error.message);
  });
  first.keepUp();
  await told.promise;
  const state = first.state();
  assertEquals([state.kind, state.error?.code], ["down", "rate-limited"]);
  assert((state.nextTryMs ?? 0) - linked.host.monotonicMs() > 55_000);
  const error = await assertRejects(() => first.session(linked.deadline(10_000)));
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "rate-limited");
  // Another user at the same array: the array counts by address, so it is not even tried.
  const tried = linked.place.simulator.stats().calls["auth.login_ex"];
  const other = linked.links.link(linked.api({ user: "other" }));
  await assertRejects(() => other.session(linked.deadline(10_000)), "too many logins");
  assertEquals(linked.place.simulator.stats().calls["auth.login_ex"], tried);
});

for (const release of ["25.04", "25.10", "26"] as const) {
  Deno.test(`${release}: an array that was rebooted is known by its boot id, or taken for it without one`, async () => {
    await using linked = await Linked.start("iscsi", { release });
    const { simulator } = linked.place;
    const link = linked.links.link(linked.api());
    const first = linked.next(link);
    link.keepUp();
    assertEquals((await first).rebooted, false);
    const { bootId } = link.state();
    assertEquals(bootId, release === "25.04" ? undefined : simulator.world.bootId);
    // Only the connection broke.
    const second = linked.next(link);
    simulator.cutConnections();
    assertEquals((await second).rebooted, release === "25.04");
    // Down and up again.
    const third = linked.next(link);
    const up = await simulator.goDown();
    await assertRejects(() => link.session(linked.deadline(200)));
    assertEquals(link.state().error?.code, "unreachable");
    await up();
    assertEquals((await third).rebooted, true);
    assert(release === "25.04" || link.state().bootId !== bootId);
  });
}

for (
  const [before, after] of [["25.04", "25.10"], ["25.10", "26"], ["26", "25.10"]] as const
) {
  Deno.test(`an array that went from ${before} to ${after} is used as what it is now, without a restart`, async () => {
    await using linked = await Linked.start("iscsi", { release: before });
    const { simulator } = linked.place;
    const old = await linked.alloc();
    const link = linked.links.link(linked.api());
    const next = linked.next(link);
    await (await simulator.goDown())(after);
    const { session } = await next;
    assertStringIncludes(session.release.text, after);
    const dialects = { "25.04": "current", "25.10": "v25.10.0", "26": "v26.0.0" } as const;
    assertEquals(session.release.dialect, dialects[after]);
    const made = await linked.alloc(101);
    await linked.free(old);
    await linked.free(made);
    assertEquals((await linked.place.objects())["zvols"]?.length, 0);
  });
}

Deno.test("a request under way when the array is updated fails before its next call, and takes back what it made with the new release's own calls", async () => {
  await using linked = await Linked.start("iscsi", { release: "25.10" });
  const { simulator } = linked.place;
  await linked.alloc();
  const before = await linked.place.objects({ weight: true });
  await linked.place.faults([{ method: "iscsi.extent.create", nth: 1, do: "hold" }]);
  const request = linked.ask("alloc_image", {
    vmid: 101,
    format: "raw",
    name: null,
    sizeKiB: 65536,
  });
  await simulator.held("iscsi.extent.create");
  await (await simulator.goDown())("26");
  const reply = await request;
  assertEquals(reply.ok, false);
  assert(["unreachable", "busy"].includes(reply.error?.code ?? ""), reply.error?.code);
  const after = await linked.place.objects({ weight: true });
  for (const kind of ["zvols", "extents", "mappings"]) {
    assertEquals(after[kind]?.length, before[kind]?.length, kind);
  }
  await linked.free(await linked.alloc(101));
});

Deno.test("the second address is used when the first is dead, and kept when the first is back", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 1 });
  const { ready } = linked.place.simulator;
  const dead = await startSimulator({ empty: true });
  await dead.stop();
  const first = `127.0.0.1:${dead.ready.port}`;
  const second = `${ready.host}:${ready.port}`;
  const link = linked.links.link(linked.api({ hosts: [first, second] }));
  assertEquals((await linked.session(link)).address, second);
  // Something else answers at the first address by now: it would not be trusted.
  const back = await startSimulator({
    empty: true,
    listen: { address: "127.0.0.1", port: dead.ready.port },
  });
  try {
    const next = linked.next(link);
    linked.place.simulator.cutConnections();
    link.keepUp();
    assertEquals((await next).session.address, second);
    assertEquals(back.stats().connections, 0);
  } finally {
    await back.stop();
  }
});

Deno.test("the standby controller of an HA pair sends to the active one, which is then worked with", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 3 });
  const { ready } = linked.place.simulator;
  // Both controllers have the same certificate on a real pair; here it is trusted by pinning the active one's.
  const active = `https://${ready.host}:${ready.port}`;
  linked.place.simulator.setFaults([{
    method: "auth.login_ex",
    nth: 1,
    do: "result",
    result: { response_type: "REDIRECT", urls: [active] },
  }]);
  assertEquals((await linked.must("list_images")).length, 3);
  const [{ state } = { state: undefined }] = linked.links.states();
  assertEquals([state?.kind, state?.logins, state?.sessions], ["up", 2, 1]);
});

Deno.test("over REST there is no login and no session to lose, and an array that is away is a state as well", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 3, times: { healthEveryMs: 50 } });
  const { simulator } = linked.place;
  const rest = { "tnb-api-transport": "rest" };
  assertEquals((await linked.must("list_images", {}, rest)).length, 3);
  const link = linked.links.link(linked.api({ transport: "rest" }));
  link.keepUp();
  await linked.session(link);
  assertEquals(simulator.stats().calls["auth.login_ex"], undefined);
  const down = Promise.withResolvers<string>();
  link.onDown((error) => down.resolve(error.code));
  const up = await simulator.goDown();
  // Found by the health call, without a request.
  assertEquals(await down.promise, "unreachable");
  await up();
  const volname = await linked.must("alloc_image", {
    vmid: 100,
    format: "raw",
    name: null,
    sizeKiB: 65536,
  }, rest);
  await linked.must("free_image", { volname, isBase: false, finish: true }, rest);
});

Deno.test("a session that expired in silence is found by the health call on a real connection", async () => {
  await using linked = await Linked.start("iscsi", { times: { healthEveryMs: 50, stableMs: 0 } });
  const link = linked.links.link(linked.api());
  link.keepUp();
  await linked.session(link);
  const next = linked.next(link);
  linked.place.simulator.expireSessions();
  await next;
  assertEquals([link.state().kind, linked.place.simulator.stats().logins], ["up", 2]);
  assertStringIncludes(
    linked.place.log.join("\n"),
    "session with TrueNAS ended: Cannot see whether",
  );
});

Deno.test("a write that runs when the login is forgotten is answered over its old connection", async () => {
  await using linked = await Linked.start("nvme-tcp");
  const { simulator } = linked.place;
  await linked.alloc();
  const method = "nvmet.namespace.create";
  await linked.place.faults([{ method, nth: 1, do: "hold" }]);
  const write = linked.alloc(101);
  await simulator.held(method);
  simulator.expireSessions();
  await linked.must("list_images");
  await linked.place.faults([]);
  await write;
  assertEquals(simulator.stats().calls[method], 2);
});

Deno.test("a request whose deadline is over while its write waits for its turn leaves nothing", async () => {
  await using linked = await Linked.start("nvme-tcp");
  const { simulator } = linked.place;
  await linked.alloc();
  const method = "nvmet.namespace.create";
  await linked.place.faults([{ method, nth: 1, do: "hold" }]);
  const slow = linked.alloc(101);
  await simulator.held(method);
  const args = { vmid: 102, format: "raw", name: null, sizeKiB: 65536 };
  const hurried = await linked.ask("alloc_image", args, {}, 1_000);
  assertEquals(hurried.error?.code, "timeout");
  const [{ state } = { state: undefined }] = linked.links.states();
  assertEquals([state?.queued.nvmet, state?.writing], [0, 1]);
  await linked.place.faults([]);
  await slow;
  assertEquals(simulator.stats().calls[method], 2);
  assertEquals((await linked.place.objects())["zvols"]?.length, 2);
});

Deno.test("what is finished whatever its caller does waits for its turn beyond his deadline", async () => {
  await using linked = await Linked.start("nvme-tcp");
  const { simulator } = linked.place;
  const names = [];
  for (let vmid = 100; vmid < 105; vmid++) names.push(await linked.alloc(vmid));
  const [last, ...others] = names;
  for (const volname of names) await linked.must("volume_snapshot", { volname, snapshot: "s" });
  const method = "pool.snapshot.delete";
  await linked.place.faults([{ method, do: "hold" }]);
  // All places of ZFS are taken.
  const slow = others.map((volname) =>
    linked.must("volume_snapshot_delete", { volname, snapshot: "s" })
  );
  await until(() => simulator.stats().calls[method] === 4);
  const late = Promise.withResolvers<void>();
  const args = { volname: last, snapshot: "s" };
  const finished = linked.ask("volume_snapshot_delete", args, {}, 1_000, () => late.resolve());
  await late.promise;
  assertEquals(linked.links.states()[0]?.state.queued.zfs, 1);
  await linked.place.faults([]);
  const reply = await finished;
  assertEquals(reply.error?.code, "timeout");
  assertStringIncludes(reply.error?.message ?? "", "and it goes on");
  await Promise.all(slow);
  assertEquals((await linked.place.objects())["snapshots"]?.length, 0);
});

Deno.test("500 requests at once are all answered, over one session", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 20 });
  const lists = await Promise.all(Array.from({ length: 500 }, () => linked.must("list_images")));
  assertEquals(new Set(lists.map((list) => list.length)), new Set([20]));
  assertEquals(linked.place.simulator.stats().logins, 1);
});

Deno.test("a read does not wait behind writes that do", async () => {
  await using linked = await Linked.start("iscsi", { volumes: 8 });
  const { simulator } = linked.place;
  const session = await linked.session(linked.links.link(linked.api()));
  const [mapping] = simulator.world.tables.targetextent.all();
  assert(mapping !== undefined);
  const method = "iscsi.targetextent.update";
  await linked.place.faults([{ method, do: "hold" }]);
  const writes = Array.from(
    { length: 20 },
    () => session.call(method, [mapping.id, { lunid: mapping.lunid }], { lane: "write" }),
  );
  await simulator.held(method);
  const rows = await session.call("iscsi.extent.query", [[], {}], {
    lane: "read",
    deadlineMs: 2_000,
  });
  assertEquals((rows as unknown[]).length, 8);
  assertEquals(simulator.stats().calls[method], 1);
  await linked.place.faults([]);
  await Promise.all(writes);
});

Deno.test("an error of the array passes through the link as it is", async () => {
  await using linked = await Linked.start("iscsi");
  const session = await linked.session(linked.links.link(linked.api()));
  const error = await assertRejects(() =>
    session.call("iscsi.extent.delete", [4711, false, true], { lane: "write" })
  );
  assertInstanceOf(error, ArrayError);
  assertEquals([error.code, error.outcome, error.errno], ["not-found", "answered", 2]);
});
