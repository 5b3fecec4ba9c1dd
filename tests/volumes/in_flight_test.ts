/** Writes whose connection is lost while the array is at them: it does them after the verb has looked and given up. */
import { assertEquals } from "@std/assert";
import { openEntries, recover } from "../support/mortal.ts";
import { Place, type Reply, TRANSPORTS } from "../support/place.ts";
import { until } from "../simulator/host_player/support.ts";
import { own } from "./recover/support.ts";

/** Cuts the connection while the array is at its first such write; it goes on with it once the verb has answered. */
async function cutDuring(
  place: Place,
  write: string,
  method: string,
  args: Record<string, unknown>,
): Promise<Reply> {
  await place.faults([{ method: write, nth: 1, do: "hold" }]);
  const { reply, settled } = place.begin(method, args);
  await place.held(write);
  place.simulator.cutConnections();
  const given = await reply;
  await settled;
  await place.faults([]);
  return given;
}

/** The zvol of this name is there: the array has come to its end. */
async function landed(place: Place, zvol: string): Promise<void> {
  const isThere = () =>
    place.simulator.objects().zvols.some(({ name }) => String(name).endsWith(`/${zvol}`));
  await until(`the array has made ${zvol}`, isThere);
}

for (const transport of TRANSPORTS) {
  for (const through of ["hook", "daemon"] as const) {
    Deno.test(`${transport}, by ${through}: a zvol that the array makes after its connection was lost and nobody was told of it goes`, async () => {
      await using place = await Place.start(transport, { through });
      const asked = { vmid: 100, format: "raw", sizeKiB: 65536 };
      const given = await cutDuring(place, "pool.dataset.create", "alloc_image", asked);
      assertEquals(given.ok, false);
      await landed(place, "vm-100-disk-0");
      await recover(place);
      assertEquals([await own(place), await openEntries(place)], [[], []]);
    });

    Deno.test(`${transport}, by ${through}: a volume that the array renames after its connection was lost lives on under its old name`, async () => {
      await using place = await Place.start(transport, { through });
      const volname = await place.alloc(100);
      const asked = { volname, targetVmid: 200 };
      const given = await cutDuring(place, "pool.dataset.rename", "rename_volume", asked);
      assertEquals(given.ok, false);
      await landed(place, "vm-200-disk-0");
      await recover(place);
      assertEquals([await own(place), await openEntries(place)], [["vm-100-disk-0"], []]);
      await place.must("activate_volume", { volname });
    });
  }
}
