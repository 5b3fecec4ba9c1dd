import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { type ErrorCode, TnblockError } from "../../src/common/error.ts";
import { silentLog } from "../../src/common/log.ts";
import { connectAll, type PortalOutcome } from "../../src/transport/connect_all.ts";

const PORTALS = [{ address: "10.0.0.5", port: 4420 }, { address: "10.0.1.5", port: 4420 }];

/** Connects two portals that end like this. */
async function connect(...ends: (PortalOutcome | ErrorCode)[]): Promise<string[]> {
  const warnings: string[] = [];
  const log = { ...silentLog, warning: (text: string) => void warnings.push(text) };
  await connectAll(log, "target", PORTALS, (portal) => {
    const end = ends[PORTALS.indexOf(portal)] ?? "live";
    return end === "live" || end === "recovering"
      ? Promise.resolve(end)
      : Promise.reject(new TnblockError(end, `Cannot connect: ${end}`));
  });
  return warnings;
}

async function failureOf(...ends: (PortalOutcome | ErrorCode)[]): Promise<ErrorCode> {
  return (await errorOf(...ends)).code;
}

async function errorOf(...ends: (PortalOutcome | ErrorCode)[]): Promise<TnblockError> {
  const error = await assertRejects(() => connect(...ends));
  assertInstanceOf(error, TnblockError);
  return error;
}

Deno.test("two live portals warn of nothing", async () => {
  assertEquals(await connect("live", "live"), []);
});

Deno.test("one live portal is enough, and the other is named in a warning", async () => {
  for (const other of ["unreachable", "recovering", "auth"] as const) {
    assert((await connect("live", other))[0]?.startsWith("one path is missing"));
  }
});

Deno.test("without a live portal the one that says why is told, whichever comes first", async () => {
  assertEquals(await failureOf("unreachable", "auth"), "auth");
  assertEquals(await failureOf("auth", "unreachable"), "auth");
  assertEquals(await failureOf("unreachable", "recovering"), "unreachable");
});

Deno.test("portals that the kernel is bringing back are unreachable", async () => {
  assertEquals(await failureOf("recovering", "recovering"), "unreachable");
});

Deno.test("without a live portal the reason of each is told, the most telling one first", async () => {
  assertEquals(
    (await errorOf("unreachable", "auth")).message,
    "Cannot connect: auth; Cannot connect: unreachable",
  );
  assertEquals(
    (await errorOf("recovering", "auth")).message,
    "Cannot connect: auth; 10.0.0.5:4420 is being reconnected by the kernel",
  );
  assertEquals((await errorOf("auth", "auth")).message, "Cannot connect: auth");
});
