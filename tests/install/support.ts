/** A folder that stands for a Proxmox VE node, its programs small stand-ins that write down how they were called. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type Host, HostError } from "../../src/host/host.ts";
import { linuxHost, linuxPrograms } from "../../src/host/linux.ts";
import type { Programs } from "../../src/host/programs.ts";
import { COMPLETION_FILES } from "../../src/install/places.ts";
import type { InstallOptions, InstallWorld } from "../../src/install/world.ts";
import { scratchBase } from "../support/scratch.ts";

/** The beginning of each: writes down the call, and fails where a test wants it. */
const HEAD = `#!/bin/sh
root=\${0%/usr/*bin/*}
name=\${0##*/}
printf '%s\\n' "$name $*" >>"$root/calls"
if [ -f "$root/stub/fail" ]; then
  while read -r pattern; do
    case "$name $*" in $pattern) echo "planted: $name failed" >&2; exit 1;; esac
  done <"$root/stub/fail"
fi
shim=$root/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm
`;

const STUBS: Readonly<Record<string, string>> = {
  "/usr/bin/getconf": "echo 'glibc 2.41'",
  "/usr/bin/uname": "echo x86_64",
  "/usr/bin/udevadm": "",
  "/usr/sbin/multipathd": "",
  "/usr/sbin/pvesm": `case "$1" in
  apiinfo) printf 'APIVER 13\\nAPIAGE 4\\n';;
  status) printf 'Name Type Status\\nlocal dir active\\n'
    [ -f "$shim" ] && [ -f "$root/stub/loses" ] || echo 'backup pbs inactive';;
esac`,
  "/usr/bin/perl": `case "$2" in
  -e) [ -f "$shim" ] && echo loaded || { echo "unknown section type 'tnblock'" >&2; exit 2; };;
esac`,
  "/usr/bin/systemctl": `units=$root/etc/systemd/system
case "$1" in
  is-enabled) [ -f "$root/stub/enabled" ];;
  is-active) [ -f "$root/stub/active" ];;
  enable) [ -f "$units/tnblock.service" ] || { echo 'no such unit' >&2; exit 1; }
    : >"$root/stub/enabled"; : >"$root/stub/active";;
  restart) [ -f "$units/tnblock.service" ] || { echo 'no such unit' >&2; exit 1; }
    : >"$root/stub/active";;
  disable) [ -f "$units/tnblock.service" ] || { echo 'no such unit' >&2; exit 1; }
    rm -f "$root/stub/enabled" "$root/stub/active";;
esac`,
  // The last value in lvm.conf and lvmlocal.conf; a value may go over several lines.
  "/usr/sbin/lvmconfig": `case "$*" in
  *use_devicesfile) [ -f "$root/etc/lvm/devices/system.devices" ] && echo use_devicesfile=1 || echo use_devicesfile=0
    exit 0;;
esac
folder=$root\${LVM_SYSTEM_DIR:-/etc/lvm}
cat "$folder/lvm.conf" "$folder/lvmlocal.conf" 2>/dev/null | awk '
  /^[ \\t]*#/ { next }
  /global_filter *= *\\[/ { value = ""; on = 1 }
  on { line = $0; sub(/^.*global_filter *= */, "", line); gsub(/^[ \\t]+|[ \\t]+$/, "", line); value = value line }
  on && /\\][ \\t]*$/ { on = 0; last = value }
  END { if (last == "") exit 1; print "global_filter=" last }
' || { echo 'Configuration node devices/global_filter not found' >&2; exit 5; }`,
  "/usr/sbin/pvs":
    `[ -f "$root/stub/pvs" ] && cat "$root/stub/pvs" || echo '{"report":[{"pv":[]}]}'`,
  "/usr/sbin/lvs":
    `[ -f "$root/stub/lvs" ] && cat "$root/stub/lvs" || echo '{"report":[{"lv":[]}]}'`,
};

/** As pve-manager leaves it. */
export const PVE_LVM_CONF = `config { checks = 1 }
devices {
     # added by pve-manager to avoid scanning ZFS zvols and Ceph rbds
     global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]
}
`;

/** Nothing left out. */
export const EVERYTHING: InstallOptions = {
  ...{ lvmFilter: true, multipath: true, nvmeRule: true, allowOlder: false },
};

/** A node that something is installed on. */
export class InstallNode {
  readonly told: string[] = [];
  constructor(readonly directory: string, readonly name = "pve1") {}

  host(): Host {
    return linuxHost({ root: this.directory, nodeName: this.name });
  }

  /** What install works with; `version` is that of the program that runs, undefined that of the source. */
  world(version: string | undefined, change: Partial<InstallWorld> = {}): InstallWorld {
    const executable = version === undefined ? undefined : join(this.directory, `stub/${version}`);
    return {
      host: this.host(),
      programs: linuxPrograms({ root: this.directory, executable }),
      ...{ version: version ?? "0.0.0", isRoot: true, platform: "linux" },
      completions: { [COMPLETION_FILES.bash]: `# of ${version}\n` },
      tell: (line) => void this.told.push(line),
      ...change,
    };
  }

