import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { runDemo } from "../../src/cli/demo.ts";
import { run } from "../binary/program.ts";

async function demo(
  options: { json?: boolean; release?: "25.10" | "26"; faults?: unknown[] },
): Promise<{ status: number; text: string }> {
  let text = "";
  const status = await runDemo({
    out: (part) => text += part,
    deliver: () => Promise.resolve(true),
    err: () => {},
    input: new ReadableStream<Uint8Array>(),
    isTerminal: false,
    env: {},
    root: "/",
    stopped: () => new Promise(() => {}),
  }, {
    json: options.json ?? false,
    release: options.release ?? "25.10",
    faults: options.faults === undefined ? undefined : JSON.stringify(options.faults),
  });
  return { status, text };
}

Deno.test("the demo takes a disk through its life over both transports on 26", async () => {
  const { status, text } = await demo({ release: "26" });
  assertEquals(status, 0, text);
  assertMatch(text, /\ndemo: ok\n$/);
  assertStringIncludes(text, "A disk over iSCSI");
  assertStringIncludes(text, "A disk over NVMe/TCP");
});

Deno.test("the demo's JSON has every step with its array calls and what the node saw", async () => {
  const { status, text } = await demo({ json: true });
  const report = JSON.parse(text);
  assertEquals([status, report.schemaVersion, report.ok, report.failedAt], [0, 1, true, null]);
  const step = report.steps.find((one: { asked: string }) => one.asked === "activate_volume");
  assert(step.arrayCalls.length > 0 && step.log.length > 0 && Number.isInteger(step.ms));
});

for (
  const [what, faults, title] of [
    [
      "a create that fails",
      [{ method: "pool.dataset.create", nth: 1, do: "error", errno: 5 }],
      "Make a disk of 1 GiB",
    ],
    ["a namespace that cannot be deleted", [{
      method: "nvmet.namespace.delete",
      do: "error",
      errno: 5,
    }], "The backup is done"],
    [
      "an extent that cannot be created",
      [{ method: "iscsi.extent.create", do: "error", errno: 5 }],
      "iscsi: Make a disk of 1 GiB",
    ],
  ] as const
) {
  Deno.test(`the demo fails, and says where, with ${what}`, async () => {
    const { status, text } = await demo({ faults: [...faults] });
    assertEquals(status, 1);
    const last = text.trimEnd().split("\n").at(-1) ?? "";
    assert(last.startsWith("demo: FAILED at ") && last.includes(title), last);
  });
}

Deno.test("the compiled demo ends with demo: ok", async () => {
  const { status, stdout } = await run(["demo"]);
  assertEquals(status, 0, stdout);
  assertMatch(stdout, /\ndemo: ok\n$/);
});
