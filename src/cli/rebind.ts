/** `tnblock rebind`: exports a volume again whose export was lost, and says what changes for its guest. */
import { Cancelled } from "../common/asking.ts";
import { TnblockError } from "../common/error.ts";
import { planRebind, rebind, type RebindGuest, type RebindPlan, volidOf } from "../pve/adoption.ts";
import { isCloudInit, ownerOf, parseVolumeName } from "../pve/volume_name.ts";
import { type CommandContext, EXIT } from "./framework.ts";
import type { Surroundings } from "./surroundings.ts";
import { formatBytes, printable } from "./table.ts";
import { withStorage } from "./with_storage.ts";

/** What the user says. */
export interface RebindFlags {
  readonly storage: string;
  /** A zvol's name, or a volume's. */
  readonly volume: string;
  readonly json: boolean;
  readonly yes: boolean;
  readonly dryRun: boolean;
}

const LOOK_MS = 60_000;
const REBIND_MS = 180_000;

/** Looks, asks, exports; ends with the exit status. */
export async function runRebind(
  context: CommandContext,
  flags: RebindFlags,
  { host, asker }: Surroundings,
): Promise<number> {
  const { storage: id, json } = flags;
  if (flags.yes && flags.dryRun) {
    throw new TnblockError("invalid", "Cannot take --yes and --dry-run together", {
      hint: "Leave one out",
    });
  }
  const zvol = zvolOf(flags.volume);
  const seen = await withStorage(context, host, id, LOOK_MS, (one) => planRebind(one, zvol));
  if (flags.dryRun || (!flags.yes && (json || asker === undefined))) {
    context.out(
      json ? `${JSON.stringify(planDocument(id, zvol, seen), null, 2)}\n` : render(id, zvol, seen),
    );
    if (!json) context.err("Nothing was changed. To do it: tnblock rebind --yes\n");
    return EXIT.done;
  }
  if (!json) context.err(render(id, zvol, seen));
  try {
    if (!flags.yes && asker !== undefined) {
      const message = "Is this the disk that is meant? Then it is exported again";
      if (!await asker.confirmTyped({ flag: "--yes", message, word: zvol })) throw new Cancelled();
    }
  } catch (error) {
    if (!(error instanceof Cancelled)) throw error;
    context.err("Left. Nothing was changed.\n");
    return EXIT.interrupted;
  }
  const { volume, former, guests } = await withStorage(
    context,
    host,
    id,
    REBIND_MS,
    (one) => rebind(one, zvol, seen),
  );
  const now = volidOf(id, volume);
  const before = former === undefined ? undefined : volidOf(id, former);
  if (json) {
    const document = { schemaVersion: 1, storage: id, volid: now, former: before ?? null, guests };
    context.out(`${JSON.stringify(document, null, 2)}\n`);
    return EXIT.done;
  }
  context.out(`${now}\n`);
  context.err(changes(now, before, guests).map((line) => `${printable(line)}\n`).join(""));
  return EXIT.done;
}

function zvolOf(volume: string): string {
  const own = volume.slice(volume.indexOf(":") + 1);
  return ownerOf(own) === undefined ? parseVolumeName(own).zvol : own;
}

function render(
  storage: string,
  name: string,
  { zvol, now, former, keepsName, guests }: RebindPlan,
): string {
  const known = former === undefined ? undefined : volidOf(storage, { zvol: name, tag: former });
  const lines = [
    `${zvol.name}, ${formatBytes(zvol.volsize)}, made ${new Date(zvol.createdMs).toISOString()}`,
    `  exported by: ${now}`,
    ...guests.map((guest) =>
      `  named by: ${inWords(guest)}${known === undefined ? "" : ` as ${known}`}`
    ),
    ...(guests.length === 0 ? ["  named by: no guest"] : []),
    isCloudInit(name) || keepsName
      ? "  its name stays the same"
      : "  its name will be another one: guests' configurations have to be changed",
  ];
  return lines.map((line) => `${printable(line)}\n`).join("");
}

function changes(
  now: string,
  before: string | undefined,
  guests: readonly RebindGuest[],
): string[] {
  if (before === undefined || before === now) return [`Exported again as ${now}.`];
  if (guests.length === 0) return [`Exported again as ${now}; no guest names it as ${before}.`];
  const lines = [`Exported again as ${now}. Guests know it as ${before} still:`];
  for (const guest of guests) {
    const folder = guest.kind === "qemu" ? "qemu-server" : "lxc";
    lines.push(
      `  in /etc/pve/nodes/${guest.node}/${folder}/${guest.vmid}.conf replace ${before} by ${now}${
        guest.snapshots.length === 0 ? "" : `, also in [${guest.snapshots.join("], [")}]`
      }`,
    );
  }
  return lines;
}

function inWords({ kind, vmid, node, snapshots }: RebindGuest): string {
  const what = `${kind === "qemu" ? "VM" : "container"} ${vmid} on node ${node}`;
  return snapshots.length === 0 ? what : `${what} (snapshots ${snapshots.join(", ")})`;
}

function planDocument(storage: string, name: string, plan: RebindPlan) {
  const { zvol, now, former, keepsName, guests } = plan;
  return {
    ...{ schemaVersion: 1, storage, zvol: zvol.name, size: zvol.volsize },
    ...{ exportedBy: now, keepsName: keepsName || isCloudInit(name), guests },
    former: former === undefined ? null : volidOf(storage, { zvol: name, tag: former }),
  };
}
