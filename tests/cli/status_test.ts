import { createServer, type Socket } from "node:net";
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { formatSeconds } from "../../src/cli/age.ts";
import { runStatus } from "../../src/cli/status.ts";
import { findingsOf, verdictOf } from "../../src/cli/status_findings.ts";
import { renderStatus } from "../../src/cli/status_view.ts";
import { TnblockError } from "../../src/common/error.ts";
import type { State } from "../../src/daemon/state.ts";
import { type Host, HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { DAEMON, disk, LINK, portal, state, storage } from "../daemon/state_examples.ts";
import { daemonIn, statusDaemon, writeStorageCfg } from "../daemon/state_support.ts";
import { withNode } from "../support/node_folder.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

const VERSION = "1.2.3";

function texts(told: State): string[] {
  return findingsOf(told, { version: VERSION }).map(({ storage, text }) =>
    storage === null ? text : `${storage}: ${text}`
  );
}

Deno.test("a node where all is well has nothing to see to", () => {
  assertEquals(texts(state()), []);
  assertEquals(verdictOf([]), "ok");
});

const away = {
  code: "unreachable",
  message: "Cannot connect to nas.lan: connection refused",
  hint: "Look at the array",
};
const journaled = {
  id: "7f3a",
  op: "rename",
  storage: "san",
  zvol: "vm-1-disk-0",
  startedAt: "2026-03-01T11:00:00.000Z",
};

const cases: readonly (readonly [
  name: string,
  change: Partial<State>,
  texts: readonly string[],
  verdict: "degraded" | "unreachable",
])[] = [
  [
    "an array that is away",
    {
      storages: [storage({ array: { ...LINK, state: "down", error: away } })],
    },
    [`san: ${away.message}`],
    "unreachable",
  ],
  [
    "an array that refuses the key",
    {
      storages: [storage({
        array: { ...LINK, state: "down", error: { ...away, code: "auth", message: "Refused" } },
      })],
    },
    ["san: Refused"],
    "degraded",
  ],
  [
    "a dataset that is not there",
    {
      storages: [storage({
        memory: { ...storage().memory!, trust: "none", error: { ...away, code: "not-found" } },
      })],
    },
    [`san: ${away.message}`],
    "degraded",
  ],
  [
    "volumes from before the start",
    {
      storages: [storage({ memory: { ...storage().memory!, trust: "kept", ageSeconds: null } })],
    },
    ["san: the array has not been read since the daemon's start"],
    "degraded",
  ],
  [
    "a section that cannot be used",
    { storages: [storage({ error: { code: "config", message: "Cannot use it", hint: null } })] },
    ["san: Cannot use it"],
    "degraded",
  ],
  [
    "one portal of two lost",
    {
      storages: [storage({
        portals: [
          portal("10.0.0.1:4420"),
          portal("10.0.0.2:4420", {
            state: "missing",
            since: "2026-03-01T11:57:00.000Z",
            error: "connection refused",
          }),
        ],
        disks: [disk("vm-100-disk-0", true, { pathsUp: 1 })],
      })],
    },
    ["san: the portal 10.0.0.2:4420 is not connected, for 3m: connection refused"],
    "degraded",
  ],
  [
    "all portals lost",
    {
      storages: [storage({ portals: [portal("10.0.0.1:4420", { state: "recovering" })] })],
    },
    ["san: the portal 10.0.0.1:4420 is being reconnected, for 3d4h"],
    "unreachable",
  ],
  [
    "a disk in use on fewer paths than there are",
    {
      storages: [storage({
        disks: [
          disk("vm-1-disk-0", true, { pathsUp: 1 }),
          disk("vm-2-disk-0", false, { pathsUp: 1 }),
        ],
      })],
    },
    ["san: fewer paths than portals carry vm-1-disk-0"],
    "degraded",
  ],
  [
    "a pool that is not well",
    { storages: [storage({ pool: { name: "tank", status: "DEGRADED" } })] },
    ['san: the pool "tank" is DEGRADED'],
    "degraded",
  ],
  [
    "a subsystem that is nearly full",
    { storages: [storage({ memory: { ...storage().memory!, volumes: 900 } })] },
    ["san: 900 volumes of at most 1000 are there"],
    "degraded",
  ],
  ["an operation that nobody can finish", {
    journal: {
      open: [
        { ...journaled, failures: 0, isGivenUp: false, why: null },
        { ...journaled, failures: 3, isGivenUp: false, why: "array away" },
        { ...journaled, failures: 9, isGivenUp: true, why: null },
      ],
      unread: ["/var/lib/tnblock/journal/x.json"],
    },
  }, [
    'san: rename of "vm-1-disk-0", which was stopped, is not ended yet: array away',
    'san: rename of "vm-1-disk-0", which was stopped, is left as it is',
    "the journal's entry /var/lib/tnblock/journal/x.json cannot be read, and is kept as it is",
  ], "degraded"],
  [
    "a daemon of another version",
    { daemon: { ...DAEMON, version: "1.0.0" } },
    ["the daemon runs version 1.0.0, and this program is 1.2.3"],
    "degraded",
  ],
  [
    "a daemon that is late",
    { daemon: { ...DAEMON, loopLagSeconds: 2.5 } },
    ["the daemon was 2.5 s late with its work"],
    "degraded",
  ],
  [
    "storages that cannot be read",
    { storages: [], storagesError: { code: "timeout", message: "No answer", hint: null } },
    ["No answer"],
    "degraded",
  ],
];

for (const [name, change, expected, verdict] of cases) {
  Deno.test(`${name} is to be seen to`, () => {
    const told = state(change);
    assertEquals(texts(told), expected);
    assertEquals(verdictOf(findingsOf(told, { version: VERSION })), verdict);
  });
}

Deno.test("portals of a node without a daemon may be unconnected because nobody wanted a disk yet", () => {
  const portals = [portal("10.0.0.1:4420", { state: "missing", since: null })];
  const told = state({ daemon: null, storages: [storage({ portals })] });
  assertEquals(verdictOf(findingsOf(told, { version: VERSION })), "degraded");
});

Deno.test("portals that a new daemon has not looked at yet are told, and nothing to see to", () => {
  const portals = [portal("10.0.0.1:4420", { state: "unseen", since: null })];
  const told = state({ storages: [storage({ portals, disks: [] })] });
  assertEquals(texts(told), []);
  const text = renderStatus(told, [], 80);
  assert(/^san +ok +0\/1 /m.test(text), text);
  assert(text.includes("san: not looked at yet, and not connected: 10.0.0.1:4420"), text);
});

const troubled = state({
  daemon: {
    ...DAEMON,
    errors: [{
      at: "2026-03-01T11:57:00.000Z",
      method: "alloc_image",
      storage: "san",
      code: "no-space",
      message: 'Cannot allocate "vm-7-disk-0": the dataset tank/pve has not enough room',
      hint: "Free some space",
      count: 3,
    }],
  },
  storages: [
    storage({
      portals: [portal("10.0.20.11:4420"), portal("10.0.21.11:4420", { state: "missing" })],
    }),
    storage({
      id: "backup",
      transport: "iscsi",
      array: { ...LINK, state: "down", address: null, release: null, error: away },
      memory: { ...storage().memory!, trust: "none", ageSeconds: null },
      space: null,
      portals: [],
      disks: [],
    }),
  ],
});

Deno.test("people get tables, the last errors, and what is to be seen to", () => {
  const text = renderStatus(troubled, findingsOf(troubled, { version: VERSION }), 80);
  assertEquals(
    text,
    `tnblock 1.2.3 on pve1: running for 3d4h, process 812, 70.0 MiB of memory
1234 requests answered, 12 failed, 2 under way

STORAGE  STATE     PORTALS  IN-USE  IDLE  USED    FREE    VOLUMES  AGE
san      degraded  1/2      1       1     1.0TiB  2.0TiB  120      2s
backup   down      0/0      0       0     -       -       120      -

STORAGE  TRANSPORT  ARRAY        TRUENAS  SESSION  QUEUE
san      nvme-tcp   nas.lan:443  25.10.1  3h12m    3+1
backup   iscsi      nas.lan      -        down     3+1

STORAGE  PORTAL           STATE    FOR   SPEED   INTERFACE
san      10.0.20.11:4420  live     3d4h  25Gb/s  ens19
san      10.0.21.11:4420  missing  3d4h  25Gb/s  ens19

Last error of alloc_image on san, 3m ago, 3 times:
  Cannot allocate "vm-7-disk-0": the dataset tank/pve has not enough room
  [no-space]
  hint: Free some space

[!] san: the portal 10.0.21.11:4420 is not connected, for 3d4h
[x] backup: Cannot connect to nas.lan: connection refused
    fix: Look at the array
`,
  );
});

for (const columns of [40, 60, 80]) {
  Deno.test(`a terminal of ${columns} columns is not overrun`, () => {
    const text = renderStatus(troubled, findingsOf(troubled, { version: VERSION }), columns);
    const long = text.split("\n").filter((line) => line.length > columns);
    assertEquals(long, []);
    assert(text.includes("san") && text.includes("degraded") && text.includes("10.0.21.11:4420"));
  });
}

Deno.test("what is printed for no terminal is not broken into lines", () => {
  const text = renderStatus(troubled, findingsOf(troubled, { version: VERSION }), undefined);
  assert(text.includes("has not enough room [no-space]\n"));
});

Deno.test("no name from elsewhere sends control characters to the terminal", () => {
  const message = "Cannot read \u001b[31mred\u0007";
  const told = state({ storages: [storage({ error: { code: "config", message, hint: null } })] });
  const text = renderStatus(told, findingsOf(told, { version: VERSION }), 80);
  // deno-lint-ignore no-control-regex
  assert(!/[\x00-\x09\x0b-\x1f]/.test(text));
});

for (
  const [seconds, text] of [[0, "0s"], [59.9, "59s"], [61, "1m"], [3600, "1h"], [
    4 * 3600 + 61,
    "4h1m",
  ], [
    90_000,
    "1d1h",
  ], [-5, "0s"]] as const
) {
  Deno.test(`${seconds} s are ${text}`, () => assertEquals(formatSeconds(seconds), text));
}

async function run(host: Host, json: boolean): Promise<{ status: number; text: string }> {
  let text = "";
  const options = { json, columns: undefined, version: VERSION };
  const status = await runStatus(host, options, (part) => text += part);
  return { status, text };
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a running daemon's status is well, for people and for programs`, async () => {
    await using place = await Place.start(transport);
    await writeStorageCfg(place);
    await using daemon = await statusDaemon(place, { version: VERSION });
    await daemon.ask("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 });
    await daemon.ask("activate_storage");
    await daemon.ask("list_images");
    await daemon.daemon.keeper.round();

    const forPeople = await run(daemon.host, false);
    const forPrograms = await run(daemon.host, true);

    assertEquals([forPeople.status, forPrograms.status], [0, 0], forPeople.text);
    assert(/^san +ok +2\/2 /m.test(forPeople.text), forPeople.text);
    const told = JSON.parse(forPrograms.text);
    assertEquals([told.schemaVersion, told.status, told.findings], [1, "ok", []]);
    assertEquals(told.storages[0].transport, transport);
  });
}

