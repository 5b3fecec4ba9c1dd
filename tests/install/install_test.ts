import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { prepare } from "../../src/install/install.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";
import { EVERYTHING, type InstallNode, troubled, withInstallNode } from "./support.ts";
import type { InstallWorld } from "../../src/install/world.ts";
import type { Plan } from "../../src/install/plan.ts";

const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";
const PROGRAM = "/usr/local/bin/tnblock";

/** Plans and does it; the parts that were done. */
async function go(
  world: InstallWorld,
  kind: Plan["kind"] = "install",
  options = EVERYTHING,
): Promise<readonly string[]> {
  return (await prepare(world, kind, options, ({ carryOut }) => carryOut())).done;
}

async function refusal(work: () => Promise<unknown>): Promise<TnblockError> {
  const error = await assertRejects(work);
  assert(error instanceof TnblockError, String(error));
  return error;
}

async function reloads(node: InstallNode): Promise<string[]> {
  return (await node.calls()).filter((call) => /systemctl reload-or-try-restart pve/.test(call));
}

Deno.test("install puts everything in place, checks it, and reloads what holds the plugin", async () => {
  await withInstallNode(async (node) => {
    assertEquals(await go(node.world("0.2.0")), [
      ...["program", "units", "shim", "completions", "lvm-filter", "multipath", "nvme-rule"],
      ...["daemon", "pve-services"],
    ]);
    assertEquals(await node.read(PROGRAM), await node.read("/stub/0.2.0"));
    assertEquals(await node.read(SHIM_FILE), SHIM);
    assertStringIncludes(
      await node.read("/etc/systemd/system/tnblock.service") ?? "",
      "ExecStart=/usr/local/bin/tnblock daemon",
    );
    assertStringIncludes(await node.read("/etc/lvm/lvmlocal.conf") ?? "", `"r|/dev/zd.*|"`);
    const calls = await node.calls();
    const at = (call: string) => calls.findIndex((each) => each.startsWith(call));
    const order = [
      "perl -T -c",
      "perl -T -e",
      "systemctl enable --now tnblock.socket tnblock.service",
      "systemctl reload-or-try-restart pvedaemon.service",
    ].map(at);
    assertEquals(order, order.toSorted((a, b) => a - b));
    assert(!order.includes(-1), calls.join("\n"));
    // Between the plugin's arrival and the first reload the storages were looked at.
    const looked = calls.slice(at("perl -T -e"), order[3]);
    assert(looked.includes("pvesm apiinfo") && looked.includes("pvesm status"), looked.join("\n"));
    assertEquals(calls.filter((call) => call.includes("reload-or-try-restart pve")), [
      ...["pvedaemon", "pveproxy", "pvestatd", "pvescheduler", "pve-ha-lrm"].map((name) =>
        `systemctl reload-or-try-restart ${name}.service`
      ),
    ]);
  });
});

Deno.test("a second run finds everything as it should be, and touches nothing", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    const before = await node.snapshot();
    await node.calls();
    assertEquals(await go(node.world("0.2.0")), []);
    assertEquals(await node.snapshot(), before);
    const changing = /systemctl (enable|restart|reload|daemon)|udevadm/;
    assertEquals((await node.calls()).filter((call) => changing.test(call)), []);
  });
});

Deno.test("a new program with the same plugin restarts the daemon and reloads nothing", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.calls();
    assertEquals(await go(node.world("0.3.0")), ["program", "completions", "daemon"]);
    const calls = await node.calls();
    assert(calls.includes("systemctl restart tnblock.service"), calls.join("\n"));
    assertEquals(calls.filter((call) => call.includes("reload-or-try-restart")), []);
  });
});

Deno.test("a roll back brings the version before back, and a second one changes nothing", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write(SHIM_FILE, "package old; # 'tnb-api-host'\n");
    const old = await node.snapshot();
    await go(node.world("0.3.0"));
    await node.calls();
    assertEquals(await go(node.world("0.3.0"), "roll-back"), [
      ...["program", "shim", "completions", "daemon", "pve-services"],
    ]);
    const now = await node.snapshot();
    for (const path of [PROGRAM, SHIM_FILE]) assertEquals(now[path], old[path]);
    assertEquals((await reloads(node)).length, 5);
    assertEquals(await go(node.world("0.2.0"), "roll-back"), []);
    await go(node.world("0.3.0"));
    assertEquals(await node.read(PROGRAM), await node.read("/stub/0.3.0"));
  });
});

