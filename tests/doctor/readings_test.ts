import { assert, assertEquals } from "@std/assert";
import { NEWEST_API, OLDEST_API } from "../../src/doctor/checks/node.ts";
import { SHIM } from "../../src/pve/shim/shim.ts";
import { rejectedByLvm } from "../../src/doctor/lvm_filter.ts";
import { multipathFaults } from "../../src/doctor/multipath_config.ts";
import { menusOf } from "../../src/doctor/guide.ts";
import { toldOf } from "../../src/doctor/checks/surroundings.ts";
import { MULTIPATH_CONFIG } from "./healthy.ts";

const NAMES = ["/dev/sdq", "/dev/disk/by-id/wwn-0x6589cfc0000006b5d1f3a6f0c9d2e4b7"];

const filters: readonly (readonly [what: string, config: string, isRejected: boolean])[] = [
  ["no filter at all", "", false],
  ["PVE's own", 'global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]', false],
  ["one that names the disks", 'global_filter=["r|^/dev/disk/by-id/wwn-0x6589cfc|"]', true],
  ["a single pattern", 'global_filter="r|/dev/.*|"', true],
  ["another name that is taken", 'global_filter=["a|/dev/sd.*|","r|wwn-0x6589cfc|"]', false],
  ["an order that takes first", 'global_filter=["a|.*|","r|wwn-0x6589cfc|"]', false],
  ["an order that leaves first", 'global_filter=["r|wwn-0x6589cfc|","a|/dev/nvme|"]', true],
  ["brackets for delimiters", 'global_filter=["r(wwn-0x6589cfc)"]', true],
  ["the local filter", 'global_filter=["a|.*|"]\nfilter=["r|wwn-0x6589cfc|"]', true],
  ["a devices file that is not there", "use_devicesfile=1", false],
];

for (const [what, config, isRejected] of filters) {
  Deno.test(`LVM ${isRejected ? "leaves" : "takes"} the disks with ${what}`, () => {
    assertEquals(rejectedByLvm(config, NAMES), isRejected);
  });
}

Deno.test("LVM leaves what is not in its devices file", () => {
  assertEquals(rejectedByLvm("use_devicesfile=1", NAMES, true), true);
});

const device = (text: string) => `devices {\n\tdevice {\n\t\tvendor "TrueNAS"\n${text}\t}\n}\n`;

const configs: readonly (readonly [what: string, config: string, faults: number])[] = [
  ["what tnblock installs", MULTIPATH_CONFIG, 0],
  ["nothing", "", 0],
  ["another vendor's blacklist", 'blacklist {\n\tdevice {\n\t\tvendor "IBM"\n\t}\n}\n', 0],
  ["a wide blacklist", 'blacklist {\n\tdevice {\n\t\tvendor ".*"\n\t}\n}\n', 1],
  ["a blacklist of wwids", 'blacklist {\n\twwid ".*"\n}\n', 1],
  [
    "a wide blacklist with an exception",
    'blacklist {\n\twwid ".*"\n}\nblacklist_exceptions {\n\twwid "^36589cfc"\n}\n',
    0,
  ],
  ["errors for the device", device('\t\tno_path_retry "fail"\n'), 1],
  ["a number of tries for the device", device("\t\tno_path_retry 12\n"), 1],
  ["waiting for the device", device('\t\tno_path_retry "queue"\n'), 0],
  ["errors by default", 'defaults {\n\tno_path_retry "fail"\n}\n', 1],
  [
    "errors by default, waiting for the device",
    `defaults {\n\tno_path_retry "fail"\n}\n${device("\t\tno_path_retry queue\n")}`,
    0,
  ],
  [
    "waiting for the device, and errors over all",
    `${device("\t\tno_path_retry queue\n")}overrides {\n\tno_path_retry "fail"\n}\n`,
    1,
  ],
  ["a comment", '# blacklist {\n#\twwid ".*"\n# }\n', 0],
];

for (const [what, config, faults] of configs) {
  Deno.test(`multipathd with ${what} ${faults === 0 ? "is right" : "is wrong"}`, () => {
    assertEquals(multipathFaults(config).length, faults, multipathFaults(config).join());
  });
}

Deno.test("what pvestatd told of a storage is found in either form, of this node alone", () => {
  const text = "pve2-storage/pve1/san:100:5:1\npve-storage-9.0/pve1/san:200:5:1\n" +
    "pve-storage-9.0/pve2/san:900:5:1\npve-storage-9.0/pve1/san2:800:5:1\n\0";
  assertEquals(toldOf(text, "pve1", "san"), 200);
  assertEquals(toldOf(text, "pve3", "san"), undefined);
});

Deno.test("the storage APIs that the doctor knows are those of the plugin", () => {
  assert(SHIM.includes(`OLDEST_API => ${OLDEST_API}, NEWEST_API => ${NEWEST_API}`));
});

Deno.test("menus are those of the release", () => {
  const keys = [[25, 4, 2], [25, 10], [26, 0, 0]].map((numbers) => menusOf({ numbers }).apiKeys);
  assertEquals(keys, [
    "(account menu at the top right) > My API Keys",
    "Credentials > Users > (the user) > Access > View API Keys",
    "Credentials > Users > (the user) > Access > View API Keys",
  ]);
  assertEquals(menusOf(undefined), menusOf({ numbers: [25, 10] }));
});