Deno.test("a daemon that has only just begun is well", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place);
  await using daemon = await statusDaemon(place, { version: VERSION });
  await daemon.ask("list_images");

  const { status, text } = await run(daemon.host, false);

  assertEquals(status, 0, text);
  assert(/^san +127\.0\.0\.1:\d+ +unseen /m.test(text), text);
});

Deno.test("an array that cannot be reached ends it with 6", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place, { san: { "tnb-api-port": 9 } });
  await using daemon = await statusDaemon(place, { version: VERSION });

  const { status, text } = await run(daemon.host, true);

  assertEquals(JSON.parse(text).status, "unreachable");
  assertEquals(status, 6);
});

Deno.test("without a daemon it says so, what to do, and what the node shows", async () => {
  await using place = await Place.start("nvme-tcp");
  await writeStorageCfg(place);
  const volume = await place.alloc();
  await place.must("activate_volume", { volname: volume });

  const { status, text } = await run(linuxHost({ root: place.directory }), false);

  assertEquals(status, 1);
  assert(/^\[!\] the daemon is not running$/m.test(text), text);
  assert(text.includes("fix: systemctl start tnblock"), text);
  assert(/^san +ok +2\/2 +0 +1 /m.test(text), text);
});

Deno.test("a node without storages is told so", async () => {
  await withNode(undefined, async ({ host }) => {
    await host.files.replaceText("/etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n", 0o644);
    const { text } = await run(host, false);
    assert(text.includes("No storage of type tnblock is configured for this node"), text);
  });
});