  async write(path: string, text: string, mode = 0o644): Promise<void> {
    await mkdir(dirname(join(this.directory, path)), { recursive: true });
    await writeFile(join(this.directory, path), text, { mode });
  }

  async read(path: string): Promise<string | undefined> {
    return await readFile(join(this.directory, path), "utf8").catch(() => undefined);
  }

  async remove(path: string): Promise<void> {
    await rm(join(this.directory, path), { force: true });
  }

  /** Programs whose call matches one of these shell patterns fail. */
  async plant(...patterns: string[]): Promise<void> {
    if (patterns.length === 0) await this.remove("/stub/fail");
    else await this.write("/stub/fail", `${patterns.join("\n")}\n`);
  }

  /** How programs were called since the last time. */
  async calls(): Promise<string[]> {
    const text = await this.read("/calls") ?? "";
    await this.remove("/calls");
    return text.split("\n").filter((line) => line !== "");
  }

  /** Every file with its mode and what is in it; nothing of what passes with a boot. */
  async snapshot(): Promise<Record<string, string>> {
    const found: Record<string, string> = {};
    const walk = async (path: string): Promise<void> => {
      for (const entry of await readdir(join(this.directory, path), { withFileTypes: true })) {
        const inner = `${path}/${entry.name}`;
        if (inner === "/run" || inner === "/calls" || inner === "/stub/fail") continue;
        if (entry.isDirectory()) await walk(inner);
        else {
          const { mode } = await stat(join(this.directory, inner));
          const digest = createHash("sha256").update(await readFile(join(this.directory, inner)));
          found[inner] = `${(mode & 0o7777).toString(8)} ${digest.digest("hex").slice(0, 16)}`;
        }
      }
    };
    await walk("");
    return found;
  }
}

/** A program that says its version and nothing else. */
export function programText(version: string): string {
  return `#!/bin/sh\ncase "$1" in version) echo '{"version":"${version}"}';; esac\n`;
}

const BUN = new URL("../../node_modules/.bin/bun", import.meta.url).pathname;
const MAIN = new URL("install_program.ts", import.meta.url).pathname;

/** A stand-in of the compiled program: it says its version by itself, and is this source for all else. */
export function programOf(version: string): string {
  return `#!/bin/sh
case "$1" in version) echo '{"version":"${version}"}'; exit 0;; esac
exec '${BUN}' --no-env-file run '${MAIN}' "$0" ${version} "$@"
`;
}

/** Lays a node out in a folder. */
export async function makeNode(directory: string, name = "pve1"): Promise<InstallNode> {
  const node = new InstallNode(directory, name);
  for (const [path, body] of Object.entries(STUBS)) await node.write(path, HEAD + body, 0o755);
  for (const version of ["0.1.0", "0.2.0", "0.3.0"]) {
    await node.write(`/stub/${version}`, programText(version), 0o755);
  }
  await node.write("/etc/lvm/lvm.conf", PVE_LVM_CONF);
  await node.write("/etc/lvm/lvmlocal.conf", "# This is a local configuration file\nlocal {\n}\n");
  await node.write("/etc/hostname", `${name}\n`);
  await node.write("/etc/pve/.members", JSON.stringify({ nodename: name, version: 1 }));
  await node.write("/etc/pve/storage.cfg", "dir: local\n\tpath /var/lib/vz\n");
  return node;
}

/** Runs a test with a node where nothing of ours is. */
export async function withInstallNode(test: (node: InstallNode) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(scratchBase(), "tnblock-install-"));
  try {
    await test(await makeNode(directory));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** How a node fails: the nth operation alone, or, as after a kill, it and all that would follow. */
export interface Trouble {
  at: number;
  readonly kind: "fails" | "killed";
  /** The operations that were begun; below `at` nothing has failed. */
  count: number;
}

/** The same world, with trouble at one of the operations that change something or run a program. */
export function troubled(world: InstallWorld, trouble: Trouble): InstallWorld {
  const passing = async <T>(what: string, work: () => Promise<T>): Promise<T> => {
    trouble.count++;
    const isHit = trouble.kind === "fails"
      ? trouble.count === trouble.at
      : trouble.count >= trouble.at;
    if (isHit) throw new HostError("EIO", `planted: ${what}`);
    return await work();
  };
  const { host, programs } = world;
  const files: Host["files"] = {
    ...host.files,
    replaceText: (path, ...rest) =>
      passing(`write ${path}`, () => host.files.replaceText(path, ...rest)),
    remove: (path, ...rest) => passing(`remove ${path}`, () => host.files.remove(path, ...rest)),
  };
  const own = programs.own;
  const troubledPrograms: Programs = {
    digest: (path) => programs.digest(path),
    copy: (from, to, mode) => passing(`copy ${to}`, () => programs.copy(from, to, mode)),
    own: own === undefined ? undefined : {
      digest: () => own.digest(),
      copyTo: (path, mode) => passing(`copy ${path}`, () => own.copyTo(path, mode)),
    },
  };
  const run: Host["run"] = (program, args, options) =>
    passing(`run ${program}`, () => host.run(program, args, options));
  return { ...world, host: { ...host, files, run }, programs: troubledPrograms };
}
