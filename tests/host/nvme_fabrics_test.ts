import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { type Host, HostError, LockError } from "../../src/host/host.ts";
import { crc32 } from "../../src/host/dhchap_secret.ts";
import {
  checkDhchapSecret,
  connectPortal,
  connectString,
  hostIdentity,
  type NvmeConnection,
  rescanController,
} from "../../src/host/nvme_fabrics.ts";
import { withNode } from "../support/node_folder.ts";

const NQN = "nqn.2011-06.com.truenas:uuid:7b0c4d52-3f1e-4a86-9d0a-2c6e8f1b9a47:pve";
const HOST_ID = "2f6c1b0e-9d3a-4a75-8e41-0b1c2d3e4f50";
const OPTIONS =
  "instance=-1,cntlid=-1,transport=%s,traddr=%s,trsvcid=%s,nqn=%s,nr_io_queues=%d,reconnect_delay=%d,ctrl_loss_tmo=%d,keep_alive_tmo=%d,hostnqn=%s,hostid=%s,dhchap_secret=%s,dhchap_ctrl_secret=%s";

const connection: NvmeConnection = {
  portal: { address: "10.99.0.1", port: 4420 },
  nqn: NQN,
  hostNqn: `nqn.2014-08.org.nvmexpress:uuid:${HOST_ID}`,
  hostId: HOST_ID,
};

/** A secret with a right checksum; made here, valid nowhere. */
function secret(length: number, hash = "00"): string {
  const key = Uint8Array.from({ length }, (_, index) => (index * 7 + length) & 0xff);
  const bytes = new Uint8Array(length + 4);
  bytes.set(key);
  new DataView(bytes.buffer).setUint32(length, crc32(key), true);
  return `DHHC-1:${hash}:${btoa(String.fromCharCode(...bytes))}:`;
}

const IC_RESPONSE = Uint8Array.from({ length: 128 }, (_, index) => [1, 0, 128, 0, 128][index] ?? 0);

/** The recorded node with a kernel that answers a connect so. */
async function connecting(
  kernel: { answer?: string; error?: string; log?: string[]; probe?: Uint8Array | string },
  request: Partial<NvmeConnection> = {},
  fixture?: string,
): Promise<{ outcome: unknown; seen: string[] }> {
  return await withNode(fixture, async (node) => {
    const seen: string[] = [];
    const host: Host = {
      ...node.host,
      fabricsOptions: () => Promise.resolve(OPTIONS),
      exchangeTcp: () =>
        typeof kernel.probe === "string"
          ? Promise.reject(new HostError(kernel.probe, kernel.probe))
          : Promise.resolve(kernel.probe ?? IC_RESPONSE),
      connectFabrics(options) {
        seen.push(options);
        return kernel.error === undefined
          ? Promise.resolve(kernel.answer ?? "instance=0,cntlid=1")
          : Promise.reject(new HostError(kernel.error, kernel.error));
      },
      kernelLog: () => Promise.resolve(kernel.log ?? []),
    };
    const outcome = await connectPortal(host, { ...connection, ...request }).catch((error) =>
      error
    );
    return { outcome, seen };
  });
}

Deno.test("the connect string names everything that was asked for, and nothing else", () => {
  assertEquals(
    connectString({ ...connection, nrIoQueues: 4, ctrlLossTmo: -1 }, OPTIONS),
    `transport=tcp,traddr=10.99.0.1,trsvcid=4420,nqn=${NQN},hostnqn=${connection.hostNqn},hostid=${HOST_ID},nr_io_queues=4,ctrl_loss_tmo=-1`,
  );
  const full = connectString({
    ...connection,
    portal: { address: "fd00::5", port: 4421 },
    keepAliveTmo: 5,
    reconnectDelay: 2,
    dhchapSecret: secret(32),
    dhchapCtrlSecret: secret(64),
  }, undefined);
  assertStringIncludes(full, "traddr=fd00::5,trsvcid=4421,");
  assertStringIncludes(full, ",keep_alive_tmo=5,reconnect_delay=2,");
  assert(full.endsWith(`,dhchap_secret=${secret(32)},dhchap_ctrl_secret=${secret(64)}`));
});

Deno.test("no value can smuggle in another option", () => {
  for (const nqn of ["nqn.a,discovery", "nqn.a\nx", "nqn.a b", "", "nqn\0"]) {
    assertThrows(() => connectString({ ...connection, nqn }, OPTIONS), "Cannot use the nqn");
  }
  const portal = { address: "array.example.org", port: 4420 };
  assertThrows(() => connectString({ ...connection, portal }, OPTIONS), "not numeric");
});

Deno.test("a tuning option that the kernel does not know is left out", () => {
  const text = connectString(
    { ...connection, nrIoQueues: 4, keepAliveTmo: 5 },
    "instance=-1,nr_io_queues=%d",
  );
  assertStringIncludes(text, "nr_io_queues=4");
  assert(!text.includes("keep_alive_tmo"));
});

