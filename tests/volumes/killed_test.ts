/** Every verb, killed at each of its writes, is finished by asking again. */
import { assert, assertEquals } from "@std/assert";
import { Place } from "../support/place.ts";
import { exports, zvolNamesOf } from "./life_support.ts";

/** Verbs that are killed at each write, before and after it was done, and then asked for again. */
const KILLED: readonly {
  readonly verb: string;
  readonly args: Record<string, unknown>;
  readonly before?: (place: Place, volname: string) => Promise<unknown>;
  /** The volume that must be attachable in the end; none when it was freed. */
  readonly after: (volname: string, result: unknown) => string | undefined;
}[] = [
  { verb: "rename_volume", args: { targetVmid: 200 }, after: (_, result) => String(result) },
  { verb: "create_base", args: {}, after: (_, result) => String(result) },
  {
    verb: "volume_snapshot_delete",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("activate_volume", { volname, snapshot: "before" });
    },
    after: (volname) => volname,
  },
  {
    verb: "volume_snapshot_rollback",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("volume_resize", { volname, size: 128 << 20, running: 0 });
    },
    after: (volname) => volname,
  },
  {
    verb: "volume_resize",
    args: { size: 128 << 20, running: 0 },
    after: (volname) => volname,
  },
  {
    verb: "activate_volume",
    args: { snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    after: (volname) => volname,
  },
  {
    verb: "deactivate_volume",
    args: { snapshot: "before" },
    before: async (place, volname) => {
      await place.must("volume_snapshot", { volname, snapshot: "before" });
      await place.must("activate_volume", { volname, snapshot: "before" });
    },
    after: (volname) => volname,
  },
  {
    verb: "free_image",
    args: { finish: true },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    after: () => undefined,
  },
];

const KILL_COLUMNS = [["iscsi", "25.10"], ["nvme-tcp", "25.10"]] as const;

for (const [transport, release] of KILL_COLUMNS) {
  for (const { verb, args, before, after } of KILLED) {
    Deno.test(`${transport}, ${release}: ${verb} that is killed at any write is finished by asking again`, async () => {
      const end = async (place: Place) => {
        const { snapshots = [] } = await place.objects();
        return [
          await zvolNamesOf(place),
          // What keeps the killed call of a rollback from coming late goes by itself, some minutes later.
          snapshots.map((one) => String(one.name)).filter((name) => !name.includes("@tnblock-")),
          (await exports(place)).length,
        ];
      };
      const config = { "tnb-api-retry-max": 0 };
      let clean: unknown;
      const calls: string[] = [];
      {
        await using place = await Place.start(transport, { release });
        const volname = await place.alloc();
        await before?.(place, volname);
        place.calls.length = 0;
        await place.must(verb, { volname, ...args });
        calls.push(
          ...place.calls.filter((call) =>
            /\.(create|update|delete|destroy|clone|rename|rollback)$|core\.bulk/.test(call)
          ),
        );
        assert(calls.length > 0);
        clean = await end(place);
      }
      const counts = new Map<string, number>();
      const wrong: unknown[] = [];
      for (const method of calls) {
        const nth = (counts.get(method) ?? 0) + 1;
        counts.set(method, nth);
        for (const how of ["cut", "done-then-drop"]) {
          await using place = await Place.start(transport, { release });
          const volname = await place.alloc();
          await before?.(place, volname);
          const logins = Array.from({ length: 40 }, (_, at) => at + 2).flatMap((at) =>
            ["auth.login_ex", "auth.login_with_api_key"].map((login) => ({
              method: login,
              nth: at,
              do: "error",
              errno: 5,
            }))
          );
          await place.faults([{ method, nth, do: how }, ...logins]);
          await place.ask(verb, { volname, ...args }, { deadlineMs: 15_000, config });
          await place.faults([]);
          const again = await place.ask(verb, { volname, ...args });
          const name = after(volname, again.result);
          const use = name === undefined || !again.ok
            ? undefined
            : await place.ask("activate_volume", { volname: name });
          const now = await end(place);
          const problem = again.error?.message ?? use?.error?.message ??
            (JSON.stringify(now) === JSON.stringify(clean) ? undefined : now);
          if (problem !== undefined) wrong.push([method, nth, how, problem]);
        }
      }
      assertEquals(wrong, []);
    });
  }
}
