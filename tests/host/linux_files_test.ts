/** Files of a node that is a folder: nothing leads out of it. */
import { spawnSync } from "node:child_process";
import { mkdtemp, readFile, readlink, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { HostError } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { linuxFiles } from "../../src/host/linux_files.ts";
import { openRoot } from "../../src/host/linux_root.ts";
import { withNode } from "../support/node_folder.ts";

Deno.test("absolute and climbing links stay below the root", async () => {
  await withNode(undefined, async ({ host, write, link }) => {
    await write("/etc/inside", "inside\n");
    await link("/run/absolute", "/etc/inside");
    await link("/run/climbing", "../../../../../etc/inside");
    await link("/etcetera", "/etc");
    for (
      const path of ["/run/absolute", "/run/climbing", "/etcetera/inside", "/run/../etc/inside"]
    ) {
      assertEquals(await host.files.readText(path), "inside\n", path);
      assertEquals(await host.files.resolve(path), "/etc/inside", path);
    }
  });
});

Deno.test("an absolute link to what only the machine has dangles", async () => {
  await withNode(undefined, async ({ host, link }) => {
    await link("/run/proc", "/proc/self/status");
    assertEquals(await host.files.readText("/run/proc"), undefined);
    assertEquals(await host.files.status("/run/proc"), undefined);
    assertEquals(await host.files.resolve("/run/proc"), undefined);
    assertEquals(await host.files.readLink("/run/proc"), "/proc/self/status");
  });
});

Deno.test("links in a circle are an error of the kernel's name", async () => {
  await withNode(undefined, async ({ host, link }) => {
    await link("/run/a", "b");
    await link("/run/b", "a");
    const error = await assertRejects(() => host.files.readText("/run/a"));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ELOOP");
  });
});

Deno.test("what does not exist is undefined, in every way of asking", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/file", "x");
    for (const path of ["/nothing", "/etc/file/below"]) {
      assertEquals(await host.files.readText(path), undefined);
      assertEquals(await host.files.readBytes(path), undefined);
      assertEquals(await host.files.list(path), undefined);
      assertEquals(await host.files.status(path), undefined);
      assertEquals(await host.files.readLink(path), undefined);
      assertEquals(await host.files.resolve(path), undefined);
      assertEquals(await host.files.remove(path), false);
    }
    assertEquals(await host.files.readLink("/etc/file"), undefined);
  });
});

Deno.test("a regular file counts as a block device below /dev only", async () => {
  await withNode(undefined, async ({ host, write, link }) => {
    await write("/dev/sda", "content");
    await write("/etc/file", "content");
    await link("/dev/disk/by-id/x", "../../sda");
    assertEquals((await host.files.status("/dev/disk/by-id/x"))?.kind, "block");
    assertEquals((await host.files.status("/dev/sda"))?.size, 0);
    assertEquals((await host.files.status("/etc/file"))?.kind, "file");
    assertEquals((await host.files.status("/etc/file"))?.size, 7);
    assertEquals((await host.files.status("/dev"))?.kind, "directory");
  });
});

Deno.test("a link is written as a relative one and replaces another", async () => {
  await withNode(undefined, async ({ host, directory }) => {
    await host.files.makeDirectory("/dev/tnblock/san", 0o755);
    await host.files.replaceLink("/dev/tnblock/san/a", "/dev/disk/by-id/one");
    await host.files.replaceLink("/dev/tnblock/san/a", "/dev/disk/by-id/two");
    assertEquals(await readlink(join(directory, "dev/tnblock/san/a")), "../../disk/by-id/two");
    assertEquals(await host.files.list("/dev/tnblock/san"), ["a"]);
  });
});

Deno.test("a link into a missing directory is an error", async () => {
  await withNode(undefined, async ({ host }) => {
    await assertRejects(() => host.files.replaceLink("/dev/none/a", "/dev/x"), "ENOENT");
  });
});

