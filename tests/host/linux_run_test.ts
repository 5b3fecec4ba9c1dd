import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { HostError } from "../../src/host/host.ts";
import { waitUntil } from "../../src/host/wait_until.ts";
import { withNode } from "../support/node_folder.ts";

/** Whether there is no such process any more. */
function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}

const LONG = { deadlineMs: 30_000 };

Deno.test("a program below a root is run with its arguments as they are", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", '#!/bin/sh\nprintf "[%s]" "$@"\n', 0o755);
    const result = await host.run("/usr/sbin/x", ["a b", "$(id)", "*"], LONG);
    assertEquals(result, { status: 0, stdout: "[a b][$(id)][*]", stderr: "" });
  });
});

Deno.test("a program that somebody still has open for writing is run once that is over", async () => {
  await withNode(undefined, async ({ host, write, directory }) => {
    await write("/usr/sbin/x", "#!/bin/sh\necho ran\n", 0o755);
    const open = await Deno.open(`${directory}/usr/sbin/x`, { write: true });
    const ran = host.run("/usr/sbin/x", [], LONG);
    setTimeout(() => open.close(), 100);
    assertEquals((await ran).stdout, "ran\n");
  });
});

Deno.test("a program gets nothing of our environment, and / as its directory", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", "#!/bin/sh\n/usr/bin/env\npwd\n", 0o755);
    const { stdout } = await host.run("/usr/sbin/x", [], LONG);
    const names = stdout.split("\n").filter((line) => line.includes("=")).map((line) =>
      line.split("=")[0]
    );
    // The shell adds some of its own.
    assertEquals(
      names.filter((name) => !["PWD", "_", "SHLVL", "OLDPWD"].includes(name ?? "")).sort(),
      [
        "LC_ALL",
        "PATH",
      ],
    );
    assertEquals(stdout.trim().split("\n").at(-1), "/");
  });
});

Deno.test("a failure is a result with both outputs", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write(
      "/usr/sbin/x",
      "#!/bin/sh\nread -r line\necho out:$line\necho err >&2\nexit 21\n",
      0o755,
    );
    const result = await host.run("/usr/sbin/x", [], { ...LONG, input: "word\n" });
    assertEquals(result, { status: 21, stdout: "out:word\n", stderr: "err\n" });
  });
});

Deno.test("an end by a signal is 128 and its number", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", "#!/bin/sh\nkill -TERM $$\n", 0o755);
    assertEquals((await host.run("/usr/sbin/x", [], LONG)).status, 143);
  });
});

Deno.test("a program that is not there is ENOENT", async () => {
  await withNode(undefined, async ({ host }) => {
    const error = await assertRejects(() => host.run("/usr/sbin/none", [], LONG));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ENOENT");
  });
});

Deno.test("a relative program is refused", async () => {
  await withNode(undefined, async ({ host }) => {
    await assertRejects(() => host.run("sh", [], LONG), "absolute");
  });
});

Deno.test("a program is killed at its deadline", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", "#!/bin/sh\ntrap '' TERM INT\nexec sleep 60\n", 0o755);
    const started = performance.now();
    const error = await assertRejects(() => host.run("/usr/sbin/x", [], { deadlineMs: 100 }));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ETIMEDOUT");
    assert(performance.now() - started < 20_000);
  });
});

Deno.test("an abort kills the program and gives the reason", async () => {
  await withNode(undefined, async ({ host, write, directory }) => {
    await write("/usr/sbin/x", '#!/bin/sh\necho $$ > "$1"\nexec sleep 60\n', 0o755);
    const controller = new AbortController();
    const bounds = { ...LONG, signal: controller.signal };
    const running = host.run("/usr/sbin/x", [`${directory}/pid`], bounds);
    const pid = await waitUntil(host, LONG, async () => {
      const text = await host.files.readText("/pid");
      return text?.endsWith("\n") ? Number(text) : undefined;
    });
    assert(pid !== undefined);
    controller.abort(new Error("caller is gone"));
    await assertRejects(() => running, "caller is gone");
    const ended = await waitUntil(
      host,
      LONG,
      () => Promise.resolve(isGone(pid.value) || undefined),
    );
    assert(ended !== undefined, "the program is still there");
  });
});

Deno.test("output is cut at 1 MiB and the program still ends", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", "#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' x\n", 0o755);
    const { status, stdout } = await host.run("/usr/sbin/x", [], LONG);
    assertEquals([status, stdout.length], [0, 1 << 20]);
  });
});

Deno.test("a grandchild that keeps the pipe open does not hold us", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/usr/sbin/x", "#!/bin/sh\nsleep 5 &\necho done\n", 0o755);
    const started = performance.now();
    const { stdout } = await host.run("/usr/sbin/x", [], LONG);
    assertEquals(stdout, "done\n");
    assert(performance.now() - started < 4_500);
  });
});
