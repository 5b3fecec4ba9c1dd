/** What a node must have for tnblock to be installed; refused in plain words before anything is touched. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { LOOK_MS, RUN } from "./places.ts";
import type { InstallWorld } from "./world.ts";

/** The storage API that the shim was written against begins here: Proxmox VE 8.4. */
const OLDEST_API = 11;

/** glibc that the program is linked against. */
const OLDEST_GLIBC: readonly [number, number] = [2, 17];

/**
 * Checks the node.
 *
 * @param doing as in a message: `Cannot install tnblock`.
 * @returns the version of Proxmox VE's storage API.
 * @throws TnblockError `denied`, `unsupported` with what is missing.
 */
export async function checkNode(world: InstallWorld, doing: string): Promise<number> {
  const { host } = world;
  const unsupported = (why: string) => new TnblockError("unsupported", `${doing}: ${why}`);
  if (world.platform !== "linux") {
    throw unsupported(`this is ${world.platform}, and it runs on Linux only`);
  }
  if (!world.isRoot) {
    throw new TnblockError("denied", `${doing}: this needs root`, {
      hint: "Run it as root, e.g. with sudo",
    });
  }
  if (await host.files.status(RUN.pvesm) === undefined) {
    throw unsupported("this is no Proxmox VE node, for /usr/sbin/pvesm is not there");
  }
  const old = await glibcFault(world, doing);
  if (old !== undefined) throw unsupported(old);
  const apiinfo = await attempt(
    doing,
    () => host.run(RUN.pvesm, ["apiinfo"], { deadlineMs: LOOK_MS }),
  );
  // APIVER 13
  const api = Number(/^APIVER\s+(\d+)/m.exec(apiinfo.stdout)?.[1]);
  if (!Number.isInteger(api)) {
    const said = apiinfo.stderr.trim().split("\n")[0] ?? "";
    throw new TnblockError(
      "host-fault",
      `${doing}: pvesm does not work here (${said || `status ${apiinfo.status}`})`,
      { hint: "Run pvesm apiinfo, and put right what it says" },
    );
  }
  if (api < OLDEST_API) {
    throw unsupported(
      `Proxmox VE's storage API is ${api}, and ${OLDEST_API} is needed (Proxmox VE 8.4 or newer)`,
    );
  }
  return api;
}

/** What is wrong with the C library; undefined when nothing is. */
async function glibcFault({ host }: InstallWorld, doing: string): Promise<string | undefined> {
  const asked = await attempt(
    doing,
    () => host.run(RUN.getconf, ["GNU_LIBC_VERSION"], { deadlineMs: LOOK_MS }),
  );
  // glibc 2.41
  const found = /^glibc (\d+)\.(\d+)/.exec(asked.stdout);
  const [major, minor] = [Number(found?.[1]), Number(found?.[2])];
  if (found === null) return "the C library here is not glibc";
  return major < OLDEST_GLIBC[0] || (major === OLDEST_GLIBC[0] && minor < OLDEST_GLIBC[1])
    ? `glibc is ${major}.${minor}, and ${OLDEST_GLIBC.join(".")} is needed`
    : undefined;
}
