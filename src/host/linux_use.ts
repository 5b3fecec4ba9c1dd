/** Part of linux.ts: who has a device open. */
import { constants, type Stats } from "node:fs";
import { open, readdir, readFile, readlink, stat } from "node:fs/promises";
import type { Host } from "./host.ts";
import { codeOf, hostError } from "./linux_errors.ts";
import type { Root } from "./linux_root.ts";

/** udev looks at every new disk for some tenths of a second; that is no use of it. */
const UDEV_WORKERS = new Set(["(udev-worker)", "systemd-udevd"]);

/** The two halves of `Host` that look for users of a device. */
export function linuxUse(root: Root): Pick<Host, "probeExclusive" | "holders"> {
  return {
    async probeExclusive(path) {
      // A plain file cannot be claimed: there the flag means nothing.
      if (root.isFolder) return "unknown";
      try {
        const handle = await open(path, constants.O_RDONLY | constants.O_EXCL);
        await handle.close();
        return "free";
      } catch (error) {
        const code = codeOf(error);
        if (code === "EBUSY") return "busy";
        // Deno turns O_EXCL into "create anew".
        if (code === "EINVAL" || code === "EEXIST") return "unknown";
        throw hostError(`Cannot open "${path}"`, error);
      }
    },

    async holders(path) {
      let device: Stats;
      try {
        device = await stat(await root.follow(path));
      } catch (error) {
        throw hostError(`Cannot look at "${path}"`, error);
      }
      const proc = await root.follow("/proc");
      const found: { pid: number; name: string }[] = [];
      for (const entry of await namesIn(proc)) {
        const pid = Number(entry);
        if (!Number.isInteger(pid) || pid === process.pid) continue;
        if (!await holds(root, `${proc}/${entry}/fd`, device)) continue;
        const name = (await readFile(`${proc}/${entry}/comm`, "utf8").catch(() => "?")).trim();
        if (!UDEV_WORKERS.has(name)) found.push({ pid, name });
      }
      return found;
    },
  };
}

async function holds(root: Root, directory: string, device: Stats): Promise<boolean> {
  for (const entry of await namesIn(directory)) {
    const link = `${directory}/${entry}`;
    const target = await readlink(link).catch(() => "");
    if (root.isFolder ? target === "" : !target.startsWith("/dev/")) continue;
    const path = root.isFolder ? await root.follow(root.inside(link)).catch(() => link) : link;
    const open = await stat(path).catch(() => undefined);
    if (open === undefined) continue;
    const same = device.isBlockDevice()
      ? open.isBlockDevice() && open.rdev === device.rdev
      : open.ino === device.ino && open.dev === device.dev;
    if (same) return true;
  }
  return false;
}

/** Processes come and go, and not all may be looked into. */
async function namesIn(directory: string): Promise<string[]> {
  return await readdir(directory).catch(() => []);
}
