/** An array that answers "done" to what it did not do: no verb believes it. */
import { assert, assertEquals } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";
import { exports, zvolNamesOf } from "./life_support.ts";

/** Each write of a verb is answered with `true` and not done, once: what the verb says must be so then. */
const TRUE_VERBS: readonly {
  readonly verb: string;
  readonly args: Record<string, unknown>;
  readonly before?: (place: Place, volname: string) => Promise<unknown>;
  readonly isDone: (place: Place, result: unknown) => Promise<boolean>;
}[] = [
  {
    verb: "volume_resize",
    args: { size: 128 << 20, running: 0 },
    isDone: async (place) => (await place.must("list_images"))[0]?.size === 128 << 20,
  },
  {
    verb: "volume_snapshot",
    args: { snapshot: "before" },
    isDone: async (place) => (await place.objects()).snapshots?.length === 1,
  },
  {
    verb: "volume_snapshot_delete",
    args: { snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place) => (await place.objects()).snapshots?.length === 0,
  },
  {
    verb: "rename_volume",
    args: { targetVmid: 200 },
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ),
  },
  {
    verb: "create_base",
    args: {},
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ) && (await place.objects()).snapshots?.length === 1,
  },
  {
    verb: "clone_image",
    args: { vmid: 101, snapshot: "before" },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place, result) =>
      (await place.must("list_images")).some((row: { volid: string }) =>
        row.volid === `san:${result}`
      ),
  },
  {
    verb: "free_image",
    args: { finish: true },
    before: (place, volname) => place.must("volume_snapshot", { volname, snapshot: "before" }),
    isDone: async (place) =>
      (await zvolNamesOf(place)).length === 0 && (await exports(place)).length === 0,
  },
  {
    verb: "update_volume_attribute",
    args: { attribute: "protected", value: 1 },
    isDone: async (place) => (await place.must("list_images"))[0]?.protected === 1,
  },
];

for (const transport of TRANSPORTS) {
  for (const { verb, args, before, isDone } of TRUE_VERBS) {
    Deno.test(`${transport}, 26: ${verb} does not believe an answer to a write that was not done`, async () => {
      const calls = await onPlace(transport, async (place, volname) => {
        await before?.(place, volname);
        place.calls.length = 0;
        await place.must(verb, { volname, ...args });
        return place.calls.filter((call) =>
          /\.(create|update|delete|destroy|clone|rename|rollback)$/.test(call)
        );
      });
      assert(calls.length > 0);
      const counts = new Map<string, number>();
      const wrong: unknown[] = [];
      for (const method of calls) {
        const nth = (counts.get(method) ?? 0) + 1;
        counts.set(method, nth);
        await onPlace(transport, async (place, volname) => {
          await before?.(place, volname);
          await place.faults([{ method, nth, do: "result", result: true }]);
          const reply = await place.ask(verb, { volname, ...args }, { deadlineMs: 20_000 });
          await place.faults([]);
          if (reply.ok && !await isDone(place, reply.result)) wrong.push([method, nth]);
        });
      }
      assertEquals(wrong, []);
    });
  }
}

async function onPlace<T>(
  transport: typeof TRANSPORTS[number],
  work: (place: Place, volname: string) => Promise<T>,
): Promise<T> {
  const place = await Place.start(transport, { release: "26" });
  try {
    return await work(place, await place.alloc());
  } finally {
    // The answers that were made up break the schema.
    await place[Symbol.asyncDispose]().catch(() => {});
  }
}
