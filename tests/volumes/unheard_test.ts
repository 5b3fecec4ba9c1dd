/** An answer that nobody gets: what was made goes again, at once or later, and what may have been heard of stays. */
import { assert, assertEquals } from "@std/assert";
import { lineLog } from "../../src/common/log.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer, type HookWorld } from "../../src/pve/hook.ts";
import { arrayState, disks } from "../support/array_state.ts";
import { askAndDie, openEntries, recover } from "../support/mortal.ts";
import { Place, type Reply, TRANSPORTS } from "../support/place.ts";
import { outcomes } from "./recover/support.ts";

/** A verb that is undone when nobody hears of it. */
interface Verb {
  readonly verb: string;
  readonly args: (place: Place) => Promise<Record<string, unknown>>;
  /** What tells that nothing of it is there. */
  readonly look: (place: Place) => Promise<unknown>;
}

const VERBS: readonly Verb[] = [
  {
    verb: "alloc_image",
    args: () => Promise.resolve({ vmid: 100, format: "raw", sizeKiB: 65536 }),
    look: arrayState,
  },
  {
    verb: "volume_import_prepare",
    args: () => Promise.resolve({ vmid: 100, size: 1 << 20 }),
    look: arrayState,
  },
  {
    verb: "clone_image",
    args: async (place) => ({
      volname: await place.must("create_base", { volname: await place.alloc() }),
      vmid: 101,
    }),
    look: arrayState,
  },
  {
    verb: "rename_volume",
    args: async (place) => ({ volname: await place.alloc(), targetVmid: 200 }),
    look: disks,
  },
  {
    verb: "create_base",
    args: async (place) => ({ volname: await place.alloc() }),
    look: disks,
  },
  {
    verb: "volume_snapshot",
    args: async (place) => ({ volname: await place.alloc(), snapshot: "before" }),
    look: arrayState,
  },
];

/** No look at the array succeeds any more. */
const AWAY = ["pool.dataset.query", "zfs.resource.query", "pool.snapshot.query"]
  .map((method) => ({ method, do: "error", errno: 5 }));

function requestOf(place: Place, method: string, args: Record<string, unknown>) {
  return {
    protocol: 1,
    id: "t",
    method,
    storage: "san",
    config: place.config(),
    args,
    deadlineMs: 45_000,
    node: "pve1",
    pveApi: 13,
  };
}

function worldOf(place: Place): HookWorld {
  return {
    host: linuxHost({ root: place.directory }),
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
  };
}

/** Asks for something, and when the answer is there does something and does not take it; gives what was answered. */
async function askInVain(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  then: () => Promise<void>,
): Promise<Reply> {
  const request = JSON.stringify(requestOf(place, method, args));
  const world = worldOf(place);
  if (place.through === "daemon") {
    // It runs by now, for what the verb works on was asked of it.
    const text = await world.host.askLocal(DAEMON_SOCKET, request, {
      deadlineMs: 50_000,
      maxLine: 1 << 20,
      passOn: async () => (await then(), false),
    });
    await place.begin("status").settled;
    return JSON.parse(text);
  }
  const { reply, settled, undelivered } = answer(request, world);
  const { text } = await reply;
  await then();
  await undelivered();
  await settled;
  return JSON.parse(text);
}

/** Asks for something that is done a moment after the deadline, when something else has happened as well. */
async function askTooLate(
  place: Place,
  method: string,
  args: Record<string, unknown>,
  then: () => Promise<void>,
): Promise<Reply> {
  const request = requestOf(place, method, args);
  const { host, ...world } = worldOf(place);
  const passed = Promise.withResolvers<void>();
  const told = Promise.withResolvers<void>();
  const { reply, settled, delivered } = answer(JSON.stringify(request), {
    ...world,
    host: {
      ...host,
      wait: (ms, signal) => ms === request.deadlineMs ? passed.promise : host.wait(ms, signal),
      files: {
        ...host.files,
        replaceText: async (path, ...rest) => {
          if (path.endsWith(".told")) {
            passed.resolve();
            await told.promise;
          }
          await host.files.replaceText(path, ...rest);
        },
      },
    },
  });
  const { text } = await reply;
  await then();
  told.resolve();
  // That it was too late is what the caller has heard.
  await delivered();
  await settled;
  return JSON.parse(text);
}

