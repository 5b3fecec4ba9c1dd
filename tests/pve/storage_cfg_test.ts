import { assertEquals } from "@std/assert";
import { linuxHost } from "../../src/host/linux.ts";
import { parseStorageCfg, readSections } from "../../src/pve/storage_cfg.ts";

const TEXT = `# by hand
dir: local
	path /var/lib/vz
	content iso,vztmpl

tnblock: san
	tnb-api-host nas.example
	# a comment ends no section
	tnb-dataset tank/pve
	content images,rootdir
	shared

tnblock: other
	tnb-api-host nas.example
	nodes pve2,pve3

tnblock: off
	disable
	tnb-api-host nas.example

tnblock: san
	tnb-api-host second.example
`;

Deno.test("sections of our type are read as a request's config has them, and no others", () => {
  assertEquals(parseStorageCfg(TEXT).map((section) => section.id), ["san", "other", "off"]);
  assertEquals(parseStorageCfg(TEXT)[0]?.config, {
    type: "tnblock",
    "tnb-api-host": "nas.example",
    "tnb-dataset": "tank/pve",
    content: "images,rootdir",
    shared: "1",
  });
});

Deno.test("the second section of one name does not count", () => {
  assertEquals(parseStorageCfg(TEXT)[0]?.config["tnb-api-host"], "nas.example");
});

Deno.test("lines that belong to no section are passed over", () => {
  assertEquals(parseStorageCfg("\tpath /x\n???\n\ntnblock:   \n  a b\n"), []);
});

Deno.test("a node has the sections that are enabled on it", async () => {
  const root = await Deno.makeTempDir();
  try {
    const { files } = linuxHost({ root });
    assertEquals(await readSections(files, "pve1"), []);
    await Deno.mkdir(`${root}/etc/pve`, { recursive: true });
    await Deno.writeTextFile(`${root}/etc/pve/storage.cfg`, TEXT);
    assertEquals((await readSections(files, "pve1")).map(({ id }) => id), ["san"]);
    assertEquals((await readSections(files, "pve2")).map(({ id }) => id), ["san", "other"]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});
