/** Proxmox VE's own storage manager; secrets never come into its arguments. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";

const PVESM = "/usr/sbin/pvesm";

/** Milliseconds: Proxmox VE itself allows 10 s for its lock and 60 s for the work. */
const PVESM_MS = 120_000;

/** @throws TnblockError `host-fault` with pvesm's last line. */
export async function runPvesm(host: Host, args: readonly string[]): Promise<void> {
  const doing = `Cannot run pvesm ${args[0]}`;
  const { status, stderr } = await attempt(
    doing,
    () => host.run(PVESM, args, { deadlineMs: PVESM_MS }),
  );
  if (status === 0) return;
  const said = stderr.trim().split("\n").at(-1)?.slice(0, 500) ?? "";
  throw new TnblockError("host-fault", `${doing}: ${said === "" ? `status ${status}` : said}`);
}
