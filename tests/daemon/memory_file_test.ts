import { assert, assertEquals } from "@std/assert";
import { type Kept, readKept, writeKept } from "../../src/daemon/memory_file.ts";
import type { HostFiles } from "../../src/host/host.ts";
import type { MemorizedStorage } from "../../src/pve/hook.ts";

/** Files in memory, of the kind that this needs. */
function fakeFiles() {
  const texts = new Map<string, string>();
  const files = {
    readText: (path: string) => Promise.resolve(texts.get(path)),
    replaceText: (path: string, text: string) => {
      texts.set(path, text);
      return Promise.resolve();
    },
    remove: (path: string) => Promise.resolve(texts.delete(path)),
  } as unknown as HostFiles;
  return { files, texts };
}

function storageOf(dataset = "tank/pve"): MemorizedStorage {
  return {
    clusterId: "c",
    settings: {
      id: "san",
      dataset,
      api: { hosts: ["nas"], port: 443, key: "1-secret" },
      transport: { kind: "iscsi", targetIqn: "iqn.x" },
    },
  } as unknown as MemorizedStorage;
}

function keptOf(count: number): Kept {
  const names = Array.from({ length: count }, (_, index) => `tank/pve/vm-${index}`);
  return {
    space: { available: 10, used: 20 },
    found: {
      zvols: names.map((name) => ({
        name,
        volsize: 1,
        volblocksize: 2,
        used: 3,
        referenced: undefined,
        sparse: true,
        reserved: 0,
        createdMs: 4,
        origin: undefined,
        guid: "5",
        createTxg: undefined,
        userProperties: { "tnblock:notes": "ä".repeat(50) },
      })),
      exports: names.map((zvol, id) => ({
        zvol,
        identity: { kind: "iscsi", lun: id, naa: "f".repeat(32) },
        rows: [{ kind: "mapping", id }, { kind: "extent", id }],
        enabled: true,
        sectorSize: 512,
      })),
    },
  };
}

Deno.test("what is kept is read back as it was, in files below 1 MiB, without the key", async () => {
  const { files, texts } = fakeFiles();
  const kept = keptOf(10_000);
  await writeKept(files, storageOf(), kept, "w1");
  assert(texts.size > 3);
  for (const text of texts.values()) {
    assert(new TextEncoder().encode(text).length < 1 << 20);
    assert(!text.includes("secret"));
  }
  assertEquals(await readKept(files, storageOf()), kept);
});

Deno.test("files of a known disk cannot be meant: those end in .json", async () => {
  const { files, texts } = fakeFiles();
  await writeKept(files, storageOf(), keptOf(1), "w1");
  assertEquals([...texts.keys()], ["/var/lib/tnblock/san/memory.0"]);
});

Deno.test("an empty storage is kept as empty", async () => {
  const { files } = fakeFiles();
  await writeKept(files, storageOf(), keptOf(0), "w1");
  assertEquals(await readKept(files, storageOf()), keptOf(0));
});

Deno.test("what is kept of another dataset, damaged, or of two writings is nothing", async () => {
  const { files, texts } = fakeFiles();
  assertEquals(await readKept(files, storageOf()), undefined);
  await writeKept(files, storageOf(), keptOf(5_000), "w1");
  assertEquals(await readKept(files, storageOf("tank/other")), undefined);
  const last = "/var/lib/tnblock/san/memory.1";
  const text = texts.get(last) ?? "";
  texts.set(last, text.replace('"w1"', '"w0"'));
  assertEquals(await readKept(files, storageOf()), undefined);
  texts.set(last, text.slice(0, 1000));
  assertEquals(await readKept(files, storageOf()), undefined);
  texts.delete(last);
  assertEquals(await readKept(files, storageOf()), undefined);
});

Deno.test("a storage that has shrunk leaves no parts behind", async () => {
  const { files, texts } = fakeFiles();
  await writeKept(files, storageOf(), keptOf(5_000), "w1");
  await writeKept(files, storageOf(), keptOf(1), "w2");
  assertEquals(texts.size, 1);
  assertEquals(await readKept(files, storageOf()), keptOf(1));
});
