/**
 * The daemon on real kernels: it answers, keeps a node's disks and paths right, may be killed, and guests see
 * nothing of an array that is away for as long as one likes.
 */

import { assert, assertEquals, fail } from "@std/assert";
import { type Daemon, withDaemon } from "./support/daemon.ts";
import { beginWriting, whileOpen, whileWritten } from "./support/disk_work.ts";
import { type Node, SIZE_KIB, zvolOf } from "./support/node.ts";
import {
  forEachTransport as forEach,
  forTwoNodes,
  type Transport,
  withBothTransports,
} from "./support/product.ts";
import { wholeStory } from "./support/story.ts";
import type { VmCase, VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

/** How long the array is away in silence, at least. */
const OUTAGE_MINUTES = Number(Deno.env.get("TNBLOCK_VM_OUTAGE_MINUTES") ?? "1");
/** The same for a reboot. */
const REBOOT_MINUTES = 1;
/** After this an idle disk is let go of (`src/daemon/keeper_decide.ts`). */
const IDLE_SECONDS = 60;
/** For what the daemon does by itself every ten seconds, on a machine that is short of time. */
const LOOK_SECONDS = 180;

type Note = (line: string) => void;

/**
 * With `TNBLOCK_VM_ALL=1` every case runs, over both transports: that takes most of an hour. Else these run
 * over one that need this kernel most, and what simulated nodes show too is left to the other tests.
 */
const ALL = Deno.env.get("TNBLOCK_VM_ALL") === "1";

/** One case for each transport, or for `one` of them or for none, with the daemon running. */
function forEachTransport(
  one: Transport | undefined,
  name: string,
  run: (node: Node, daemon: Daemon) => Promise<void>,
): VmCase[] {
  return forEach(name, (node) => withDaemon([node], (daemon) => run(node, daemon)))
    .filter((made) => ALL || made.name.startsWith(`${one}: `));
}

export const suite: VmSuite = {
  name: "daemon",
  needsProduct: true,
  cases: [
    ...forEachTransport(
      "iscsi",
      "the whole story through the Perl shim is the daemon's work, with one login",
      async (node, daemon) => {
        await wholeStory(node);
        assertEquals(await node.must("list_images"), []);
        const { daemon: own } = await daemon.state();
        const count = (method: string) =>
          own?.requests.byMethod.find((one) => one.method === method)?.count ?? 0;
        for (const [method, times] of Object.entries(CALLS_OF_STORY)) {
          assertEquals([method, count(method)], [method, times]);
        }
        assertEquals(own?.requests.failed, 0);
        assertEquals(own?.links.map(({ logins, sessions }) => ({ logins, sessions })), [
          { logins: 1, sessions: 1 },
        ]);
        const { logins } = await node.control("GET", "/stats") as { logins: number };
        assertEquals(logins, 1);
      },
    ),

    ...forEachTransport(
      undefined,
      "a disk that nobody uses is let go of after a minute, one in use stays",
      async (node, daemon) => {
        const { vm } = node;
        const used = await node.activeDisk(100);
        await whileOpen(vm, used.path, async () => {
          const idle = await node.activeDisk(101);
          const begun = Date.now();
          const content = await vm.fill(idle.path, 1);
          await vm.until(`[ ! -e ${idle.path} ]`, IDLE_SECONDS + LOOK_SECONDS);
          const seconds = (Date.now() - begun) / 1000;
          assert(seconds > IDLE_SECONDS / 2, `it was let go of after ${seconds} s`);
          await vm.until(`[ "$(ls -A /dev/tnblock/san)" = ${zvolOf(used.volname)} ]`);
          await eventually(async () => {
            const { disks } = await daemon.storage(node);
            return disks.map(({ name, inUse }) => `${name} ${inUse}`).join() ===
              `${zvolOf(used.volname)} true`;
          });
          await vm.hash(used.path, 1);
          await node.must("activate_volume", { volname: idle.volname });
          assertEquals(await vm.hash(idle.path, 1), content);
          await node.free(idle.volname);
        });
        await node.free(used.volname);
      },
    ),

    ...forEachTransport(
      undefined,
      "a lost path is repaired without a call of PVE, while the disk is written",
      async (node, daemon) => {
        const { vm } = node;
        await vm.linkDown(PORTALS[1]);
        await node.must("activate_storage");
        const { volname, path } = await node.activeDisk();
        assertEquals(await node.livePaths(path), 1);
        await whileWritten(vm, path, 4, async () => {
          // It was never there.
          await vm.linkUp(PORTALS[1]);
          await allPathsLive(node, path);
          // Somebody has ended it.
          await endSession(node, PORTALS[1]);
          await allPathsLive(node, path);
          // The cable was pulled.
          await vm.linkDown(PORTALS[1]);
          await vm.until(isPathLost(node, PORTALS[1]), 180);
          await vm.linkUp(PORTALS[1]);
          await allPathsLive(node, path);
        });
        const portals = async () => (await daemon.storage(node)).portals.map(({ state }) => state);
        await eventually(async () => (await portals()).every((state) => state === "live"));
        await node.free(volname);
      },
    ),

    ...forEachTransport(
      "nvme-tcp",
      "killed while it works under load: guests go on, verbs work, and what was open is ended",
      async (node, daemon) => {
        const { vm } = node;
        const { volname, path } = await node.activeDisk();
        const objects = async () => {
          const all = await node.control("GET", "/objects") as Record<string, unknown[]>;
          return Object.fromEntries(Object.entries(all).map(([kind, rows]) => [kind, rows.length]));
        };
        const before = await objects();
        await whileWritten(vm, path, 4, async () => {
          await node.control(
            "POST",
            "/faults",
            JSON.stringify([{ method: exportCall(node), do: "hold" }]),
          );
          const stopped = node.hook("alloc_image", { vmid: 101, format: "raw", sizeKiB: SIZE_KIB });
          await eventually(async () => (await objects()).zvols === (before.zvols ?? 0) + 1);
          await daemon.begun();
          await daemon.kill();
          await node.control("POST", "/faults", "[]");
          const answer = await stopped;
          assert(!answer.ok, JSON.stringify(answer));
          // Without the daemon each hook works by itself.
          const other = await node.activeDisk(102);
          const content = await vm.fill(other.path, 1);
          assertEquals(await vm.hash(other.path, 1), content);
          await node.free(other.volname);
          await daemon.start();
          // Its last write came to its end after the kill: nothing more can come, so that nothing is waited for.
          await eventually(async () => (await objects()).zvols === before.zvols, 480);
        });
        assertEquals(await objects(), before);
        const rows = await node.must("list_images") as { volid: string }[];
        assertEquals(rows.map(({ volid }) => volid), [`san:${volname}`]);
        assertEquals(await node.livePaths(path), PORTALS.length);
        await node.free(volname);
      },
    ),

    ...(!ALL ? [] : forTwoNodes(
      "vgs returns on a node that has a disk idle which another freed, once the keeper has looked",
      async (one, other) => {
        const { volname, path } = await one.activeDisk();
        await one.vm.fill(path);
        await withDaemon([other], async (daemon) => {
          await other.must("activate_volume", { volname });
          const [usual = 0] = await vgsTimes(other.vm, 1);
          await eventually(async () => (await daemon.storage(other)).disks.length === 1);
          await one.free(volname);
          // At the time when it is worst.
          const waiting = other.vm.sh("vgs", { timeoutSeconds: LOOK_SECONDS });
          await eventually(async () => (await daemon.storage(other)).disks.length === 0);
          await waiting;
          const limit = Math.max(1000, 3 * usual);
          const times = await vgsTimes(other.vm, 3);
          assert(Math.max(...times) <= limit, `vgs took, in ms: ${times.join(", ")}`);
          assertEquals(await other.vm.sh("ls -A /dev/tnblock/san"), "");
        });
      },
    )),

    {
      name:
        `both transports: the array is away for ${OUTAGE_MINUTES} min, then is rebooted: no error in a guest's I/O`,
      run: ({ vm, note }) =>
        withBothTransports(
          vm,
          (nodes) => withDaemon(nodes, (daemon) => outages(vm, nodes, daemon, note)),
        ),
    },
  ],
};

/** What the daemon is asked for in {@link wholeStory}. */
const CALLS_OF_STORY = {
  activate_storage: 1,
  alloc_image: 2,
  activate_volume: 2,
  deactivate_volume: 1,
  free_image: 2,
  free_image_finish: 2,
};

/** The call that makes a volume's export. */
function exportCall(node: Node): string {
  return transportOf(node) === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
}

function transportOf(node: Node): Transport {
  return node.config["tnb-transport-mode"] as Transport;
}

async function allPathsLive(node: Node, path: string): Promise<void> {
  await eventually(async () => await node.livePaths(path) === PORTALS.length);
}

/** Ends the session or controller of a portal behind everybody's back. */
async function endSession(node: Node, portal: string): Promise<void> {
  await node.vm.sh(
    transportOf(node) === "iscsi"
      ? `iscsiadm -m node -T ${node.array.targetIqn} -p ${portal} --logout`
      : `echo 1 >$(dirname $(grep -l traddr=${portal}, /sys/class/nvme/nvme*/address))/delete_controller`,
  );
}

/** Shell: whether the kernel has seen that a portal does not answer. */
function isPathLost(node: Node, portal: string): string {
  return transportOf(node) === "iscsi"
    ? "grep -qv LOGGED_IN /sys/class/iscsi_session/*/state"
    : `! grep -qx live $(dirname $(grep -l traddr=${portal}, /sys/class/nvme/nvme*/address))/state`;
}

/** Waits until something is so. */
async function eventually(isSo: () => Promise<boolean>, seconds = LOOK_SECONDS): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  while (!await isSo()) {
    if (Date.now() > deadline) fail(`did not come true within ${seconds} s: ${isSo}`);
  }
}

