/**
 * Whether the node's own Proxmox VE can work with the plugin that was put in place. All of it is asked in child
 * processes: no service has loaded the plugin then. A plugin that loads badly would stop every service.
 */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";
import { LOOK_MS, RUN } from "./places.ts";
import { runCommand } from "./run_command.ts";

const TRIAL = "/run/tnblock/TnblockPlugin.trial";

/** As pvedaemon loads it: under taint mode. A plugin that Perl refused is only warned of, and its type unknown. */
const PROBE = 'use PVE::Storage; PVE::Storage::Plugin->lookup("tnblock"); print "loaded\\n";';

/** The names of storages that `pvesm status` prints. */
export async function listStatus(host: Host): Promise<string[]> {
  const { stdout } = await runCommand(host, { program: RUN.pvesm, args: ["status"] }, LOOK_MS);
  return stdout.trim().split("\n").slice(1).map((line) => line.split(/\s+/)[0] ?? "");
}

/**
 * Compiles the plugin where Proxmox VE does not look for it.
 *
 * @throws TnblockError `host-fault` with what Perl says.
 */
export async function checkCompiles(host: Host, text: string): Promise<void> {
  await attempt("Cannot try the storage plugin", async () => {
    await host.files.replaceText(TRIAL, text, 0o644);
    try {
      await runCommand(host, { program: RUN.perl, args: ["-T", "-c", TRIAL] }, LOOK_MS);
    } finally {
      await host.files.remove(TRIAL);
    }
  });
}

/**
 * Looks whether storages work with what is in place.
 *
 * @param before the storages that were shown before; undefined when nothing worked then.
 * @param isThere whether the plugin should be there.
 */
export async function checkStorages(
  host: Host,
  before: readonly string[] | undefined,
  isThere: boolean,
): Promise<void> {
  if (isThere) await checkLoads(host);
  await runCommand(host, { program: RUN.pvesm, args: ["apiinfo"] }, LOOK_MS);
  const after = await listStatus(host);
  const lost = before?.filter((name) => !after.includes(name)) ?? [];
  if (lost.length > 0) {
    throw new TnblockError(
      "host-fault",
      `Cannot go on with the storage plugin: with it pvesm status does not show ${lost.join(", ")}`,
    );
  }
}

async function checkLoads(host: Host): Promise<void> {
  const doing = "Cannot load the storage plugin";
  const { status, stdout, stderr } = await attempt(
    doing,
    () => host.run(RUN.perl, ["-T", "-e", PROBE], { deadlineMs: LOOK_MS }),
  );
  if (status === 0 && stdout.trim() === "loaded") return;
  // Error loading storage plugin "PVE::Storage::Custom::TnblockPlugin": implements an API version …
  const lines = stderr.trim().split("\n");
  const why = lines.find((line) => /^Error loading storage plugin .*Tnblock/.test(line));
  throw new TnblockError("host-fault", `${doing}: ${(why ?? lines.at(-1)) || `status ${status}`}`);
}