Deno.test("a file is replaced whole, with the mode asked for, and nothing is left beside it", async () => {
  await withNode(undefined, async ({ host, directory, write }) => {
    await write("/etc/secret", "old, and longer than the new one", 0o644);
    await host.files.replaceText("/etc/secret", "new\n", 0o600);
    await host.files.replaceText("/etc/deep/er/file", "x", 0o666);
    assertEquals(await readFile(join(directory, "etc/secret"), "utf8"), "new\n");
    assertEquals((await stat(join(directory, "etc/secret"))).mode & 0o777, 0o600);
    assertEquals((await stat(join(directory, "etc/deep/er/file"))).mode & 0o777, 0o666);
    assertEquals(await host.files.list("/etc"), ["deep", "secret"]);
  });
});

Deno.test("names are listed sorted", async () => {
  await withNode(undefined, async ({ host, write }) => {
    for (const name of ["b", "a10", "a2"]) await write(`/etc/${name}`, "");
    assertEquals(await host.files.list("/etc"), ["a10", "a2", "b"]);
  });
});

Deno.test("a file over 1 MiB is refused", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/etc/fits", new Uint8Array(1 << 20));
    await write("/etc/large", new Uint8Array((1 << 20) + 1));
    assertEquals((await host.files.readBytes("/etc/fits"))?.length, 1 << 20);
    await assertRejects(() => host.files.readText("/etc/large"), "1 MiB");
  });
});

Deno.test("a root that is not there is refused", () => {
  const error = assertThrows(
    () => linuxHost({ root: "/nonexistent/tnblock" }),
    "as the root of a node",
  );
  assertInstanceOf(error, TnblockError);
});

Deno.test("the node's name is that of its folder, without the domain", async () => {
  await withNode(undefined, async ({ directory, write }) => {
    await write("/etc/hostname", "pve7.example.org\n");
    assertEquals(linuxHost({ root: directory }).nodeName, "pve7");
  });
});

Deno.test("on a real node a device has its number, and no file is a device", async () => {
  const host = linuxHost();
  const status = await host.files.status("/dev/null");
  assertEquals([status?.kind, status?.device], ["character", "1:3"]);
  assertEquals((await host.files.status("/proc/self/status"))?.kind, "file");
  assertEquals(await host.files.resolve("/proc/../dev/null"), "/dev/null");
});

Deno.test("a control write is over when the kernel is done, not when our deadline has passed", async () => {
  const directory = await mkdtemp(join(tmpdir(), "tnblock-control-"));
  try {
    // Opening a pipe that nobody reads hangs in the kernel, as a write to a dead path does.
    const pipe = join(directory, "scan");
    assertEquals(spawnSync("mkfifo", [pipe]).status, 0);
    const files = linuxFiles(openRoot("/"), () => Promise.reject(new Error("no lock is needed")));
    let over = false;
    const end = Promise.withResolvers<void>();
    const onEnd = () => {
      over = true;
      end.resolve();
    };
    const error = await assertRejects(() =>
      files.writeControl(pipe, "- - -", { deadlineMs: 30, onEnd })
    );
    assertInstanceOf(error, HostError);
    assertEquals([error.code, over], ["ETIMEDOUT", false]);
    assertEquals(await readFile(pipe, "utf8"), "- - -");
    await end.promise;
  } finally {
    await rm(directory, { recursive: true });
  }
});

Deno.test("a control write that is never begun is over at once", async () => {
  await withNode(undefined, async ({ host }) => {
    const real = linuxFiles(openRoot("/"), host.lock);
    for (const files of [host.files, real]) {
      let ends = 0;
      const onEnd = () => ends += 1;
      const gone = "/nonexistent/tnblock/scan";
      await assertRejects(() => files.writeControl(gone, "1", { deadlineMs: 1_000, onEnd }));
      const signal = AbortSignal.abort(new Error("given up"));
      await assertRejects(() =>
        files.writeControl(gone, "1", { deadlineMs: 1_000, signal, onEnd })
      );
      await assertRejects(() => files.writeControl(gone, "1", { deadlineMs: 0, onEnd }));
      assertEquals(ends, 3);
    }
  });
});
