/**
 * Every verb killed before and after each of its writes: recovery leaves the array as it was, or with all of
 * the operation done, and nothing open.
 */
import { assert, assertEquals } from "@std/assert";
import { arrayState, disks } from "../../support/array_state.ts";
import {
  askUntilDeath,
  type Death,
  openEntries,
  recover,
  recoverUntilDeath,
} from "../../support/mortal.ts";
import { Place } from "../../support/place.ts";
import { forgetLateCalls } from "./support.ts";

const COLUMNS = [
  ["iscsi", "25.04"],
  ["iscsi", "25.10"],
  ["nvme-tcp", "25.10"],
  ["iscsi", "26"],
  ["nvme-tcp", "26"],
] as const;

/** A verb, with what it needs and what may be there after it. */
interface Killed {
  readonly verb: string;
  /** Makes what it works on; gives its arguments. */
  readonly before: (place: Place) => Promise<Record<string, unknown>>;
  /** Which look says that nothing, or everything, is done. */
  readonly look: (place: Place) => Promise<unknown>;
  /** What must have become of it: undone means exactly as before. */
  readonly end: "undone" | "finished" | "either";
  /** What everybody must be able to do then. */
  readonly after: (place: Place, args: Record<string, unknown>) => Promise<unknown>;
}

const freed = async (place: Place) => {
  const found: string[] = (await place.must("list_images")).map((row: { volid: string }) =>
    row.volid
  );
  // Clones before their bases.
  for (const volid of found.sort((a, b) => b.split("/").length - a.split("/").length)) {
    await place.must("free_image", { volname: volid.slice("san:".length), finish: true });
  }
  await forgetLateCalls(place);
};

const again = (verb: string) => async (place: Place, args: Record<string, unknown>) => {
  await place.must(verb, args);
};

const VERBS: readonly Killed[] = [
  {
    verb: "alloc_image",
    before: () => Promise.resolve({ vmid: 100, format: "raw", sizeKiB: 65536 }),
    look: arrayState,
    end: "undone",
    after: again("alloc_image"),
  },
  {
    verb: "volume_import_prepare",
    before: () => Promise.resolve({ vmid: 100, size: 1 << 20 }),
    look: arrayState,
    end: "undone",
    after: async (place, args) => {
      const { volname } = await place.must("volume_import_prepare", args);
      await place.must("volume_import_abort", { volname });
    },
  },
  {
    verb: "clone_image",
    before: async (place) => ({
      volname: await place.must("create_base", { volname: await place.alloc() }),
      vmid: 101,
    }),
    look: arrayState,
    end: "undone",
    after: async (place, args) => {
      const volname = await place.must("clone_image", args);
      await place.must("free_image", { volname, finish: true });
    },
  },
  {
    verb: "activate_volume",
    before: async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      return { volname, snapshot: "before" };
    },
    look: arrayState,
    end: "undone",
    after: async (place, args) => {
      await place.must("activate_volume", args);
      await place.must("deactivate_volume", args);
    },
  },
  {
    verb: "rename_volume",
    before: async (place) => ({ volname: await place.alloc(), targetVmid: 200 }),
    look: disks,
    end: "undone",
    after: async (place, args) => {
      await place.must("activate_volume", { volname: args.volname });
      await place.must("deactivate_volume", { volname: args.volname });
      await place.must("rename_volume", args);
    },
  },
  {
    verb: "create_base",
    before: async (place) => ({ volname: await place.alloc() }),
    look: disks,
    end: "undone",
    after: async (place, args) => {
      await place.must("activate_volume", args);
      await place.must("deactivate_volume", args);
      await place.must("create_base", args);
    },
  },
  {
    verb: "volume_snapshot",
    before: async (place) => ({ volname: await place.alloc(), snapshot: "before" }),
    look: arrayState,
    end: "undone",
    after: async (place, args) => {
      await place.must("volume_snapshot", args);
      await place.must("volume_snapshot_delete", args);
    },
  },
  {
    verb: "volume_snapshot_delete",
    before: async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      return { volname, snapshot: "before" };
    },
    look: async (place) => (await place.objects()).snapshots?.length,
    end: "finished",
    after: again("volume_snapshot_delete"),
  },
  {
    verb: "free_image",
    before: async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      return { volname, finish: true };
    },
    look: async (place) => {
      const { zvols = [], extents = [], namespaces = [], snapshots = [] } = await place.objects();
      return zvols.length + extents.length + namespaces.length + snapshots.length;
    },
    end: "finished",
    after: again("free_image"),
  },
  {
    verb: "volume_resize",
    before: async (place) => ({ volname: await place.alloc(), size: 128 << 20, running: 0 }),
    look: async (place) => (await place.objects()).zvols?.map((one) => one.volsize),
    end: "finished",
    after: again("volume_resize"),
  },
  {
    verb: "volume_snapshot_rollback",
    before: async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
      return { volname, snapshot: "before" };
    },
    // The export is on, and no mark says that something is to follow.
    look: async (place) => {
      const { zvols = [], extents = [], namespaces = [] } = await place.objects();
      return [
        [...extents, ...namespaces].map((row) => row.enabled),
        zvols.map((one) => JSON.stringify(one).includes("tnblock:resync")),
      ];
    },
    end: "either",
    after: again("volume_snapshot_rollback"),
  },
];