/** How long `vgs` takes, in milliseconds; it is ended after 20 s. */
async function vgsTimes(vm: Vm, count: number): Promise<number[]> {
  const times = await vm.sh(`for number in $(seq ${count}); do
    begun=$(date +%s%N); timeout -k 1 20 vgs >/dev/null 2>&1
    echo $((($(date +%s%N) - begun) / 1000000)); done`);
  return times.split("\n").map(Number);
}

/**
 * The array is away twice, under verified I/O on a disk of each storage: first in silence, then it is rebooted,
 * which closes every connection, answers with refusals for a while, and brings another boot id.
 */
async function outages(
  vm: Vm,
  nodes: readonly Node[],
  daemon: Daemon,
  note: Note,
): Promise<void> {
  const disks: { node: Node; volname: string; path: string }[] = [];
  for (const node of nodes) disks.push({ node, ...await node.activeDisk() });
  const timeoutSeconds = OUTAGE_MINUTES * 120 + 3600;
  const writings = await Promise.all(
    disks.map(({ node, path }) =>
      beginWriting(vm, path, 2, { name: node.storage, timeoutSeconds })
    ),
  );
  const rounds = () => Promise.all(writings.map((writing) => writing.rounds()));
  const goOn = async () => {
    await Promise.all(writings.map((writing) => writing.more(2)));
  };
  const survive = async (
    name: string,
    minutes: number,
    goAway: () => Promise<void>,
    comeBack: () => Promise<void>,
  ) => {
    await goOn();
    const begun = Date.now();
    const seconds = () => Math.round((Date.now() - begun) / 1000);
    await goAway();
    const stuck = await stillRounds(rounds);
    const slowest = await inactive(
      nodes,
      daemon,
      () => seconds() >= minutes * 60,
      (node) => note(`${name}: ${node.storage} is inactive after ${seconds()} s`),
    );
    assertEquals(await rounds(), stuck, "somebody could write to an array that is away");
    note(`${name}: away for ${seconds()} s; slowest status in ${slowest} ms`);
    const back = Date.now();
    await comeBack();
    await goOn();
    note(
      `${name}: both guests have written and read ${
        (Date.now() - back) / 1000
      } s after it came back`,
    );
    for (const { node, path } of disks) {
      await eventually(async () => await statusOf(node, daemon) === 1, 300);
      await allPathsLive(node, path);
      await eventually(async () => {
        const { portals, disks: seen } = await daemon.storage(node);
        return portals.every(({ state }) => state === "live") &&
          seen.map(({ inUse }) => inUse).join() === "true";
      });
    }
    note(`${name}: all active, with all paths, ${(Date.now() - back) / 1000} s after it came back`);
  };
  const bootId = async () => (await daemon.state()).storages.map(({ array }) => array?.bootId);
  const [node = fail("no node")] = nodes;
  let isOff = false;
  try {
    const before = await bootId();
    await survive("in silence", OUTAGE_MINUTES, () => vm.arrayAway(), () => vm.arrayBack());
    assertEquals(await bootId(), before);
    await survive("rebooted", REBOOT_MINUTES, async () => {
      await vm.arrayAway();
      isOff = true;
      await node.switchOff();
    }, async () => {
      await vm.arrayBack();
      // Its network is up before its services are.
      await vm.sh("sleep 20");
      await node.switchOn();
      isOff = false;
    });
    assert((await bootId()).every((id, at) => id !== before[at]), "it was no reboot");
  } finally {
    await vm.arrayBack();
    if (isOff) await node.switchOn();
    await Promise.all(writings.map((writing) => writing.end()));
  }
  note(
    `${await vm.sh(
      "dmesg | grep -c 'I/O error' || true",
    )} lines of the kernel's log tell of an I/O error`,
  );
  const { daemon: own } = await daemon.state();
  note(`logins: ${own?.links.map(({ logins }) => logins)}`);
  for (const { node, volname } of disks) {
    await node.free(volname);
    assertEquals(await node.must("list_images"), []);
  }
}

