import { stat } from "node:fs/promises";
import { join } from "node:path";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { type Host, HostError, LockError, type ProgramResult } from "../../src/host/host.ts";
import {
  deleteDisk,
  type IscsiLogin,
  login,
  rescanDisk,
  scanLun,
} from "../../src/host/iscsi_admin.ts";
import { editRecord, recordFields } from "../../src/host/iscsi_record.ts";
import { findScsiPaths, scanIscsiSessions } from "../../src/host/scan/scsi.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";

const IQN = "iqn.2005-10.org.freenas.ctl:pve-storage";
const FOLDER = `/var/lib/iscsi/nodes/${IQN}/10.99.0.1,3260,1`;
const RECORD = `# BEGIN RECORD 2.1.11
node.name = ${IQN}
node.startup = automatic
node.session.scan = auto
node.session.auth.authmethod = None
node.conn[0].address = 10.99.0.1
node.conn[0].timeo.login_timeout = 15
# END RECORD
`;
const request: IscsiLogin = { iqn: IQN, portal: { address: "10.99.0.1", port: 3260 } };
const chap = {
  user: "pve",
  password: "throw-away-1234",
  peer: { user: "nas", password: "throw-away-5678" },
};

/** A host whose iscsiadm makes the record and answers a login so; it keeps what it was asked. */
function withIscsiadm(
  node: NodeFolder,
  answer: Partial<ProgramResult>,
  folder = FOLDER,
): { host: Host; runs: string[][] } {
  const runs: string[][] = [];
  const host: Host = {
    ...node.host,
    exchangeTcp: () => Promise.resolve(new Uint8Array(0)),
    async run(program, args) {
      runs.push([program, ...args]);
      if (args.includes("new")) {
        await node.write(`${folder}/default`, RECORD, 0o600);
        return { status: 0, stdout: "", stderr: "" };
      }
      return { status: 0, stdout: "", stderr: "", ...answer };
    },
  };
  return { host, runs };
}

async function failure(work: () => Promise<unknown>): Promise<TnblockError> {
  const error = await assertRejects(work);
  assertInstanceOf(error, TnblockError);
  return error;
}

Deno.test("a record keeps what it says and gets all of our fields", () => {
  const text = editRecord(RECORD, recordFields(undefined));
  assertEquals(text.split("\n"), [
    "# BEGIN RECORD 2.1.11",
    `node.name = ${IQN}`,
    "node.conn[0].address = 10.99.0.1",
    "node.startup = manual",
    "node.session.scan = manual",
    "node.session.timeo.replacement_timeout = 15",
    "node.session.initial_login_retry_max = 1",
    "node.conn[0].timeo.login_timeout = 3",
    "node.session.auth.authmethod = None",
    "# END RECORD",
    "",
  ]);
});

Deno.test("a record that is edited again is the same", () => {
  const once = editRecord(RECORD, recordFields(chap));
  assertEquals(editRecord(once, recordFields(chap)), once);
});

Deno.test("secrets that are no longer wanted leave the record", () => {
  const text = editRecord(editRecord(RECORD, recordFields(chap)), recordFields(undefined));
  assert(!text.includes("throw-away") && !text.includes("username"));
});

Deno.test("a value that would break the record is refused without being repeated", () => {
  for (const password of ["two\nlines", " blank", "nul\0"]) {
    const error = assertThrows(() => editRecord(RECORD, recordFields({ ...chap, password })));
    assertInstanceOf(error, TnblockError);
    assertEquals(error.code, "config");
    assert(!error.message.includes(password));
  }
});

Deno.test("a login writes the record anew, then logs in, with no secret in an argument", async () => {
  await withNode(undefined, async (node) => {
    const { host, runs } = withIscsiadm(node, {});
    assertEquals(await login(host, { ...request, chap }), { already: false });
    const target = ["/usr/sbin/iscsiadm", "-m", "node", "-T", IQN, "-p", "10.99.0.1:3260,1"];
    assertEquals(runs, [[...target, "-o", "new"], [...target, "--login"]]);
    const record = await host.files.readText(`${FOLDER}/default`);
    assertStringIncludes(record ?? "", "node.session.auth.password = throw-away-1234\n");
    assertStringIncludes(record ?? "", "node.session.auth.password_in = throw-away-5678\n");
    assertEquals((await stat(join(node.directory, FOLDER, "default"))).mode & 0o777, 0o600);
  });
});

Deno.test("IPv6 portals are given in brackets and their record is found", async () => {
  await withNode(undefined, async (node) => {
    const folder = `/etc/iscsi/nodes/${IQN}/fd00:0:0:0:0:0:0:5,3260,2`;
    const { host, runs } = withIscsiadm(node, {}, folder);
    const portal = { address: "fd00::5", port: 3260 };
    await login(host, { iqn: IQN, portal, tpgt: 2 });
    assertEquals(runs[0]?.[6], "[fd00::5]:3260,2");
    assertStringIncludes(await host.files.readText(`${folder}/default`) ?? "", "scan = manual");
  });
});

