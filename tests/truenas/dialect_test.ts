import { assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import {
  bestDialect,
  compareReleases,
  isAtLeast,
  parseRelease,
} from "../../src/truenas/dialect.ts";
import { ArrayError } from "../../src/truenas/errors.ts";

const parse = (text: string) => parseRelease(text, "current");

Deno.test("releases are read in all their spellings", () => {
  const table = [
    ["25.04.2.6", [25, 4, 2, 6], undefined],
    ["25.10.6", [25, 10, 6], undefined],
    ["TrueNAS-25.10.0.1", [25, 10, 0, 1], undefined],
    ["TrueNAS-SCALE-25.04.0", [25, 4, 0], undefined],
    ["25.10-RC.1", [25, 10], "RC.1"],
    ["26.0.0-BETA.3", [26, 0, 0], "BETA.3"],
    ["27.0.0-MASTER-20260801", [27, 0, 0], "MASTER-20260801"],
  ] as const;
  for (const [text, numbers, preview] of table) {
    const release = parse(text);
    assertEquals([release.numbers, release.preview], [numbers, preview]);
    assertEquals(release.text, text);
  }
});

Deno.test("what is older than 25.04, or no TrueNAS at all, is refused by its name", () => {
  for (const text of ["TrueNAS-SCALE-24.10.2.4", "TrueNAS-13.0-U6.2", "25.02.1", "Linux", ""]) {
    const error = assertThrows(() => parse(text));
    assertInstanceOf(error, ArrayError);
    assertEquals(error.code, "unsupported");
    assertStringIncludes(error.message, `"${text}"`);
  }
});

Deno.test("releases are in order, a preview before its release", () => {
  const order = ["25.04.2.6", "25.10-RC.1", "25.10.0", "25.10.6", "26.0.0-BETA.3", "26.0.0"];
  const shuffled = [order[3], order[5], order[0], order[2], order[4], order[1]]
    .map((text) => parse(text ?? ""));
  assertEquals(shuffled.sort(compareReleases).map((release) => release.text), order);
  assertEquals(compareReleases(parse("25.10"), parse("25.10.0")), 0);
});

Deno.test("a preview has what its line has", () => {
  assertEquals(isAtLeast(parse("26.0.0-BETA.3"), 26, 0), true);
  assertEquals(isAtLeast(parse("25.10.6"), 26, 0), false);
  assertEquals(isAtLeast(parse("26.0.0"), 25, 10), true);
});

Deno.test("capabilities follow from release and dialect", () => {
  const old = parseRelease("25.04.2.6", "current").can;
  assertEquals([old.zfsResource, old.nvmet, old.snapshots], [false, false, "zfs.snapshot"]);
  assertEquals([old.jobResults, old.rename], [false, false]);
  const middle = parseRelease("25.10.6", "v25.10.0").can;
  assertEquals([middle.zfsResource, middle.zfsResourceWrites], [true, false]);
  assertEquals([middle.nvmet, middle.snapshots, middle.jobResults], [true, "pool.snapshot", true]);
  const young = parseRelease("26.0.0-BETA.3", "v26.0.0").can;
  assertEquals([young.zfsResourceWrites, young.recursiveDestroysClones], [true, true]);
  // The 25.10 dialect has no model for zfs.resource.destroy, whatever the server.
  assertEquals(parseRelease("26.0.0", "v25.10.0").can.zfsResourceWrites, false);
});

Deno.test("each release has the dialect that suits it best", () => {
  const best = ["25.04.2.6", "25.10.0", "26.0.0-BETA.3", "27.0.0"].map((t) =>
    bestDialect(parse(t))
  );
  assertEquals(best, ["current", "v25.10.0", "v26.0.0", "v26.0.0"]);
});
