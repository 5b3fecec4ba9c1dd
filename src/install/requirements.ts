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
 * @returns the version of Proxmox VE's storage API.
 * @throws TnblockError `denied`, `unsupported` with what is missing.
 */
export async function checkNode(world: InstallWorld): Promise<number> {
  const { host } = world;
  if (world.platform !== "linux") {
    throw unsupported(`this is ${world.platform}, and it runs on Linux only`);
  }
  if (!world.isRoot) {
    throw new TnblockError("denied", "Cannot install tnblock: this needs root", {
      hint: "Run it as root, e.g. with sudo",
    });
  }
  if (await host.files.status(RUN.pvesm) === undefined) {
    throw unsupported("this is no Proxmox VE node, for /usr/sbin/pvesm is not there");
  }
  await checkGlibc(world);
  const apiinfo = await attempt(
    "Cannot install tnblock",
    () => host.run(RUN.pvesm, ["apiinfo"], { deadlineMs: LOOK_MS }),
  );
  // APIVER 13
  const api = Number(/^APIVER\s+(\d+)/m.exec(apiinfo.stdout)?.[1]);
  if (!Number.isInteger(api)) {
    const said = apiinfo.stderr.trim().split("\n")[0] ?? "";
    throw new TnblockError(
      "host-fault",
      `Cannot install tnblock: pvesm does not work here (${said || `status ${apiinfo.status}`})`,
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

async function checkGlibc({ host }: InstallWorld): Promise<void> {
  const asked = await attempt(
    "Cannot install tnblock",
    () => host.run(RUN.getconf, ["GNU_LIBC_VERSION"], { deadlineMs: LOOK_MS }),
  );
  // glibc 2.41
  const found = /^glibc (\d+)\.(\d+)/.exec(asked.stdout);
  const [major, minor] = [Number(found?.[1]), Number(found?.[2])];
  if (found === null) throw unsupported("the C library here is not glibc");
  if (major < OLDEST_GLIBC[0] || (major === OLDEST_GLIBC[0] && minor < OLDEST_GLIBC[1])) {
    throw unsupported(`glibc is ${major}.${minor}, and ${OLDEST_GLIBC.join(".")} is needed`);
  }
}

function unsupported(why: string): TnblockError {
  return new TnblockError("unsupported", `Cannot install tnblock: ${why}`);
}