for (
  const [name, make, reason] of [
    ["gone", () => Promise.resolve(), "there is no /etc/pve/storage.cfg"],
    [
      "unreadable",
      (host: Host) => host.files.makeDirectory("/etc/pve/storage.cfg", 0o755),
      'Cannot read "/etc/pve/storage.cfg"',
    ],
  ] as const
) {
  Deno.test(`a node whose storage.cfg is ${name} is not well, with a daemon and without`, async () => {
    await withNode(undefined, async ({ host, directory }) => {
      await make(host);
      const without = await run(host, true);
      await using daemon = await daemonIn(directory);
      const beside = await run(daemon.host, true);
      for (const { status, text } of [without, beside]) {
        const { findings, storages } = JSON.parse(text);
        assertEquals([status, storages], [1, []]);
        const [found] = findings.slice(-1);
        assert(found.text.startsWith("Cannot tell which storages this node has: "), found.text);
        assert(found.text.includes(reason), found.text);
        assertEquals(found.fix, "Look whether /etc/pve is there: systemctl status pve-cluster");
      }
    });
  });
}

Deno.test("a daemon that hangs costs two seconds, and is told from one that is not there", async () => {
  await withNode(undefined, async ({ host, directory }) => {
    await host.files.makeDirectory("/run/tnblock", 0o755);
    // The kernel takes connections for it.
    const server = createServer({ pauseOnConnect: true }, (socket) => held.push(socket));
    const held: Socket[] = [];
    await new Promise<void>((ready) =>
      server.listen(`${directory}/run/tnblock/daemon.sock`, () => ready())
    );
    await Deno.chmod(`${directory}/run/tnblock/daemon.sock`, 0o600);
    try {
      const start = performance.now();
      const { status, text } = await run(host, false);
      const ms = performance.now() - start;
      assertEquals(status, 1);
      assert(
        text.includes("the daemon hangs: it is there, and has not taken a request for 2 s"),
        text,
      );
      assert(ms > 1_900 && ms < 5_000, `${ms} ms`);
    } finally {
      for (const socket of held) socket.destroy();
      await new Promise((closed) => server.close(closed));
    }
  });
});