Deno.test("a secret is refused by name where the kernel cannot use it", () => {
  const error = assertThrows(() =>
    connectString({ ...connection, dhchapSecret: secret(32) }, "instance=-1,transport=%s")
  );
  assertInstanceOf(error, TnblockError);
  assertEquals([error.code, error.field], ["unsupported", "tnb-dhchap-secret"]);
});

Deno.test("CRC-32 is the one of zlib", () => {
  assertEquals(crc32(new TextEncoder().encode("123456789")), 0xcbf43926);
});

Deno.test("secrets of every length with a right checksum are taken", () => {
  for (
    const [length, hash] of [[32, "00"], [48, "00"], [64, "00"], [32, "01"], [48, "02"], [
      64,
      "03",
    ]] as const
  ) {
    checkDhchapSecret(secret(length, hash));
  }
});

Deno.test("a secret that nvme-cli made is taken", () => {
  checkDhchapSecret("DHHC-1:01:6EyzxZHnqGw3BAdk9f5ybupygtq0GAZ7QkR8so7lEw8vcBd+:");
});

Deno.test("a malformed secret is refused without being repeated", () => {
  const good = secret(32);
  const wrong = [
    "hunter2hunter2",
    good.slice(0, -1),
    good.replace("DHHC-1", "DHHC-2"),
    secret(33),
    secret(32, "03"),
    secret(32, "04"),
    `${good.slice(0, 20)}${good[20] === "A" ? "B" : "A"}${good.slice(21)}`,
    "",
  ];
  for (const text of wrong) {
    const error = assertThrows(() => checkDhchapSecret(text, "tnb-dhchap-secret"));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "config");
    assert(text.length < 8 || !`${error.message} ${error.hint}`.includes(text.slice(10, 20)));
  }
});

Deno.test("a good connect tells the new controller", async () => {
  const { outcome, seen } = await connecting({ answer: "instance=3,cntlid=9" });
  assertEquals(outcome, { already: false, controller: "nvme3" });
  assertEquals(seen.length, 1);
});

Deno.test("already connected is success", async () => {
  const { outcome } = await connecting({ error: "EALREADY" });
  assertEquals(outcome, { already: true, controller: undefined });
});

Deno.test("the kernel is not asked when the portal does not answer the probe", async () => {
  for (
    const probe of ["ETIMEDOUT", "ECONNREFUSED", "EHOSTUNREACH", "EWHATEVER", new Uint8Array(128)]
  ) {
    const { outcome, seen } = await connecting({ probe });
    assertInstanceOf(outcome, TnblockError);
    assertEquals([outcome.code, seen], ["unreachable", []]);
    assertStringIncludes(outcome.message, "Cannot connect to 10.99.0.1:4420: ");
  }
});

const MEANINGS = [
  [
    "EIO",
    ["nvme nvme0: Connect for subsystem x is not allowed, hostnqn: y"],
    "denied",
    "does not allow this host",
  ],
  [
    "EIO",
    ['nvme nvme0: Connect Invalid Data Parameter, subsysnqn "x"'],
    "not-found",
    "no such subsystem",
  ],
  ["EIO", [], "denied", "no such subsystem at this portal, or"],
  ["ENOKEY", [], "auth", "wants a DH-CHAP secret"],
  [
    "EKEYREJECTED",
    ["nvme nvme0: qid 0: authentication failed, error -129"],
    "auth",
    "did not accept",
  ],
  [
    "EKEYREJECTED",
    ["nvme nvme0: qid 0: controller authentication failed"],
    "auth",
    "could not prove itself",
  ],
  ["ECONNREFUSED", [], "unreachable", "nothing listens there"],
  ["EHOSTUNREACH", [], "unreachable", "no route"],
  ["ETIMEDOUT", [], "unreachable", "does not answer"],
  ["EAGAIN", [], "unreachable", "takes connections but does not answer"],
  [
    "EINVAL",
    ["nvme nvme1: Duplicate cntlid 1 with nvme0, subsys x, rejecting"],
    "busy",
    "given its number away",
  ],
  [
    "EINVAL",
    ["nvme_fabrics: found same hostid a but different hostnqn b"],
    "config",
    "another host NQN",
  ],
  ["EINVAL", ["nvme nvme0: bad type returned 0"], "unreachable", "does not speak NVMe/TCP"],
  ["EINVAL", [], "host-fault", "the kernel refused it"],
  ["EACCES", [], "host-fault", "only root"],
  ["ENOENT", [], "host-fault", "nvme-tcp"],
  ["EPROTO", [], "host-fault", "EPROTO"],
] as const;

for (const [error, log, code, part] of MEANINGS) {
  Deno.test(`${error}${log.length > 0 ? ` with "${log[0]}"` : ""} means ${code}`, async () => {
    const { outcome } = await connecting({ error, log: [...log] });
    assertInstanceOf(outcome, TnblockError);
    assertEquals(outcome.code, code);
    assertStringIncludes(outcome.message, `Cannot connect to "${NQN}" at 10.99.0.1:4420: `);
    assertStringIncludes(outcome.message, part);
    if (log.length > 0) assertStringIncludes(`${outcome.cause}`, "The kernel says");
  });
}

