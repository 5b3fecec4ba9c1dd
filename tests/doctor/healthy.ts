/** A node, a storage and an array of which all is well, with a volume in use: for breaking one thing at a time. */
import type { Doctor, DoctorOptions, Look, LookOptions } from "../../src/doctor/doctor.ts";
import { openDoctor } from "../../src/doctor/doctor.ts";
import { DAEMON_SOCKET } from "../../src/daemon/serve.ts";
import type { State } from "../../src/daemon/state.ts";
import type { Host, LocalServer } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import type { TrueNas } from "../../src/truenas/array.ts";
import { DAEMON, LINK, portal, state, storage } from "../daemon/state_examples.ts";
import { writeStorageCfg } from "../daemon/state_support.ts";
import { Place, type PlaceOptions, type TransportKind } from "../support/place.ts";

/** What the program calls itself here. */
export const VERSION = "1.2.3";

/** Stands for the text of the shim. */
export const SHIM = "package Tnblock; 1;\n";

/** What LVM says when `tnblock install` has added its part. */
export const LVM_CONFIG = `global_filter=[${
  [
    "r|^/dev/disk/by-id/nvme-T[Rr][Uu][Ee]NAS|",
    "r|^/dev/disk/by-id/wwn-0x6589cfc|",
    "r|^/dev/disk/by-id/scsi-36589cfc|",
    "r|^/dev/disk/by-id/dm-uuid-mpath-36589cfc|",
    "r|/dev/zd.*|",
    "r|/dev/rbd.*|",
  ].map((pattern) => `"${pattern}"`).join(",")
}]
filter=["a|.*|"]
use_devicesfile=0
`;

/** What multipathd says when `tnblock install` has added its part. */
export const MULTIPATH_CONFIG = `defaults {
	find_multipaths "no"
}
blacklist {
	device {
		vendor "IBM"
		product "S/390"
	}
}
devices {
	device {
		vendor "TrueNAS"
		product "iSCSI Disk"
		no_path_retry "queue"
	}
}
overrides {
}
`;

const UNITS = {
  "tnblock.service": ["active", "enabled"],
  "tnblock.socket": ["active", "enabled"],
  "pvedaemon.service": ["active", "enabled"],
  "pvestatd.service": ["active", "enabled"],
  "pve-cluster.service": ["active", "enabled"],
  "multipathd.service": ["active", "enabled"],
  "truenas-plugin-broker.service": ["inactive", ""],
};

/** All is well in it until somebody breaks something. */
export class Healthy implements AsyncDisposable {
  /** What the daemon answers; undefined when it hangs up. */
  daemonState: State;
  /** The volume in use. */
  volname = "";
  #server: LocalServer | undefined;

  private constructor(readonly place: Place) {
    this.daemonState = this.stateNow();
  }

  static async start(transport: TransportKind, options: PlaceOptions = {}): Promise<Healthy> {
    const place = await Place.start(transport, options);
    const healthy = new Healthy(place);
    try {
      await healthy.#setUp();
      return healthy;
    } catch (error) {
      await healthy[Symbol.asyncDispose]();
      throw error;
    }
  }

  async #setUp(): Promise<void> {
    const { place } = this;
    for (const { directory } of place.nodes.values()) await setUpFiles(directory);
    await this.writeCfg();
    await this.write("/etc/pve/.members", JSON.stringify({ nodename: "pve1", version: 1 }));
    await this.tellPve(Date.now() / 1000);
    await place.array((nas) => this.#allowNodes(nas));
    await place.must("validate_storage");
    await place.must("activate_storage");
    this.volname = await place.alloc();
    await place.must("activate_volume", { volname: this.volname });
    await this.writeGuest(`scsi0: san:${this.volname},size=64M\n`);
    await this.startDaemon();
  }