Deno.test("a socket that a dead daemon left is in nobody's way", async () => {
  await withNode(undefined, async ({ host, directory }) => {
    await host.files.replaceText("/etc/pve/storage.cfg", "", 0o644);
    await host.files.makeDirectory("/run/tnblock", 0o755);
    // The runtime removes the name that it was made by.
    const server = Deno.listen({ transport: "unix", path: `${directory}/socket` });
    await Deno.link(`${directory}/socket`, directory + DAEMON_SOCKET);
    server.close();
    assert((await Deno.lstat(directory + DAEMON_SOCKET)).isSocket);
    await using daemon = await daemonIn(directory, { version: VERSION });
    const { status, text } = await run(daemon.host, false);
    assertEquals(status, 0, text);
  });
});

Deno.test("what is no socket where the daemon's is to be keeps it from starting, and says what to do", async () => {
  await withNode(undefined, async ({ host, directory }) => {
    await host.files.replaceText(DAEMON_SOCKET, "", 0o644);
    const error = await assertRejects(() => daemonIn(directory));
    assertInstanceOf(error, TnblockError);
    assertEquals([error.message, error.hint], [
      `Cannot start the daemon: Cannot listen on ${directory}${DAEMON_SOCKET}: it is no socket`,
      `Look at what lies there, and remove it: rm ${DAEMON_SOCKET}`,
    ]);
    const { status, text } = await run(host, false);
    assertEquals(status, 1);
    assert(text.includes("it is no socket"), text);
    assert(text.includes("fix: Remove it, then run systemctl restart tnblock"), text);
  });
});

for (
  const [name, answer, text] of [
    ["answers with garbage", "garbage", "its answer is none"],
    [
      "does not know the question",
      '{"id":"x","ok":false,"error":{"code":"unsupported"}}',
      "versions",
    ],
    ["tells something else", '{"id":"x","ok":true,"result":{"schemaVersion":9}}', "versions"],
    ["takes no more", '{"id":null,"ok":false,"error":{"code":"busy","message":"full"}}', "full"],
    ["says nothing", new HostError("ETIMEDOUT", "late"), "the daemon hangs: it is there"],
    ["breaks off", new HostError("ECONNRESET", "it was closed"), "it was closed"],
    ["is not root's", new HostError("EPERM", "it belongs to user 7"), "it belongs to user 7"],
  ] as const
) {
  Deno.test(`a daemon that ${name} is something to see to`, async () => {
    await withNode(undefined, async ({ host }) => {
      const askLocal = () =>
        typeof answer === "string" ? Promise.resolve(answer) : Promise.reject(answer);
      const { status, text: printed } = await run({ ...host, askLocal }, false);
      assertEquals(status, 1);
      assert(printed.includes(text), printed);
    });
  });
}

Deno.test("who may not ask the daemon is told so", async () => {
  await withNode(undefined, async ({ host }) => {
    const askLocal = () => Promise.reject(new HostError("EACCES", "permission denied"));
    const error = await assertRejects(() => run({ ...host, askLocal }, false));
    assertInstanceOf(error, TnblockError);
    assertEquals([error.code, error.hint], ["denied", "Run it as root"]);
  });
});