Deno.test("already logged in is success", async () => {
  await withNode(undefined, async (node) => {
    const { host } = withIscsiadm(node, { status: 15 });
    assertEquals(await login(host, request), { already: true });
  });
});

const STATUSES = [
  [24, undefined, "auth", "wants CHAP and the storage has none"],
  [24, chap, "auth", "did not accept the CHAP name"],
  [19, chap, "auth", "could not prove itself"],
  [19, undefined, "denied", "refused the login for good"],
  [8, undefined, "unreachable", "no login in time"],
  [11, undefined, "unreachable", "does not answer"],
  [21, undefined, "host-fault", "no such record"],
  [20, undefined, "host-fault", "iscsid does not run"],
  [99, undefined, "host-fault", "status 99"],
] as const;

for (const [status, secrets, code, part] of STATUSES) {
  Deno.test(`status ${status} ${secrets ? "with" : "without"} CHAP is "${part}"`, async () => {
    await withNode(undefined, async (node) => {
      const { host } = withIscsiadm(node, { status, stderr: "iscsiadm: words\n" });
      const error = await failure(() => login(host, { ...request, chap: secrets }));
      assertEquals(error.code, code);
      assertStringIncludes(error.message, `Cannot log in to "${IQN}" at 10.99.0.1:3260: `);
      assertStringIncludes(error.message, part);
      assertStringIncludes(`${error.cause}`, "iscsiadm: words");
    });
  });
}

Deno.test("nothing is started for a portal that does not answer", async () => {
  await withNode(undefined, async (node) => {
    const { host, runs } = withIscsiadm(node, {});
    const dead: Host = {
      ...host,
      exchangeTcp: () => Promise.reject(new HostError("ECONNREFUSED", "refused")),
    };
    assertEquals((await failure(() => login(dead, request))).code, "unreachable");
    assertEquals(runs, []);
  });
});

Deno.test("a node without open-iscsi is told what to install", async () => {
  await withNode(undefined, async (node) => {
    const host = { ...node.host, exchangeTcp: () => Promise.resolve(new Uint8Array(0)) };
    const error = await failure(() => login(host, request));
    assertEquals([error.code, error.hint], ["host-fault", "Run apt install open-iscsi"]);
  });
});

Deno.test("a target that is no IQN never becomes a path or an argument", async () => {
  await withNode(undefined, async (node) => {
    const { host, runs } = withIscsiadm(node, {});
    for (const iqn of ["../../etc", "-T", "iqn.a/b", ""]) {
      assertEquals((await failure(() => login(host, { ...request, iqn }))).code, "config");
    }
    assertEquals(runs, []);
  });
});

Deno.test("two logins to one target do not overlap", async () => {
  await withNode(undefined, async (node) => {
    const { host } = withIscsiadm(node, {});
    let running = 0;
    let most = 0;
    const slow: Host = {
      ...host,
      async run(program, args, options) {
        running += 1;
        most = Math.max(most, running);
        await host.wait(2);
        running -= 1;
        return await host.run(program, args, options);
      },
    };
    await Promise.all([login(slow, request), login(slow, request), login(slow, request)]);
    assertEquals(most, 1);
  });
});

/** The recorded node; control writes are kept instead of done. */
async function onSessions(
  test: (host: Host, writes: string[], node: NodeFolder) => Promise<void>,
): Promise<void> {
  await withNode("iscsi-2portal", async (node) => {
    const writes: string[] = [];
    const host: Host = {
      ...node.host,
      exchangeTcp: () => Promise.resolve(new Uint8Array(0)),
      files: {
        ...node.host.files,
        writeControl(path, text, { onEnd }) {
          writes.push(`${text} > ${path}`);
          onEnd?.();
          return Promise.resolve();
        },
      },
    };
    await test(host, writes, node);
  });
}

Deno.test("a LUN is scanned by its plain number on the host of its session", async () => {
  await onSessions(async (host, writes) => {
    for (const session of await scanIscsiSessions(host.files)) {
      await scanLun(host, session, 300);
    }
    assertEquals(writes, [
      "0 0 300 > /sys/class/scsi_host/host0/scan",
      "0 0 300 > /sys/class/scsi_host/host1/scan",
    ]);
  });
});

