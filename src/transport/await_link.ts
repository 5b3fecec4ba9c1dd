/** Waiting for udev: the identity-named link of a disk that sysfs already shows. */
import type { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { UDEV_LINK_MS } from "../common/timing.ts";
import type { Host } from "../host/host.ts";
import { waitUntil } from "../host/wait_until.ts";

/** Device nodes, any of which will do; undefined for one that the kernel has not named yet. */
type Nodes = string | undefined | readonly (string | undefined)[];

/**
 * Waits until the link resolves to one of the nodes. udev renames its links into place: once one
 * resolves it is complete.
 *
 * @param nodes asked for at each look where they may change meanwhile.
 * @returns the node that it resolves to.
 * @throws TnblockError `host-fault` when udev is late.
 */
export async function awaitLink(
  host: Host,
  link: string,
  nodes: Nodes | (() => Promise<Nodes>),
  deadline: Deadline,
): Promise<string> {
  let wanted: readonly (string | undefined)[] = [];
  const linked = await waitUntil(host, deadline.bounds(UDEV_LINK_MS), async () => {
    wanted = [typeof nodes === "function" ? await nodes() : nodes].flat();
    const node = await host.files.resolve(link);
    return node !== undefined && wanted.includes(node) ? node : undefined;
  });
  if (linked !== undefined) return linked.value;
  const names = wanted.join(", ");
  throw new TnblockError(
    "host-fault",
    `Cannot use the disk ${names}: udev has not made ${link} in ${UDEV_LINK_MS / 1000} s`,
    {
      hint: `Look at: systemctl status systemd-udevd, and udevadm info ${names}`,
    },
  );
}
