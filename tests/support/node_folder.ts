/** A folder that stands for a node, removed after the test. */
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { scratchBase } from "./scratch.ts";
import { untar } from "./tar.ts";

/** A node to try things on. */
export interface NodeFolder {
  readonly directory: string;
  readonly host: Host;
  /** Writes a file of the node; folders are made. */
  write(path: string, text: string | Uint8Array, mode?: number): Promise<void>;
  /** Makes a symbolic link of the node. */
  link(path: string, target: string): Promise<void>;
}

/** Runs `test` with an empty node, or with one of the recorded ones in tests/fixtures/sysfs. */
export async function withNode<T>(
  fixture: string | undefined,
  test: (node: NodeFolder) => Promise<T>,
): Promise<T> {
  const directory = await mkdtemp(join(scratchBase(), "tnblock-node-"));
  try {
    if (fixture !== undefined) {
      untar(new URL(`../fixtures/sysfs/${fixture}.tar.gz`, import.meta.url), directory);
    }
    return await test({
      directory,
      host: linuxHost({ root: directory, nodeName: "pve1" }),
      async write(path, text, mode = 0o644) {
        await mkdir(dirname(join(directory, path)), { recursive: true });
        await writeFile(join(directory, path), text, { mode });
      },
      async link(path, target) {
        await mkdir(dirname(join(directory, path)), { recursive: true });
        await symlink(target, join(directory, path));
      },
    });
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
