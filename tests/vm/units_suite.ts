/** The daemon's systemd units under a real systemd: the hardened daemon can do all its work, and is always there. */

import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { UNITS } from "../../src/daemon/unit.ts";
import type { Node } from "./support/node.ts";
import { forEachTransport, withNode } from "./support/product.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

/** What the service file says; it is killed within a second of that. */
const WATCHDOG_SECONDS = 60;

export const suite: VmSuite = {
  name: "units",
  needsProduct: true,
  kernelArguments: ["vm.systemd"],
  cases: [
    ...forEachTransport(
      "the service is ready when it answers, and hardened as it is has a disk's whole life done",
      (node) =>
        withService(node, async (vm) => {
          assertEquals(await shown(vm, "ActiveState"), "active");
          assertEquals(await shown(vm, "StatusText"), "Answering requests");
          const { volname, path } = await node.activeDisk();
          assertEquals(await node.livePaths(path), PORTALS.length);
          const content = await vm.fill(path);
          await node.must("volume_snapshot", { volname, snapshot: "one" });
          await node.must("volume_resize", { volname, size: 96 * 1024 ** 2, running: false });
          await vm.fill(path);
          await node.must("volume_snapshot_rollback", { volname, snapshot: "one" });
          assertEquals(await vm.hash(path), content);
          await node.must("activate_volume", { volname, snapshot: "one" });
          assertEquals(await vm.hash(node.pathOf(volname, "one")), content);
          await node.must("deactivate_volume", { volname, snapshot: "one" });
          await vm.sh(`exec 8<${path}; exec sleep 600 >/dev/null 2>&1 & echo $! >/run/user.pid`);
          assertEquals(await node.refusal("deactivate_volume", { volname }), "in-use");
          await vm.sh(
            "kill $(cat /run/user.pid); while [ -d /proc/$(cat /run/user.pid) ]; do sleep 0.1; done",
          );
          await node.free(volname);
          assertEquals(await logins(node), 1);
        }),
    ),

    {
      name: "nvme-tcp: a restart refuses no call",
      run: ({ vm, note }) =>
        withNode(vm, "nvme-tcp", (node) =>
          withService(node, async () => {
            const before = await shown(vm, "MainPID");
            const asked = Promise.all(Array.from({ length: 12 }, async (_, at) => {
              // Three at a time, for as long as the restart may take.
              await new Promise((resolve) => setTimeout(resolve, 700 * at));
              return await node.hook(at % 2 === 0 ? "list_images" : "status");
            }));
            await vm.sh("sleep 2; systemctl restart tnblock.service", { timeoutSeconds: 240 });
            for (const answer of await asked) assert(answer.ok, JSON.stringify(answer));
            assertNotEquals(await shown(vm, "MainPID"), before);
            // A caller waits 5 s for a daemon to take his call, and does it himself then: emulated, and on a
            // machine that is short of time, the program may take longer to start.
            note(`callers who did it themselves: ${await logins(node) - 2}`);
          })),
    },

    {
      name:
        "nvme-tcp: killed or hanging, it is started again, and calls are answered all the while",
      run: ({ vm, note }) =>
        withNode(vm, "nvme-tcp", (node) =>
          withService(node, async () => {
            const killed = await shown(vm, "MainPID");
            await vm.sh(`kill -9 ${killed}`);
            assertEquals(await node.must("list_images"), []);
            await vm.until(
              `! systemctl show -p MainPID --value tnblock | grep -qxE '0|${killed}'`,
              60,
            );
            await vm.until("[ $(systemctl is-active tnblock) = active ]", 120);
            const hanging = await shown(vm, "MainPID");
            const begun = Date.now();
            await vm.sh(`kill -STOP ${hanging}`);
            assertEquals(await node.must("list_images"), []);
            note(`a hanging daemon cost a caller ${(Date.now() - begun) / 1000} s`);
            await vm.until(
              `! systemctl show -p MainPID --value tnblock | grep -qxE '0|${hanging}'`,
              2 * WATCHDOG_SECONDS + 60,
            );
            note(`it was replaced after ${(Date.now() - begun) / 1000} s`);
            await vm.until("[ $(systemctl is-active tnblock) = active ]", 120);
            assertEquals(await node.must("list_images"), []);
            assertEquals(await shown(vm, "NRestarts"), "2");
          })),
    },
  ],
};

/** Runs a case while the units are installed and started. */
async function withService(node: Node, run: (vm: Vm) => Promise<void>): Promise<void> {
  const { vm } = node;
  for (const [name, text] of Object.entries(UNITS)) {
    await vm.sh(`install -m 644 ${await vm.file(text)} /etc/systemd/system/${name}`);
  }
  const { type, ...options } = node.config;
  const section = await vm.file(
    `${type}: ${node.storage}\n${
      Object.entries(options).map(([key, value]) => `\t${key} ${value}\n`).join("")
    }`,
  );
  try {
    await vm.sh(
      `set -e; cp ${section} /etc/pve/storage.cfg; systemctl daemon-reload
      systemctl start tnblock.service`,
      { timeoutSeconds: 240 },
    );
    await run(vm);
    await vm.sh("systemctl stop tnblock.service", { timeoutSeconds: 240 });
    assertEquals(await shown(vm, "Result"), "success");
  } catch (error) {
    const text = error instanceof Error ? error.stack ?? error.message : String(error);
    const log = await vm.sh(
      "systemctl status --no-pager -l -n 60 tnblock.service tnblock.socket 2>&1 || true",
    );
    throw new Error(`${text}\n--- the service ---\n${log}`);
  } finally {
    await vm.sh(
      `systemctl stop tnblock.socket tnblock.service
      systemctl reset-failed; rm -rf /etc/systemd/system/tnblock.* /etc/pve/storage.cfg /var/lib/tnblock
      journalctl --rotate --vacuum-time=1s >/dev/null 2>&1; systemctl daemon-reload`,
      { timeoutSeconds: 240 },
    );
  }
}

/** A property of the service. */
async function shown(vm: Vm, property: string): Promise<string> {
  return await vm.sh(`systemctl show -p ${property} --value tnblock.service`);
}

async function logins(node: Node): Promise<number> {
  return (await node.control("GET", "/stats") as { logins: number }).logins;
}
