import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { multipathSettings } from "../../src/install/multipath_settings.ts";
import { findNeighbours } from "../../src/install/neighbours.ts";
import { NVME_RULE } from "../../src/install/nvme_rule.ts";
import { PROGRAM } from "../../src/install/places.ts";
import { parseSections } from "../../src/install/storage_sections.ts";
import { compareVersions } from "../../src/install/version_order.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";

Deno.test("the plugin runs the program from where it is installed", () => {
  assertStringIncludes(SHIM, `our $BINARY = '${PROGRAM}';`);
});

Deno.test("multipathd's choice of disks is set only where nobody has chosen", () => {
  assertStringIncludes(multipathSettings([]), "find_multipaths yes");
  assertStringIncludes(multipathSettings(["# find_multipaths no\n"]), "find_multipaths yes");
  const chosen = multipathSettings(["defaults {\n  find_multipaths  greedy\n}\n"]);
  assert(!chosen.includes("find_multipaths"), chosen);
});

Deno.test("multipathd's settings have one directive a line, and every brace is closed", () => {
  for (const text of [multipathSettings([]), multipathSettings(["find_multipaths no\n"])]) {
    let depth = 0;
    for (const line of text.split("\n").map((each) => each.trim())) {
      if (line === "" || line.startsWith("#")) continue;
      const isOpening = /^[a-z_]+ \{$/.test(line);
      assert(isOpening || line === "}" || /^[a-z_]+ ("[^"]+"|\w+)$/.test(line), line);
      depth += isOpening ? 1 : line === "}" ? -1 : 0;
      assert(depth >= 0);
    }
    assertEquals(depth, 0);
    assertStringIncludes(text, "no_path_retry queue");
  }
});

Deno.test("each line of the udev rule is one that udev knows", () => {
  const lines = NVME_RULE.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  const term = /^[A-Z]+(\{[\w/]+\})?(==|!=|=)"[^"]*"$/;
  for (const line of lines) {
    for (const part of line.split(/, (?=[A-Z])/)) assert(term.test(part), line);
  }
  const labels = new Set([...NVME_RULE.matchAll(/LABEL="(\w+)"/g)].map(([, name]) => name));
  for (const [, goal] of NVME_RULE.matchAll(/GOTO="(\w+)"/g)) assert(labels.has(goal), goal);
});

Deno.test("versions are ordered as semver says", () => {
  const order = [
    "0.1.0-alpha",
    "0.1.0-alpha.1",
    "0.1.0-beta.2",
    "0.1.0-beta.11",
    "0.1.0",
    "0.10.0",
  ];
  for (const [at, version] of order.entries()) {
    for (const [other, against] of order.entries()) {
      assertEquals(
        Math.sign(compareVersions(version, against)),
        Math.sign(at - other),
        `${version} ${against}`,
      );
    }
  }
  assertEquals(compareVersions("0.1.0+a", "0.1.0+b"), 0);
});

Deno.test("sections of every type are read, with their options", () => {
  assertEquals(
    parseSections("dir: local\n\tpath /x\n\n# c\nLVM: a\n\tvgname v\n\tdisable\n"),
    [
      { type: "dir", id: "local", options: { path: "/x" } },
      { type: "lvm", id: "a", options: { vgname: "v", disable: "1" } },
    ],
  );
});

Deno.test("another TrueNAS plugin is known by its type, by its file or by its storages", () => {
  const files = {
    "TrueNASPlugin.pm": "sub type { return 'truenasplugin'; }",
    "Other.pm": "sub type {\n  return 'drbd';\n}\n# 'truenas'",
  };
  assertEquals(findNeighbours(files, parseSections("truenas: old\n\ta b\n")), [
    { type: "truenasplugin", files: ["TrueNASPlugin.pm"], storages: [] },
    { type: "truenas", files: [], storages: ["old"] },
  ]);
  assertEquals(findNeighbours({}, []), []);
});
