/** The whole story of a volume through the Perl shim, as PVE tells it. */

import { assertEquals, assertMatch } from "@std/assert";
import { withoutWeight } from "../../support/place.ts";
import { MIB } from "./kernel_array.ts";
import { type Node, SIZE_KIB } from "./node.ts";
import { PORTALS } from "./vm.ts";

/** Two disks are made, written while a path is lost and comes back, read, and freed; nothing is left of them. */
export async function wholeStory(node: Node): Promise<void> {
  const { vm } = node;
  await node.perl("activate_storage");
  const first = await perlDisk(node);
  const sum = await vm.sh(
    `rm -f /run/one-path /run/both-paths /run/enough
    head -c 64M /dev/urandom >/data/story; sha256sum </data/story`,
  );
  // The writer waits for its input at two places, so that each part meets the paths it is for.
  const writing = vm.sh(
    `set -o pipefail
    { head -c 8M; until [ -e /run/one-path ]; do sleep 0.05; done
      head -c 16M; until [ -e /run/both-paths ]; do sleep 0.05; done; cat; } </data/story |
    dd of=${first.path} bs=1M iflag=fullblock oflag=direct conv=nocreat,notrunc status=none`,
    { timeoutSeconds: 300 },
  );
  writing.catch(() => {}); // Said where it is awaited.
  const written = (mebibytes: number) =>
    vm.until(
      `[ "$(awk '/^pos/ { print $2 }' /proc/$(pidof -s dd)/fdinfo/1)" -ge ${mebibytes * MIB} ]`,
      120,
    );
  await written(8);
  await vm.linkDown(PORTALS[1]);
  await vm.sh("touch /run/one-path");
  await written(24);
  await vm.linkUp(PORTALS[1]);
  await vm.sh("touch /run/both-paths");
  await writing;
  assertEquals(
    await vm.sh(
      `dd if=${first.path} bs=1M count=64 iflag=direct,fullblock status=none | sha256sum`,
      { timeoutSeconds: 300 },
    ),
    sum,
  );

  const second = await perlDisk(node);
  const busy = vm.sh(
    `until [ -e /run/enough ]; do
      dd if=/data/story of=${second.path} bs=1M oflag=direct conv=nocreat,notrunc status=none || exit
    done`,
    { timeoutSeconds: 300 },
  );
  busy.catch(() => {});
  await written(2);
  await node.perl("deactivate_volume", { volname: first.volname });
  assertEquals((await vm.try(`[ -e ${first.path} ]`)).status, 1);
  await vm.sh("touch /run/enough");
  await busy;
  assertEquals(await vm.hash(second.path, 64), sum.slice(0, 64));

  for (const { volname } of [first, second]) await node.perl("free_image", { volname });
  await vm.sh("rm /data/story");
  // The target's weight stays, and belongs to no guest.
  const objects = withoutWeight(
    await node.control("GET", "/objects") as Record<string, unknown[]>,
  );
  for (const kind of ["zvols", "snapshots", "extents", "mappings", "namespaces"]) {
    assertEquals([kind, objects[kind]], [kind, []]);
  }
  await vm.until("! ls /sys/block | grep -qE '^(sd|dm-|nvme[0-9]+n)'");
  assertEquals(await vm.sh("ls -A /dev/tnblock/san"), "");
}

/** A new disk that is active, all through the Perl shim. */
async function perlDisk(node: Node): Promise<{ volname: string; path: string }> {
  const volname = String(
    await node.perl("alloc_image", { vmid: 100, format: "raw", sizeKiB: SIZE_KIB }),
  );
  assertMatch(volname, /^vol-vm-100-disk-\d+-(lun\d+|ns[0-9a-f-]{36})$/);
  await node.perl("activate_volume", { volname });
  const [path = ""] = await node.perl("path", { volname }) as string[];
  return { volname, path };
}