for (const [transport, release] of COLUMNS) {
  // 25.04 has no call that renames, and so no bases.
  const verbs = VERBS.filter(({ verb }) =>
    release !== "25.04" || !["rename_volume", "create_base", "clone_image"].includes(verb)
  );
  for (const killed of verbs) {
    Deno.test(`${transport}, ${release}: ${killed.verb} that is killed at any write is undone or finished`, async () => {
      await using place = await Place.start(transport, { release });
      // The target's weight is there before.
      await place.alloc(999);
      await freed(place);
      let kills = 0;
      for (let nth = 1, isOver = false; !isOver; nth++) {
        for (const when of ["before", "after"] as const) {
          const args = await killed.before(place);
          const was = await killed.look(place);
          const death: Death = { nth, when };
          const { reply, writes } = await askUntilDeath(place, killed.verb, args, death);
          isOver = reply !== undefined;
          const seen = { death, writes };
          assertEquals({ ...seen, open: (await openEntries(place)).length }, {
            ...seen,
            open: isOver ? 0 : 1,
          });
          if (!isOver) {
            kills++;
            await check(place, killed, seen, args, was);
          }
          await freed(place);
          if (isOver) break;
        }
      }
      assert(kills > 0);
    });
  }
}

for (const [transport, release] of COLUMNS.slice(1)) {
  for (const killed of VERBS) {
    if (
      !["alloc_image", "clone_image", "rename_volume", "create_base", "free_image"].includes(
        killed.verb,
      )
    ) {
      continue;
    }
    Deno.test(`${transport}, ${release}: the recovery of ${killed.verb} that is killed itself is gone on with`, async () => {
      await using place = await Place.start(transport, { release });
      await place.alloc(999);
      await freed(place);
      const last = await lastWrite(place, killed);
      let kills = 0;
      for (let nth = 1, isOver = false; !isOver; nth++) {
        for (const when of ["before", "after"] as const) {
          const args = await killed.before(place);
          const was = await killed.look(place);
          const first: Death = { nth: last, when: killed.end === "undone" ? "after" : "before" };
          await askUntilDeath(place, killed.verb, args, first);
          isOver = await recoverUntilDeath(place, { nth, when });
          if (!isOver) {
            kills++;
            await check(place, killed, { first, then: { nth, when } }, args, was);
          }
          await freed(place);
          if (isOver) break;
        }
      }
      assert(kills > 0);
    });
  }
}

/** Which of a verb's writes is the last. */
async function lastWrite(place: Place, killed: Killed): Promise<number> {
  const args = await killed.before(place);
  const { writes } = await askUntilDeath(place, killed.verb, args);
  await freed(place);
  return writes.length;
}

async function check(
  place: Place,
  killed: Killed,
  seen: Record<string, unknown>,
  args: Record<string, unknown>,
  was: unknown,
): Promise<void> {
  let recovered = await recover(place);
  // The sockets behind a dead process's locks close a moment later: then it looks as if it still ran. The daemon
  // looks again, too.
  for (let again = 0; again < 20 && (await openEntries(place)).length > 0; again++) {
    recovered = [...recovered, ...await recover(place)];
  }
  const told = recovered.map(({ outcome, why }) => `${outcome}: ${why}`);
  const all = { ...seen, told };
  assertEquals({ ...all, open: await openEntries(place) }, { ...all, open: [] });
  const now = await killed.look(place);
  if (killed.end === "undone") assertEquals({ ...all, now }, { ...all, now: was });
  else if (killed.end === "finished") {
    // Asked for again it finds nothing left to do.
    const clean = killed.verb === "volume_resize" ? [128 << 20] : 0;
    assertEquals({ ...all, now }, { ...all, now: clean });
  } else assertEquals({ ...all, now }, { ...all, now: was });
  const state = await arrayState(place);
  assertEquals({ ...all, again: await recover(place) }, { ...all, again: [] });
  assertEquals(await arrayState(place), state);
  // Names that a killed recovery was about to destroy something under are free again in some minutes.
  for (const folder of ["run/tnblock/doomed", "etc/pve/priv/tnblock/doomed"]) {
    await Deno.remove(`${place.directory}/${folder}`, { recursive: true }).catch(() => {});
  }
  await killed.after(place, args).catch((error) => {
    throw new Error(`${JSON.stringify(all)}: ${error}`);
  });
}