/** How often was written when no writing goes on any more. */
async function stillRounds(rounds: () => Promise<number[]>): Promise<number[]> {
  for (let before = await rounds();;) {
    await new Promise((resolve) => setTimeout(resolve, 10_000));
    const now = await rounds();
    if (now.every((count, at) => count === before[at])) return now;
    before = now;
  }
}

/** Asks for the status of each storage until all are inactive and enough time has passed; answers with the slowest, in ms. */
async function inactive(
  nodes: readonly Node[],
  daemon: Daemon,
  isEnough: () => boolean,
  onInactive: (node: Node) => void,
): Promise<number> {
  const down = new Set<Node>();
  let slowest = 0;
  await eventually(async () => {
    for (const node of nodes) {
      const { answer, ms } = await daemon.ask(node, "status");
      slowest = Math.max(slowest, ms);
      const isActive = !answer.ok || (answer.result as { active: number }).active === 1;
      if (!isActive && !down.has(node)) onInactive(node);
      if (isActive) down.delete(node);
      else down.add(node);
    }
    return down.size === nodes.length && isEnough();
  }, OUTAGE_MINUTES * 60 + 300);
  return slowest;
}

async function statusOf(node: Node, daemon: Daemon): Promise<number | undefined> {
  const { answer } = await daemon.ask(node, "status");
  return answer.ok ? (answer.result as { active: number }).active : undefined;
}