Deno.test("no roll back to a plugin that does not know an option in use: it would be dropped", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write(SHIM_FILE, "package old; # 'tnb-api-host'\n");
    await go(node.world("0.3.0"));
    await node.write("/etc/pve/storage.cfg", "tnblock: san\n\ttnb-api-host a\n\ttnb-sparse 1\n");
    const error = await refusal(() => go(node.world("0.3.0"), "roll-back"));
    assertEquals(error.code, "in-use");
    assertStringIncludes(error.message, `tnb-sparse of storage "san"`);
  });
});

Deno.test("a roll back after a kill goes back to before the run that was killed", async () => {
  await withInstallNode(async (node) => {
    for (const version of ["0.2.0", "0.3.0"]) {
      const before = await node.snapshot();
      const dead = {
        at: Infinity,
        kind: "killed" as const,
        count: 0,
      };
      const tell = (line: string) => {
        if (line.includes("enable --now")) dead.at = dead.count + 1;
      };
      await assertRejects(() => go(troubled(node.world(version, { tell }), dead)));
      assertEquals(await node.read(PROGRAM), await node.read(`/stub/${version}`));
      await go(node.world(version), "roll-back");
      assertEquals(await node.snapshot(), before);
      await go(node.world(version));
    }
  });
});

Deno.test("a copy that was damaged is not brought back", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await go(node.world("0.3.0"));
    for (const path of Object.keys(await node.snapshot())) {
      if (path.startsWith("/var/lib/tnblock/install/kept/")) await node.write(path, "x");
    }
    const error = await refusal(() => go(node.world("0.3.0"), "roll-back"));
    assertStringIncludes(error.message, "it is damaged; everything is as it was");
    assertEquals(await node.read(PROGRAM), await node.read("/stub/0.3.0"));
  });
});

Deno.test("a plan that was shown for long is compared with the node again", async () => {
  await withInstallNode(async (node) => {
    let now = 0;
    const host = { ...node.host(), monotonicMs: () => now };
    for (const isChanged of [true, false]) {
      await prepare(node.world("0.2.0", { host }), "install", EVERYTHING, async ({ carryOut }) => {
        now += 3_600_000;
        if (!isChanged) return void await carryOut();
        await node.write("/etc/lvm/lvmlocal.conf", "# somebody was here\n");
        assertEquals((await refusal(carryOut)).code, "busy");
        assertEquals(await node.read("/etc/lvm/lvmlocal.conf"), "# somebody was here\n");
      });
    }
    assertStringIncludes(await node.read("/etc/lvm/lvmlocal.conf") ?? "", "# somebody was here\n#");
  });
});

Deno.test("with nothing replaced there is nothing to roll back to", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    assertEquals((await refusal(() => go(node.world("0.2.0"), "roll-back"))).code, "not-found");
  });
});

Deno.test("an older version takes a newer one's place only when told", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    const before = await node.snapshot();
    assertEquals((await refusal(() => go(node.world("0.1.0")))).code, "invalid");
    assertEquals(await node.snapshot(), before);
    await go(node.world("0.1.0"), "install", { ...EVERYTHING, allowOlder: true });
    assertEquals(await node.read(PROGRAM), await node.read("/stub/0.1.0"));
  });
});

Deno.test("each of the node's settings can be left out", async () => {
  await withInstallNode(async (node) => {
    const lvm = await node.read("/etc/lvm/lvmlocal.conf");
    await go(node.world("0.2.0"), "install", {
      ...{ lvmFilter: false, multipath: false, nvmeRule: false, allowOlder: false },
    });
    assertEquals(await node.read("/etc/lvm/lvmlocal.conf"), lvm);
    assertEquals(await node.read("/etc/multipath/conf.d/tnblock.conf"), undefined);
    assertEquals(await node.read("/etc/udev/rules.d/71-tnblock.rules"), undefined);
  });
});

Deno.test("settings that somebody has changed by hand stay as they are", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write("/etc/multipath/conf.d/tnblock.conf", "# mine\n");
    assertEquals(await go(node.world("0.3.0")), ["program", "completions", "daemon"]);
    assertEquals(await node.read("/etc/multipath/conf.d/tnblock.conf"), "# mine\n");
  });
});

