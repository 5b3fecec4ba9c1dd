/** The protocol with the simulator's player: control files and the fabrics device below a root. */
import { readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import { HostError } from "../../src/host/host.ts";
import { type NodeFolder, withNode } from "../support/node_folder.ts";

const OPTIONS = "instance=-1,cntlid=-1,transport=%s,traddr=%s,dhchap_secret=%s";
const LONG = { deadlineMs: 30_000 };

/** Plays the kernel until the test ends: calls `act` whenever `wanted` finds something in the file. */
async function playing(
  path: string,
  wanted: (text: string) => boolean,
  act: (text: string) => Promise<void>,
  test: () => Promise<void>,
): Promise<void> {
  let over = false;
  const player = (async () => {
    while (!over) {
      const text = await readFile(path, "utf8").catch(() => "");
      if (wanted(text)) await act(text);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  })();
  try {
    await test();
  } finally {
    over = true;
    await player;
  }
}

async function withFabrics(
  answer: (options: string) => string,
  test: (node: NodeFolder, seen: string[]) => Promise<void>,
): Promise<void> {
  await withNode(undefined, async (node) => {
    await node.write("/dev/nvme-fabrics", `${OPTIONS}\n`);
    const device = join(node.directory, "dev/nvme-fabrics");
    const seen: string[] = [];
    await playing(
      device,
      (text) => /^transport=.*\n$/.test(text),
      async (text) => {
        seen.push(text);
        await writeFile(device, `${answer(text)}\n${OPTIONS}\n`);
      },
      () => test(node, seen),
    );
  });
}

Deno.test("a connect is written as one line and its answer returned", async () => {
  await withFabrics(() => "instance=3,cntlid=7", async ({ host }, seen) => {
    assertEquals(await host.connectFabrics("transport=tcp,nqn=a", LONG), "instance=3,cntlid=7");
    assertEquals(seen, ["transport=tcp,nqn=a\n"]);
    assertEquals(await host.fabricsOptions(), OPTIONS);
  });
});

Deno.test("a refused connect is an error of the kernel's name", async () => {
  await withFabrics(() => "error=EKEYREJECTED", async ({ host }) => {
    const error = await assertRejects(() => host.connectFabrics("transport=tcp,nqn=a", LONG));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "EKEYREJECTED");
  });
});

Deno.test("connects at the same time are done one after the other, each with its own answer", async () => {
  const answer = (text: string) => `instance=${/nqn=(\d+)/.exec(text)?.[1]},cntlid=1`;
  await withFabrics(answer, async ({ host }, seen) => {
    const answers = await Promise.all(
      ["1", "2", "3", "4"].map((nqn) => host.connectFabrics(`transport=tcp,nqn=${nqn}`, LONG)),
    );
    assertEquals(answers.map((text) => text.split(",")[0]).sort(), [
      "instance=1",
      "instance=2",
      "instance=3",
      "instance=4",
    ]);
    assertEquals(seen.length, 4);
  });
});

Deno.test("a connect that nobody answers is ETIMEDOUT", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/dev/nvme-fabrics", `${OPTIONS}\n`);
    const error = await assertRejects(() =>
      host.connectFabrics("transport=tcp,nqn=a", { deadlineMs: 60 })
    );
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ETIMEDOUT");
  });
});

Deno.test("without the device there are no options, and a connect is ENOENT", async () => {
  await withNode(undefined, async ({ host }) => {
    assertEquals(await host.fabricsOptions(), undefined);
    await assertRejects(() => host.connectFabrics("transport=tcp", LONG), "ENOENT");
  });
});

Deno.test("a control write returns when the file has been emptied", async () => {
  await withNode(undefined, async ({ host, directory, write }) => {
    const path = "/sys/class/scsi_host/host0/scan";
    await write(path, "");
    const file = join(directory, path);
    const seen: string[] = [];
    await playing(file, (text) => text !== "", async (text) => {
      seen.push(text);
      await truncate(file);
    }, async () => {
      await Promise.all(
        ["0 0 5", "0 0 6"].map((text) => host.files.writeControl(path, text, LONG)),
      );
    });
    assertEquals(seen.sort(), ["0 0 5", "0 0 6"]);
    assertEquals((await stat(file)).size, 0);
  });
});

Deno.test("a control write returns when the file has gone", async () => {
  await withNode(undefined, async ({ host, directory, write }) => {
    const path = "/sys/block/sda/device/delete";
    await write(path, "");
    const file = join(directory, path);
    await playing(
      file,
      (text) => text === "1",
      () => rm(file),
      () => host.files.writeControl(path, "1", LONG),
    );
  });
});

Deno.test("a control write that nobody takes is ETIMEDOUT", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/sys/x", "");
    const error = await assertRejects(() =>
      host.files.writeControl("/sys/x", "1", { deadlineMs: 60 })
    );
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ETIMEDOUT");
  });
});

Deno.test("a control file is never made", async () => {
  await withNode(undefined, async ({ host, write }) => {
    await write("/sys/there", "");
    const error = await assertRejects(() => host.files.writeControl("/sys/none", "1", LONG));
    assertInstanceOf(error, HostError);
    assertEquals(error.code, "ENOENT");
    assertEquals(await host.files.list("/sys"), ["there"]);
  });
});
