/** Installs the Debian packages of this machine that the test VM is built and run with; needs root. */

const PROGRAMS: Readonly<Record<string, string>> = {
  "qemu-system-x86_64": "qemu-system-x86",
  "mmdebstrap": "mmdebstrap",
  "mke2fs": "e2fsprogs",
  "busybox": "busybox-static",
  "cpio": "cpio",
  "modprobe": "kmod",
  "xz": "xz-utils",
  "zstd": "zstd",
};

/** The packages among those the VM needs whose programs are not on this machine. */
export function missingPackages(): string[] {
  const folders = [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"];
  return Object.entries(PROGRAMS)
    .filter(([program]) => !folders.some((folder) => exists(`${folder}/${program}`)))
    .map(([, name]) => name);
}

/** Installs what {@link missingPackages} names; throws when apt fails. */
export async function installPackages(): Promise<void> {
  const missing = missingPackages();
  if (missing.length === 0) return;
  await apt(["update", "-qq"]);
  await apt(["install", "-y", "-qq", "--no-install-recommends", ...missing]);
}

async function apt(args: string[]): Promise<void> {
  const { code } = await new Deno.Command("apt-get", {
    args,
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "null",
  }).output();
  if (code !== 0) throw new Error(`apt-get ${args[0]} ended with status ${code}`);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) await installPackages();