Deno.test("a plugin that takes a storage away from the node is taken back, and nothing is reloaded", async () => {
  await withInstallNode(async (node) => {
    await node.write("/stub/loses", "");
    const before = await node.snapshot();
    const error = await refusal(() => go(node.world("0.2.0")));
    assertStringIncludes(error.message, "does not show backup");
    assertStringIncludes(error.message, "everything is as it was");
    assertEquals(await node.snapshot(), before);
    assertEquals(await reloads(node), []);
  });
});

Deno.test("a plugin that Perl does not take is taken back, with what was said of it", async () => {
  await withInstallNode(async (node) => {
    await node.write(
      "/usr/bin/perl",
      `#!/bin/sh
[ "$2" = -c ] && exit 0
echo 'Error loading storage plugin "PVE::Storage::Custom::TnblockPlugin": too old' >&2
echo "unknown section type 'tnblock'" >&2
exit 2
`,
      0o755,
    );
    const before = await node.snapshot();
    const error = await refusal(() => go(node.world("0.2.0")));
    assertStringIncludes(error.message, `TnblockPlugin": too old; everything is as it was`);
    assertEquals(await node.snapshot(), before);
    assertEquals(await reloads(node), []);
  });
});

Deno.test("where storages do not work already, nothing is begun", async () => {
  await withInstallNode(async (node) => {
    await node.plant("pvesm status*");
    const before = await node.snapshot();
    assertEquals((await refusal(() => go(node.world("0.2.0")))).code, "host-fault");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("a plugin of ours that is broken is put right", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write(SHIM_FILE, "BROKEN\n");
    // As long as it is broken, nothing of PVE works.
    await node.write(
      "/usr/sbin/pvesm",
      `#!/bin/sh
root=\${0%/usr/sbin/*}
grep -q BROKEN "$root${SHIM_FILE}" && [ "$1" = status ] && exit 255
[ "$1" = apiinfo ] && echo 'APIVER 13' || printf 'Name\\nlocal\\n'
`,
      0o755,
    );
    assertEquals(await go(node.world("0.2.0")), ["shim", "pve-services"]);
    assertEquals(await node.read(SHIM_FILE), SHIM);
  });
});

for (
  const [what, code, change, prepareNode] of [
    ["without root", "denied", { isRoot: false }],
    ["on another system", "unsupported", { platform: "darwin" }],
    [
      "without Proxmox VE",
      "unsupported",
      {},
      (node: InstallNode) => node.remove("/usr/sbin/pvesm"),
    ],
    [
      "with another C library",
      "unsupported",
      {},
      (node: InstallNode) => node.write("/usr/bin/getconf", "#!/bin/sh\nexit 1\n", 0o755),
    ],
    [
      "on a Proxmox VE that is too old",
      "unsupported",
      {},
      (node: InstallNode) => node.write("/usr/sbin/pvesm", "#!/bin/sh\necho 'APIVER 10'\n", 0o755),
    ],
    ["when pvesm does not work", "host-fault", {}, (node: InstallNode) => node.plant("pvesm api*")],
  ] as const
) {
  Deno.test(`${what} it is refused, and nothing is touched`, async () => {
    await withInstallNode(async (node) => {
      await prepareNode?.(node);
      const before = await node.snapshot();
      assertEquals((await refusal(() => go(node.world("0.2.0", change)))).code, code);
      assertEquals(await node.snapshot(), before);
    });
  });
}

Deno.test("the source installs nothing", async () => {
  await withInstallNode(async (node) => {
    const error = await refusal(() => go(node.world(undefined)));
    assertEquals(error.code, "unsupported");
    assertStringIncludes(error.hint ?? "", "deno task build");
  });
});

Deno.test("a program that does not run on this node is taken back", async () => {
  await withInstallNode(async (node) => {
    await node.write("/stub/0.2.0", "#!/bin/sh\nkill -ILL $$\n", 0o755);
    const before = await node.snapshot();
    const error = await refusal(() => go(node.world("0.2.0")));
    assertStringIncludes(error.message, "it does not run on this node");
    assertStringIncludes(error.hint ?? "", "SSE4.2");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("two at once: the second is told so", async () => {
  await withInstallNode(async (node) => {
    await prepare(node.world("0.2.0"), "install", EVERYTHING, async () => {
      assertEquals((await refusal(() => go(node.world("0.2.0", { turnMs: 50 })))).code, "busy");
    });
  });
});

Deno.test("who leaves half-way finds everything as it was", async () => {
  await withInstallNode(async (node) => {
    const before = await node.snapshot();
    const leaving = new AbortController();
    const tell = (line: string) => {
      if (line.includes("run: systemctl daemon-reload")) leaving.abort();
    };
    const error = await assertRejects(() =>
      go(node.world("0.2.0", { signal: leaving.signal, tell }))
    );
    assertEquals((error as Error).name, "Cancelled");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("the Perl plugin beside us is found, and what to heed is said", async () => {
  await withInstallNode(async (node) => {
    await node.write(
      "/usr/share/perl5/PVE/Storage/Custom/TrueNASPlugin.pm",
      "package x;\nsub type {\n    return 'truenasplugin';\n}\n",
    );
    await node.write("/etc/pve/storage.cfg", "truenasplugin: old\n\tdisable\n");
    await prepare(node.world("0.2.0"), "install", EVERYTHING, ({ plan }) => {
      const note = plan.notes.find((each) => each.includes("truenasplugin"));
      assertStringIncludes(note ?? "", "TrueNASPlugin.pm; storages old");
      assertStringIncludes(note ?? "", "tnblock migrate");
      return Promise.resolve();
    });
  });
});

Deno.test("uninstall leaves the node as it was before install", async () => {
  await withInstallNode(async (node) => {
    const before = await node.snapshot();
    await go(node.world("0.2.0"));
    await go(node.world("0.3.0"));
    await node.calls();
    assertEquals(await go(node.world("0.3.0"), "uninstall"), [
      ...["shim", "pve-services", "daemon", "units", "nvme-rule", "multipath", "lvm-filter"],
      ...["completions", "program"],
    ]);
    assertEquals(await node.snapshot(), before);
    const calls = await node.calls();
    assert(calls.includes("systemctl disable --now tnblock.service tnblock.socket"));
    assertEquals(await go(node.world("0.3.0"), "uninstall"), []);
  });
});

Deno.test("uninstall is refused while storage.cfg has a storage of the type, disabled or not", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write("/etc/pve/storage.cfg", "tnblock: san\n\tdisable\n\tnodes pve9\n");
    const before = await node.snapshot();
    const error = await refusal(() => go(node.world("0.2.0"), "uninstall"));
    assertEquals(error.code, "in-use");
    assertStringIncludes(error.message, "(san)");
    assertEquals(await node.snapshot(), before);
  });
});

Deno.test("uninstall is refused when the cluster's files are away: no storage is seen then", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.remove("/etc/pve/.members");
    await node.remove("/etc/pve/storage.cfg");
    assertEquals((await refusal(() => go(node.world("0.2.0"), "uninstall"))).code, "host-fault");
  });
});

Deno.test("uninstall leaves what was changed by hand, and names it", async () => {
  await withInstallNode(async (node) => {
    await go(node.world("0.2.0"));
    await node.write("/etc/multipath/conf.d/tnblock.conf", "# mine\n");
    const local = `${await node.read("/etc/lvm/lvmlocal.conf")}# and mine\n`;
    await node.write("/etc/lvm/lvmlocal.conf", local);
    await prepare(node.world("0.2.0"), "uninstall", EVERYTHING, async ({ plan, carryOut }) => {
      assertEquals(plan.notes, [
        "/etc/multipath/conf.d/tnblock.conf was changed by hand: it is left as it is",
      ]);
      await carryOut();
    });
    assertEquals(await node.read("/etc/multipath/conf.d/tnblock.conf"), "# mine\n");
    assertEquals(
      await node.read("/etc/lvm/lvmlocal.conf"),
      "# This is a local configuration file\nlocal {\n}\n# and mine\n",
    );
  });
});

Deno.test("uninstall removes nothing that install did not put there", async () => {
  await withInstallNode(async (node) => {
    await node.write(PROGRAM, "by hand\n", 0o755);
    const before = await node.snapshot();
    assertEquals((await refusal(() => go(node.world("0.2.0"), "uninstall"))).code, "not-found");
    assertEquals(await node.snapshot(), before);
  });
});