  /** As an administrator does: exactly the nodes of the place may connect. */
  async #allowNodes(nas: TrueNas): Promise<void> {
    const call = (method: string, ...params: unknown[]) =>
      // deno-lint-ignore no-explicit-any
      nas.session.call(method, params, { lane: "write" }) as Promise<any>;
    const names = [...this.place.nodes.keys()];
    if (this.place.transport === "nvme-tcp") {
      for (const name of names) {
        const host = await call("nvmet.host.create", { hostnqn: await this.hostNqn(name) });
        // Not both at once: named hosts and any host stand against each other.
        if (name === names[0]) await call("nvmet.subsys.update", 1, { allow_any_host: false });
        await call("nvmet.host_subsys.create", { host_id: host.id, subsys_id: 1 });
      }
      return;
    }
    const initiators = await Promise.all(names.map((name) => this.initiator(name)));
    const group = await call("iscsi.initiator.create", { initiators });
    const [target] = await call("iscsi.target.query", [], {});
    const groups = target.groups.map((one: object) => ({ ...one, initiator: group.id }));
    await call("iscsi.target.update", 1, { groups });
  }

  /** Where the node's files are. */
  get directory(): string {
    return this.place.directory;
  }

  get host(): Host {
    return linuxHost({ root: this.directory });
  }

  /** Writes a file of the node. */
  async write(path: string, text: string, mode = 0o644): Promise<void> {
    await write(this.directory, path, text, mode);
  }

  async read(path: string): Promise<string> {
    return await Deno.readTextFile(`${this.directory}${path}`);
  }

  async remove(path: string): Promise<void> {
    await Deno.remove(`${this.directory}${path}`);
  }

  /** What a node calls itself. */
  async hostNqn(name = "pve1"): Promise<string> {
    return (await Deno.readTextFile(`${this.place.node(name).directory}/etc/nvme/hostnqn`)).trim();
  }

  /** As {@link hostNqn}, for iSCSI. */
  async initiator(name = "pve1"): Promise<string> {
    const path = `${this.place.node(name).directory}/etc/iscsi/initiatorname.iscsi`;
    return (await Deno.readTextFile(path)).trim().split("=")[1] ?? "";
  }

  /** Writes storage.cfg with these changes to the storage's section. */
  async writeCfg(change: Record<string, unknown> = {}): Promise<void> {
    await writeStorageCfg(this.place, { san: change });
  }

  /** Writes the configuration of the one guest. */
  async writeGuest(text: string): Promise<void> {
    await this.write("/etc/pve/nodes/pve1/qemu-server/100.conf", text);
  }

  /** Tells what pvestatd last saw. */
  async tellPve(seconds: number): Promise<void> {
    const line = `pve-storage-9.0/pve1/san:${Math.floor(seconds)}:100:10\n`;
    await this.write("/etc/pve/.rrd", line);
  }

  /** Changes what systemd says of a unit. */
  async unit(name: keyof typeof UNITS, active: string, enabled: string): Promise<void> {
    await this.write("/run/units", unitsText({ ...UNITS, [name]: [active, enabled] }));
  }

  /** A state in which all is well, as the daemon would tell it now. */
  stateNow(): State {
    const { ready } = this.place.simulator;
    const portals = this.place.transport === "iscsi" ? ready.portals.iscsi : ready.portals.nvme;
    const now = new Date().toISOString();
    return state({
      node: "pve1",
      time: now,
      daemon: { ...DAEMON, version: VERSION, startedAt: now },
      storages: [storage({
        transport: this.place.transport,
        dataset: ready.dataset,
        array: { ...LINK, since: now },
        portals: portals.map((address) => portal(address, { since: now })),
        disks: [],
      })],
    });
  }

  /** Plays the daemon: it tells {@link daemonState} to whoever asks. */
  async startDaemon(mode = 0o600): Promise<void> {
    const options = { mode, maxLine: 1 << 20, lineDeadlineMs: 5_000, maxConnections: 8, full: "" };
    this.#server = await this.host.serveLocal(DAEMON_SOCKET, options, async (line) => {
      if (!await line.take()) return;
      const { id } = JSON.parse(line.text ?? "{}");
      await line.answer(`${JSON.stringify({ id, ok: true, result: this.daemonState })}\n`);
    });
  }

  async stopDaemon(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
  }

  /** Lets the array do what its administrator would. */
  async administer(method: string, ...params: unknown[]): Promise<unknown> {
    return await this.place.array((nas) => nas.session.call(method, params, { lane: "write" }));
  }

  openDoctor(options: Partial<DoctorOptions> = {}): Doctor {
    return openDoctor({
      host: this.host,
      version: VERSION,
      shim: SHIM,
      limitLogins: false,
      ...options,
    });
  }

  async look(options: LookOptions = {}, how: Partial<DoctorOptions> = {}): Promise<Look> {
    const doctor = this.openDoctor(how);
    try {
      return await doctor.look(options);
    } finally {
      await doctor.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stopDaemon();
    await this.place[Symbol.asyncDispose]();
  }
}

async function write(root: string, path: string, text: string, mode = 0o644): Promise<void> {
  await Deno.mkdir(`${root}${path.slice(0, path.lastIndexOf("/"))}`, { recursive: true });
  await Deno.writeTextFile(`${root}${path}`, text, { mode });
  await Deno.chmod(`${root}${path}`, mode);
}

function unitsText(units: Readonly<Record<string, readonly string[]>>): string {
  return Object.entries(units).map(([name, [active, enabled]]) =>
    `Id=${name}\nActiveState=${active}\nUnitFileState=${enabled}\n`
  ).join("\n");
}

/** What an installation leaves on a node, and the programs that answer for it. */
async function setUpFiles(root: string): Promise<void> {
  const program = (text: string) => `#!/bin/sh\nroot=\${0%/usr/*}\n${text}\n`;
  await write(root, "/usr/local/bin/tnblock", program("exit 1"), 0o755);
  await write(root, "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm", SHIM);
  await write(
    root,
    "/usr/sbin/pvesm",
    program('cat "$root/run/pvesm"; cat "$root/run/pvesm.err" >&2'),
    0o755,
  );
  await write(root, "/run/pvesm", "APIVER 13\nAPIAGE 4\n");
  await write(root, "/run/pvesm.err", "");
  await write(root, "/usr/bin/systemctl", program('cat "$root/run/units"'), 0o755);
  await write(root, "/run/units", unitsText(UNITS));
  await write(root, "/usr/sbin/lvmconfig", program('cat "$root/run/lvm"'), 0o755);
  await write(root, "/run/lvm", LVM_CONFIG);
  await write(root, "/run/multipath", MULTIPATH_CONFIG);
  await Deno.rename(`${root}/usr/sbin/multipathd`, `${root}/usr/libexec-multipathd`).catch(
    () => {},
  );
  const multipathd = await Deno.readTextFile(`${root}/usr/libexec-multipathd`);
  await write(
    root,
    "/usr/sbin/multipathd",
    multipathd.replace(
      "\n",
      '\n[ "$*" = "show config" ] && exec cat "${0%/usr/*}/run/multipath"\n',
    ),
    0o755,
  );
}