const both = (
  name: string,
  through: "hook" | "daemon",
  run: (place: Place) => Promise<void>,
) => {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}, ${through}: ${name}`, async () => {
      await using place = await Place.start(transport, { release: "25.10", through });
      // The target's weight is there before.
      await place.must("free_image", { volname: await place.alloc(999), finish: true });
      await run(place);
    });
  }
};

for (const { verb, args, look } of VERBS) {
  for (const through of ["hook", "daemon"] as const) {
    both(`${verb} that nobody hears of is undone at once`, through, async (place) => {
      const given = await args(place);
      const was = await look(place);
      const { ok } = await askInVain(place, verb, given, () => Promise.resolve());
      assertEquals([ok, await look(place), await openEntries(place)], [true, was, []]);
    });

    both(
      `${verb} that nobody hears of while the array is away is undone by recovery`,
      through,
      async (place) => {
        const given = await args(place);
        const was = await look(place);
        const { ok } = await askInVain(place, verb, given, () => place.faults(AWAY));
        await place.faults([]);
        const open = await openEntries(place);
        assertEquals([ok, open.length, open[0]?.told], [true, 1, undefined]);
        await recoverAll(place);
        assertEquals([await look(place), await openEntries(place)], [was, []]);
      },
    );
  }

  for (const [how, faults] of [["at once", []], ["by recovery", AWAY]] as const) {
    both(`${verb} that is done too late is undone ${how}`, "hook", async (place) => {
      const given = await args(place);
      const was = await look(place);
      const { error } = await askTooLate(place, verb, given, () => place.faults(faults));
      await place.faults([]);
      const open = await openEntries(place);
      assertEquals([error?.code, open.length], ["timeout", faults.length === 0 ? 0 : 1]);
      assertEquals(open.filter(({ told }) => told), []);
      await recoverAll(place);
      assertEquals([await look(place), await openEntries(place)], [was, []]);
    });
  }

  both(`${verb} that is killed before its answer leaves is undone`, "hook", async (place) => {
    const given = await args(place);
    const was = await look(place);
    assertEquals(await askAndDie(place, verb, given, "before"), undefined);
    assertEquals((await openEntries(place)).length, 1);
    await recoverAll(place);
    assertEquals([await look(place), await openEntries(place)], [was, []]);
  });

  both(`${verb} that is killed when its answer has left stays`, "hook", async (place) => {
    const given = await args(place);
    const reply = await askAndDie(place, verb, given, "after");
    assert(reply?.ok, reply?.error?.message);
    assertEquals((await openEntries(place)).map(({ told }) => told), [true]);
    const was = await look(place);
    await recoverAll(place);
    assertEquals([await look(place), await openEntries(place)], [was, []]);
  });
}

/** The locks of a process that was killed here are free a moment later. */
async function recoverAll(place: Place): Promise<string[]> {
  let found: string[] = [];
  for (let again = 0; again < 20 && (await openEntries(place)).length > 0; again++) {
    found = outcomes(await recover(place));
  }
  return found;
}

/** Writes the configuration of guest 100. */
async function configure(place: Place, text: string): Promise<void> {
  const folder = `${place.directory}/etc/pve/nodes/pve1/qemu-server`;
  await Deno.mkdir(folder, { recursive: true });
  await Deno.writeTextFile(`${folder}/100.conf`, text);
}

both(
  "a new name that may have been heard of goes when the guest has the old one still",
  "hook",
  async (place) => {
    const volname = await place.alloc();
    await configure(place, `scsi0: san:${volname}\n`);
    const was = await disks(place);
    await askAndDie(place, "rename_volume", { volname, targetVmid: 200 }, "after");
    await recoverAll(place);
    assertEquals([await disks(place), await openEntries(place)], [was, []]);
    await place.must("activate_volume", { volname });
  },
);

both(
  "a snapshot that may have been heard of stays when the guest has it, and goes when the guest has not",
  "hook",
  async (place) => {
    const volname = await place.alloc();
    const disk = `scsi0: san:${volname}\n`;
    await configure(place, `${disk}\n[before]\n${disk}`);
    const args = { volname, snapshot: "before" };
    await askAndDie(place, "volume_snapshot", args, "after");
    await recoverAll(place);
    assertEquals((await place.objects()).snapshots?.length, 1);
    await place.must("volume_snapshot_delete", args);
    // PVE was told that it failed, and forgot it.
    await configure(place, disk);
    await askAndDie(place, "volume_snapshot", args, "after");
    await recoverAll(place);
    assertEquals([(await place.objects()).snapshots, await openEntries(place)], [[], []]);
  },
);

both(
  "a caller goes on with what it got before the daemon knows that it has it",
  "daemon",
  async (place) => {
    const volname = await place.alloc();
    const { host } = worldOf(place);
    const request = requestOf(place, "rename_volume", { volname, targetVmid: 200 });
    await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
      deadlineMs: 50_000,
      maxLine: 1 << 20,
      passOn: async (text) => {
        const renamed = JSON.parse(text).result;
        assertEquals((await openEntries(place)).map(({ told }) => told), [true]);
        assertEquals(outcomes(await recover(place)), ["running"]);
        const must = async (method: string, args: Record<string, unknown>) => {
          const { ok, result, error } = await place.begin(method, args).reply;
          assert(ok, `${method}: ${error?.message}`);
          return result;
        };
        assertEquals(await must("free_image", { volname, finish: true }), null);
        await must("volume_snapshot", { volname: renamed, snapshot: "a" });
        await must("activate_volume", { volname: renamed });
        await must("volume_snapshot_delete", { volname: renamed, snapshot: "a" });
        const made = await must("alloc_image", { vmid: 101, format: "raw", sizeKiB: 65536 });
        const moved = await must("rename_volume", { volname: made, targetVmid: 300 });
        await must("free_image", { volname: moved, finish: true });
        return true;
      },
    });
    await place.begin("status").settled;
    assertEquals(await openEntries(place), []);
  },
);

both(
  "what is asked for again while its first answer is being taken back is refused",
  "hook",
  async (place) => {
    const volname = await place.alloc();
    const args = { volname, targetVmid: 200 };
    const was = await disks(place);
    let again: Reply | undefined;
    await askInVain(place, "rename_volume", args, async () => {
      again = await place.ask("rename_volume", args);
    });
    assertEquals([again?.error?.code, await disks(place)], ["busy", was]);
    await place.must("rename_volume", args);
  },
);

const CLOUD_INIT = { vmid: 100, format: "raw", name: "vm-100-cloudinit", sizeKiB: 4096 };

both(
  "a cloud-init volume whose first answer nobody got, and that was handed out since, stays",
  "hook",
  async (place) => {
    let again: Reply | undefined;
    await askInVain(place, "alloc_image", CLOUD_INIT, async () => {
      again = await place.ask("alloc_image", CLOUD_INIT);
    });
    assertEquals(again?.error, undefined);
    await place.must("activate_volume", { volname: again?.result });
    assertEquals(await openEntries(place), []);
  },
);

both(
  "a cloud-init volume that is asked for again while the first is given up is there in the end",
  "hook",
  async (place) => {
    const first = place.transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    await place.faults([{ method: first, nth: 1, do: "hold" }]);
    const { reply, giveUp, settled } = place.begin("alloc_image", CLOUD_INIT);
    await place.held(first);
    giveUp();
    assertEquals((await reply).ok, false);
    const second = place.begin("alloc_image", CLOUD_INIT);
    await place.faults([]);
    const { result, error } = await second.reply;
    await Promise.all([settled, second.settled]);
    assertEquals(error, undefined);
    await place.must("activate_volume", { volname: result });
    assertEquals(await openEntries(place), []);
  },
);
