/** A test over both transports. */
import { Place, type PlaceOptions, TRANSPORTS } from "./place.ts";

/** Each transport has a place of its own. */
export function both(
  name: string,
  run: (place: Place) => Promise<void>,
  options: PlaceOptions = {},
): void {
  for (const transport of TRANSPORTS) {
    Deno.test(`${transport}: ${name}`, async () => {
      await using place = await Place.start(transport, options);
      await run(place);
    });
  }
}
