/** NVMe/TCP starts with TrueNAS 25.10: an older one is refused when the storage is added. */
import { assertEquals, assertMatch } from "@std/assert";
import { Place } from "../support/place.ts";
import { cellName } from "./column.ts";

const column = { transport: "nvme-tcp", release: "25.04" } as const;

Deno.test(cellName("validate_storage", column, "TrueNAS has NVMe/TCP from 25.10 on"), async () => {
  await using place = await Place.start(column.transport, { release: column.release });
  const { error } = await place.ask("validate_storage");
  assertEquals(error?.code, "unsupported");
  assertMatch(error?.message ?? "", /^Cannot .*25\.04/);
});