Deno.test("EINVAL beside a connection that is coming back is busy", async () => {
  const { outcome } = await connecting({ error: "EINVAL" }, {}, "nvme-multipath-one-path-down");
  assertInstanceOf(outcome, TnblockError);
  assertEquals(outcome.code, "busy");
  assertStringIncludes(outcome.message, "nvme1 is connecting");
});

Deno.test("the kernel's words go into the cause without a secret", async () => {
  const log = [`nvme nvme0: Invalid DH-CHAP secret ${secret(32)}`, "usb 1-1: new device"];
  const { outcome } = await connecting({ error: "EINVAL", log });
  assertInstanceOf(outcome, TnblockError);
  assert(!`${outcome.cause}`.includes(secret(32).slice(10, 20)));
  assert(!`${outcome.cause}`.includes("usb"));
});

Deno.test("the module is loaded when its device is missing", async () => {
  await withNode(undefined, async (node) => {
    const runs: string[][] = [];
    const host: Host = {
      ...node.host,
      fabricsOptions: () => Promise.resolve(runs.length === 0 ? undefined : OPTIONS),
      run(program, args) {
        runs.push([program, ...args]);
        return Promise.resolve({ status: 0, stdout: "", stderr: "" });
      },
      exchangeTcp: () => Promise.resolve(IC_RESPONSE),
      connectFabrics: () => Promise.resolve("instance=0,cntlid=1"),
    };
    assertEquals((await connectPortal(host, connection)).controller, "nvme0");
    assertEquals(runs, [["/usr/sbin/modprobe", "nvme-tcp"]]);
  });
});

Deno.test("a kernel without the module is a fault of the node", async () => {
  await withNode(undefined, async (node) => {
    const host: Host = {
      ...node.host,
      run: () => Promise.resolve({ status: 1, stdout: "", stderr: "modprobe: FATAL: not found" }),
    };
    const error = await assertRejects(() => connectPortal(host, connection));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
    assertStringIncludes(error.message, "nvme-tcp");
  });
});

Deno.test("a rescan of a controller that is gone is not an error", async () => {
  await withNode(undefined, async ({ host }) => {
    assertEquals(await rescanController(host, "nvme0"), false);
  });
});

Deno.test("the identity is that of a live connection", async () => {
  await withNode("nvme-single-path", async ({ host, write }) => {
    await write("/etc/nvme/hostnqn", "nqn.other\n");
    await write("/etc/nvme/hostid", "other\n");
    const { hostNqn, hostId } = connection;
    assertEquals(await hostIdentity(host), { hostNqn, hostId });
  });
});

Deno.test("without a connection the identity is that of /etc/nvme", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/nvme/hostnqn", "nqn.own\n");
    await write("/etc/nvme/hostid", "own-id\n");
    assertEquals(await hostIdentity(host), { hostNqn: "nqn.own", hostId: "own-id" });
  });
});

Deno.test("a missing identity is made once, by whoever comes first", async () => {
  await withNode(undefined, async ({ host }) => {
    const made = await Promise.all(Array.from({ length: 5 }, () => hostIdentity(host)));
    const first = made[0];
    assert(first !== undefined);
    assertEquals(first.hostNqn, `nqn.2014-08.org.nvmexpress:uuid:${first.hostId}`);
    for (const each of made) assertEquals(each, first);
    assertEquals(await host.files.readText("/etc/nvme/hostid"), `${first.hostId}\n`);
  });
});

Deno.test("a missing host id is taken from the host NQN", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/nvme/hostnqn", `${connection.hostNqn}\n`);
    assertEquals((await hostIdentity(host)).hostId, HOST_ID);
  });
});

Deno.test("an identity that cannot be read is never replaced", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/nvme/hostnqn", "nqn.own\n");
    await write("/etc/nvme/hostid", "own-id\n");
    const broken: Host = {
      ...host,
      files: { ...host.files, readText: () => Promise.reject(new HostError("EIO", "broken")) },
    };
    const error = await assertRejects(() => hostIdentity(broken), "broken");
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "host-fault");
    assertEquals(await host.files.readText("/etc/nvme/hostnqn"), "nqn.own\n");
  });
});

Deno.test("who finds others at the same work for too long is told that they are", async () => {
  await withNode(undefined, async ({ host }) => {
    const taken: Host = {
      ...host,
      fabricsOptions: () => Promise.resolve(OPTIONS),
      exchangeTcp: () => Promise.resolve(IC_RESPONSE),
      lock: () => Promise.reject(new LockError("nvme-identity", 1)),
      connectFabrics: () => Promise.reject(new LockError("nvme-fabrics", 1)),
    };
    for (const work of [() => hostIdentity(taken), () => connectPortal(taken, connection)]) {
      const error = await assertRejects(work);
      assertInstanceOf(error, TnblockError);
      assertEquals(error.code, "busy");
    }
  });
});