Deno.test("a session that is down, or whose portal is, is never scanned", async () => {
  await onSessions(async (host, writes) => {
    const session = (await scanIscsiSessions(host.files))[0];
    assert(session !== undefined);
    const down = { ...session, state: "FREE" };
    assertEquals((await failure(() => scanLun(host, down, 1))).code, "unreachable");
    const dead: Host = {
      ...host,
      exchangeTcp: () => Promise.reject(new HostError("ETIMEDOUT", "silent")),
    };
    assertEquals((await failure(() => scanLun(dead, session, 1))).code, "unreachable");
    assertEquals((await failure(() => scanLun(host, session, 16_384))).code, "unsupported");
    assertEquals(writes, []);
  });
});

Deno.test("a path is rescanned and removed by what it is, not by its name alone", async () => {
  await onSessions(async (host, writes) => {
    const disk = (await findScsiPaths(host.files, { iqn: IQN, lun: 5 }))[0];
    const session = (await scanIscsiSessions(host.files)).find(({ name }) =>
      name === disk?.session
    );
    assert(disk !== undefined && session !== undefined);
    assertEquals(await rescanDisk(host, session, disk), true);
    assertEquals(await deleteDisk(host, disk), true);
    // Not by the name: it may be another disk's when the kernel opens the file.
    const device = `${session.sysfs}/target${disk.hctl.slice(0, -2)}/${disk.hctl}`;
    assertEquals(writes, [`1 > ${device}/rescan`, `1 > ${device}/delete`]);
    // The same letter, another LUN; the same LUN, another volume; gone.
    assertEquals(await deleteDisk(host, { ...disk, hctl: "9:0:0:5" }), false);
    assertEquals(await deleteDisk(host, { ...disk, wwid: "naa.0" }), false);
    assertEquals(await deleteDisk(host, { ...disk, name: "sdz" }), false);
    assertEquals(await rescanDisk(host, session, { ...disk, hctl: "9:0:0:5" }), false);
    assertEquals(writes.length, 2);
  });
});

Deno.test("a path without a map above it keeps commands for a day instead of failing them", () => {
  const alone = editRecord(RECORD, recordFields(undefined, false));
  assertStringIncludes(alone, "node.session.timeo.replacement_timeout = 86400\n");
  const below = editRecord(RECORD, recordFields(undefined, true));
  assertStringIncludes(below, "node.session.timeo.replacement_timeout = 15\n");
});

Deno.test("after a write that hangs no other goes to that session until the kernel ends it", async () => {
  await onSessions(async (host, writes) => {
    const [session, other] = await scanIscsiSessions(host.files);
    const disk = (await findScsiPaths(host.files, { iqn: IQN, lun: 5 }))
      .find((each) => each.session === session?.name);
    assert(session !== undefined && other !== undefined && disk !== undefined);
    const ends: (() => void)[] = [];
    const hanging: Host = {
      ...host,
      lock: (name, limits) => host.lock(name, { ...limits, deadlineMs: 20 }),
      files: {
        ...host.files,
        writeControl(path, _, { onEnd }) {
          writes.push(path);
          if (onEnd !== undefined) ends.push(onEnd);
          return Promise.reject(new HostError("ETIMEDOUT", "no end"));
        },
      },
    };
    const codes = async (works: readonly (() => Promise<unknown>)[]) => {
      const found: string[] = [];
      for (const work of works) found.push((await failure(work)).code);
      return found;
    };
    assertEquals(
      await codes([
        () => scanLun(hanging, session, 300),
        () => scanLun(hanging, session, 301),
        () => rescanDisk(hanging, session, disk),
        () => deleteDisk(hanging, disk),
        () => scanLun(hanging, other, 300),
      ]),
      ["timeout", "busy", "busy", "busy", "timeout"],
    );
    assertEquals(writes.length, 2);
    for (const end of ends) end();
    assertEquals(await deleteDisk(host, disk), true);
  });
});

Deno.test("a path that became another volume's while its removal waited stays", async () => {
  await onSessions(async (host, writes, node) => {
    const disk = (await findScsiPaths(host.files, { iqn: IQN, lun: 5 }))[0];
    assert(disk !== undefined);
    const device = await host.files.resolve(`/sys/block/${disk.name}/device`);
    const slow: Host = {
      ...host,
      async lock(name, limits) {
        const release = await host.lock(name, limits);
        await node.write(`${device}/wwid`, `naa.${"b".repeat(32)}\n`);
        return release;
      },
    };
    assertEquals(await deleteDisk(slow, disk), false);
    assertEquals(writes, []);
    assertEquals(await deleteDisk(host, { ...disk, wwid: `naa.${"b".repeat(32)}` }), true);
  });
});

Deno.test("a target that others are at for too long is busy, and no defect of tnblock", async () => {
  await withNode(undefined, async (node) => {
    const { host, runs } = withIscsiadm(node, {});
    const taken: Host = { ...host, lock: () => Promise.reject(new LockError("x", 1)) };
    assertEquals((await failure(() => login(taken, request))).code, "busy");
    assertEquals(runs, []);
  });
});
