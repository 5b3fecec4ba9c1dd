import { assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import type { HostError } from "../../src/host/host.ts";
import { linuxPrograms } from "../../src/host/linux.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";

/** SHA-256 of "abc" (FIPS 180-2, appendix B.1). */
const ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const read = (node: NodeFolder, path: string) => Deno.readTextFile(join(node.directory, path));

Deno.test("a program is hashed, and copied with its mode, whatever the umask", async () => {
  await withNode(undefined, async (node) => {
    const programs = linuxPrograms({ root: node.directory });
    await node.write("/a", "abc", 0o600);
    const umask = Deno.umask(0o077);
    try {
      await programs.copy("/a", "/usr/local/bin/b", 0o755);
    } finally {
      Deno.umask(umask);
    }
    assertEquals(await programs.digest("/usr/local/bin/b"), ABC);
    assertEquals((await node.host.files.status("/usr/local/bin/b"))?.mode, 0o755);
    assertEquals(await node.host.files.list("/usr/local/bin"), ["b"]);
    assertEquals(await programs.digest("/nothing"), undefined);
    assertEquals(programs.own, undefined);
  });
});

Deno.test("our own program lies outside of the root, its copy below", async () => {
  await withNode(undefined, async (node) => {
    await node.write("/elsewhere/program", "abc", 0o700);
    const root = join(node.directory, "root");
    await Deno.mkdir(root);
    const executable = join(node.directory, "elsewhere/program");
    const { own } = linuxPrograms({ root, executable });
    assertEquals(await own?.digest(), ABC);
    await own?.copyTo("/bin/program", 0o755);
    assertEquals(await read(node, "root/bin/program"), "abc");
  });
});

Deno.test("what a killed copy left is replaced, and a failed one leaves the old program", async () => {
  await withNode(undefined, async (node) => {
    const programs = linuxPrograms({ root: node.directory });
    await node.write("/a", "new");
    await node.write("/bin/b", "old");
    await node.write("/bin/.b.new", "half");
    const error = await assertRejects(() => programs.copy("/missing", "/bin/b", 0o755));
    assertEquals((error as HostError).code, "ENOENT");
    assertEquals(await read(node, "/bin/b"), "old");
    await node.write("/bin/.b.new", "half");
    await programs.copy("/a", "/bin/b", 0o755);
    assertEquals(await read(node, "/bin/b"), "new");
    assertEquals(await node.host.files.list("/bin"), ["b"]);
  });
});
