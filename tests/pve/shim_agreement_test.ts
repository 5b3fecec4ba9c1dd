/**
 * The shim repeats two things in Perl: the options and the grammar of volume names. Here both are
 * held against the originals in TypeScript.
 */
import { assert, assertEquals } from "@std/assert";
import * as v from "valibot";
import { kindOf, KNOWN_METHODS, type MethodKind } from "../../src/daemon/methods.ts";
import { identityOf } from "../../src/pve/methods/attributes.ts";
import { METHODS } from "../../src/pve/methods/methods.ts";
import { PURE_METHODS } from "../../src/pve/methods/pure.ts";
import { optionSchema, type OptionTraits, SECRET_OPTIONS } from "../../src/pve/options.ts";
import { parseVolumeName } from "../../src/pve/volume_name.ts";
import { FOLDER, perlTest, runPerl, SHIM } from "./run_perl.ts";

interface Property {
  readonly type: string;
  readonly description: string;
  readonly enum?: readonly string[];
  readonly minimum?: number;
  readonly maximum?: number;
}

/** What the driver prints for a method that takes no arguments. */
async function ask<T>(method: string): Promise<T> {
  const { stdout, stderr } = await runPerl(`${FOLDER}drive.pl`, method, "san", "{}", "{}");
  const answer = JSON.parse(stdout) as { ok: boolean; result: T };
  assert(answer.ok, stdout + stderr);
  return answer.result;
}

const ENTRIES = Object.entries(optionSchema.entries);

perlTest("the shim's options are those of the schema, with its words", async () => {
  const properties = await ask<Record<string, Property>>("properties");
  assertEquals(
    Object.fromEntries(
      Object.entries(properties).map(([name, { description }]) => [
        name,
        description,
      ]),
    ),
    Object.fromEntries(ENTRIES.map(([name, schema]) => [name, v.getDescription(schema)])),
  );
});

perlTest("the shim's fixed and secret options are those of the schema", async () => {
  const options = await ask<Record<string, { fixed?: number }>>("options");
  const fixed = ENTRIES.filter(([, schema]) => (v.getMetadata(schema) as OptionTraits).fixed);
  assertEquals(
    Object.keys(options).filter((name) => options[name]?.fixed).sort(),
    fixed.map(([name]) => name).sort(),
  );
  const data = await ask<Record<"sensitive-properties", Record<string, number>>>("plugindata");
  assertEquals(Object.keys(data["sensitive-properties"]).sort(), [...SECRET_OPTIONS].sort());
});

perlTest("the shim's types, ranges and choices let through what the schema does", async () => {
  const properties = await ask<Record<string, Property>>("properties");
  for (const [name, schema] of ENTRIES) {
    const accepts = (value: unknown) => v.safeParse(schema, value).success;
    const { type, minimum, maximum, enum: values } = properties[name] ?? { type: "none" };
    if (type === "integer" || type === "number") {
      assert(minimum !== undefined && maximum !== undefined, name);
      assert(accepts(minimum) && accepts(maximum), `${name}: the ends of its range`);
      assert(!accepts(minimum - 1) && !accepts(maximum + 1), `${name}: beyond its range`);
      assertEquals(accepts(minimum + 0.5), type === "number", `${name}: a fraction`);
    } else if (type === "boolean") {
      assert(accepts(0) && accepts(1) && !accepts(2), name);
    } else {
      assertEquals(type, "string", name);
      for (const value of values ?? []) assert(accepts(value), `${name}: ${value}`);
      if (values !== undefined) assert(!accepts("other"), `${name}: a value of no meaning`);
    }
  }
});

