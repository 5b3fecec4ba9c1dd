/** What guests are called, and on which node they are, as pmxcfs shows it of all nodes. */
import type { Host } from "./host.ts";

/** A guest. */
export interface GuestName {
  readonly node: string;
  readonly kind: "qemu" | "lxc";
  /** Undefined when its configuration gives none, or cannot be read. */
  readonly name: string | undefined;
}

const NODES = "/etc/pve/nodes";
const FOLDERS = [["qemu-server", "qemu"], ["lxc", "lxc"]] as const;

/** Files read at a time: pmxcfs answers them one after another anyway. */
const AT_ONCE = 16;

/** Reads those of these guests that are there. Never throws: a guest that cannot be found has no entry. */
export async function guestNames(
  host: Host,
  vmids: ReadonlySet<number>,
): Promise<Map<number, GuestName>> {
  const tolerant = <T>(work: Promise<T | undefined>) => work.catch(() => undefined);
  const found = new Map<number, GuestName>();
  const left: { path: string; vmid: number; node: string; kind: "qemu" | "lxc" }[] = [];
  for (const node of await tolerant(host.files.list(NODES)) ?? []) {
    for (const [folder, kind] of FOLDERS) {
      for (const file of await tolerant(host.files.list(`${NODES}/${node}/${folder}`)) ?? []) {
        const vmid = Number(/^([1-9][0-9]{0,8})\.conf$/.exec(file)?.[1]);
        if (!vmids.has(vmid)) continue;
        left.push({ path: `${NODES}/${node}/${folder}/${file}`, vmid, node, kind });
      }
    }
  }
  const readSome = async () => {
    for (let guest = left.shift(); guest !== undefined; guest = left.shift()) {
      const { path, vmid, node, kind } = guest;
      const text = await tolerant(host.files.readText(path));
      found.set(vmid, { node, kind, name: text === undefined ? undefined : nameIn(text) });
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, readSome));
  return found;
}

/** A VM's `name` or a container's `hostname`, of the present configuration: sections follow it. */
function nameIn(text: string): string | undefined {
  const present = text.split(/^\[/m)[0] ?? "";
  return /^(?:name|hostname):[ \t]*(\S+)[ \t]*$/m.exec(present)?.[1];
}