const UUID = "3f2b7c1e-0d4a-4b5c-8e6f-9a0b1c2d3e4f";
const NAMES = [
  "vol-vm-100-disk-0-lun7",
  "vol-vm-100-disk-0-lun0",
  "vol-vm-100-disk-0-lun9999",
  "vol-vm-100-disk-0-lun10000",
  "vol-vm-100-disk-0-lun16382",
  "vol-vm-100-disk-0-lun16383",
  "vol-vm-100-disk-0-lun16400",
  "vol-vm-100-disk-0-lun20000",
  "vol-vm-100-disk-0-lun99999",
  "vol-vm-100-disk-0-lun07",
  "vol-vm-100-disk-0-lun",
  "vol-vm-9-state-lun3-lun4",
  `vol-vm-9-lun3-ns${UUID}`,
  `vol-vm-100-disk-0-ns${UUID}`,
  `vol-vm-100-disk-0-ns${UUID.toUpperCase()}`,
  `vol-vm-100-disk-0-ns${UUID}0`,
  `vol-base-1-disk-0-ns${UUID}/vol-base-2-disk-0-ns${UUID}`,
  "vol-base-9-disk-0-lun1",
  "vol-base-9-disk-0-lun1/vol-vm-100-disk-0-lun2",
  "vol-base-9-disk-0-lun1/vm-100-cloudinit",
  "vol-vm-9-disk-0-lun1/vol-vm-100-disk-0-lun2",
  "vm-9-cloudinit/vol-vm-100-disk-0-lun2",
  "vol-base-9-disk-0-lun1/",
  "/vol-vm-9-disk-0-lun1",
  "vm-100-cloudinit",
  "vm-0-cloudinit",
  "base-100-cloudinit",
  "vol-vm-100-cloudinit-lun3",
  "vol-vm-999999999-a-lun1",
  "vol-vm-1000000000-a-lun1",
  "vol-vm-0-disk-0-lun1",
  "vol-other-lun1",
  "vol-vm-1-a:b_c.d-lun1",
  "vol-vm-1-.a-lun1",
  "vol-vm-1--a-lun1",
  "vol-vm-1-../x-lun1",
  "vol-vm-1-a b-lun1",
  "vol-vm-1-a-lun1\n",
  `vol-vm-1-${"a".repeat(61)}-lun1`,
  `vol-vm-1-${"a".repeat(62)}-lun1`,
  "vol-vm-1-a@s-lun1",
  "",
];

/** Reads names from a JSON array and prints what the shim makes of each. */
const PARSE = `
  require($ARGV[0] =~ m{\\A(.*)\\z}s ? $1 : die);
  print JSON::PP->new->encode([map {
    my @parts = eval { PVE::Storage::Custom::TnblockPlugin->parse_volname($_) };
    @parts ? [@parts[1 .. 5]] : undef
  } @{ JSON::PP->new->decode($ARGV[1]) }]);
`;

perlTest("the shim takes volume names apart as the binary does", async () => {
  const modules = ["-MJSON::PP", "-MPVE::Storage"];
  const { stdout, stderr } = await runPerl(...modules, "-e", PARSE, SHIM, JSON.stringify(NAMES));
  assertEquals(stderr, "");
  const expected = NAMES.map((name) => {
    try {
      const { zvol, vmid, isBase, base } = parseVolumeName(name);
      return [zvol, vmid, base?.zvol ?? null, base?.vmid ?? null, isBase ? 1 : 0];
    } catch {
      return null;
    }
  });
  const found = JSON.parse(stdout) as unknown[];
  assertEquals(
    Object.fromEntries(NAMES.map((name, index) => [name, found[index]])),
    Object.fromEntries(NAMES.map((name, index) => [name, expected[index]])),
  );
});

perlTest("the shim says of a place what the binary says", async () => {
  for (
    const config of [
      {},
      { "tnb-api-host": "nas-b, NAS-a", "tnb-dataset": "tank/pve" },
      { "tnb-api-host": "[FD00::1],192.0.2.1", "tnb-dataset": "tank/pve" },
    ]
  ) {
    const section = JSON.stringify(config);
    const { stdout } = await runPerl(`${FOLDER}drive.pl`, "get_identity", "san", section, "{}");
    assertEquals(JSON.parse(stdout), { ok: true, result: identityOf(config) });
  }
});

/** Prints what the shim says becomes of a request whose answer is lost, and the methods that it asks for. */
const LOST = `
  require($ARGV[0] =~ m{\\A(.*)\\z}s ? $1 : die);
  no warnings 'once';
  print JSON::PP->new->encode([
    { %PVE::Storage::Custom::TnblockPlugin::AFTERWARDS },
    [keys %PVE::Storage::Custom::TnblockPlugin::DEADLINE],
  ]);
`;

perlTest("the shim repeats a request whose answer is lost where the binary does", async () => {
  const { stdout, stderr } = await runPerl("-MJSON::PP", "-MPVE::Storage", "-e", LOST, SHIM);
  assertEquals(stderr, "");
  const [afterwards, methods] = JSON.parse(stdout) as [Record<string, string>, string[]];
  const words: Partial<Record<MethodKind, string>> = {
    undone: "what it made is taken back",
    finished: "what it began is finished",
  };
  assertEquals(methods.filter((method) => !KNOWN_METHODS.includes(method)), []);
  for (const method of KNOWN_METHODS) {
    assertEquals([method, afterwards[method]], [method, words[kindOf(method)]]);
  }
});

Deno.test("each method of the hook has its kind", () => {
  const methods = [...Object.keys(METHODS), ...Object.keys(PURE_METHODS)].sort();
  assertEquals([...KNOWN_METHODS].sort(), methods);
});
