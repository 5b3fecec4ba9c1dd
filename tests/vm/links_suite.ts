/**
 * How /dev/tnblock is kept (docs/kernel-facts.md): a program that opens a path with O_CREAT must get
 * the disk or fail at once. These cases prove the mechanism with the kernel alone; that the product
 * uses it is proven with the product.
 */

import { assertEquals, assertMatch } from "@std/assert";
import { awaitLink, nvmeConnect } from "./support/initiator.ts";
import { MIB, uuidOf, withKernelArray } from "./support/kernel_array.ts";
import type { VmSuite } from "./support/suite.ts";
import { PORTALS, type Vm } from "./support/vm.ts";

const ZVOL = "tank/pve/vm-100-disk-0";

/** The three mounts: the links' own file system, a read-only view of it, and one of /dev in that. */
const MOUNT = `set -e
  mkdir -p /run/tnblock/links /dev/tnblock
  mount -t tmpfs -o nosuid,nodev,noexec,mode=755,size=1m,nr_inodes=20000 tnblock /run/tnblock/links
  mount --make-private /run/tnblock/links
  mkdir -p /run/tnblock/links/.dev /run/tnblock/links/san
  mount --bind -o ro /run/tnblock/links /dev/tnblock
  mount --bind -o ro --make-private /dev /dev/tnblock/.dev`;
const UNMOUNT = `umount /dev/tnblock/.dev && umount /dev/tnblock && umount /run/tnblock/links &&
  rmdir /dev/tnblock && rm -rf /run/tnblock`;

/** Ways in which programs make what is not there; each must either use the disk or fail. */
const WRITERS: Readonly<Record<string, string>> = {
  "open O_CREAT|O_RDWR": openWith("O_CREAT|O_RDWR"),
  "open O_CREAT|O_TRUNC|O_WRONLY": openWith("O_CREAT|O_TRUNC|O_WRONLY"),
  "open O_CREAT|O_EXCL|O_RDWR": openWith("O_CREAT|O_EXCL|O_RDWR"),
  "open O_CREAT|O_RDONLY": openWith("O_CREAT|O_RDONLY"),
  "dd": "dd if=/root/random of=$path bs=64k count=4",
  "dd direct": "dd if=/root/random of=$path bs=64k count=4 conv=notrunc oflag=direct",
  "qemu-img create": "qemu-img create -q -f raw $path 64M",
  "qemu-img convert": "qemu-img convert -O raw /root/random $path",
  "qemu-img convert -n": "qemu-img convert -n -O raw /root/random $path",
  "qemu-io write": "qemu-io -f raw -c 'write 0 64k' $path | grep -q wrote",
  "shell redirection": "cat /root/random >$path",
  "cp": "cp /root/random $path",
};

function openWith(flags: string): string {
  return `perl -MFcntl -e 'sysopen(my $file, $ARGV[0], ${flags}) or die "$!\\n"' $path`;
}

/** Runs every writer on a path; answers with the names of those that succeeded. */
async function writersThatSucceed(vm: Vm, path: string): Promise<string[]> {
  const runs = Object.entries(WRITERS).map(([name, command]) =>
    `if (${command}) >/dev/null 2>&1; then echo '${name}'; fi`
  );
  const output = await vm.sh(`head -c 1M /dev/urandom >/root/random; path=${path}
    ${runs.join("\n")}
    rm /root/random`);
  return output === "" ? [] : output.split("\n");
}

/** Regular files in every writable place that a path below /dev/tnblock could lead to. */
function strayFiles(vm: Vm): Promise<string> {
  return vm.sh("find /dev /run/tnblock/links -xdev -type f");
}

async function withMounts(vm: Vm, run: () => Promise<void>): Promise<void> {
  await vm.sh(MOUNT);
  try {
    await run();
  } finally {
    await vm.sh(UNMOUNT);
  }
}

export const suite: VmSuite = {
  name: "links",
  cases: [
    {
      name: "a link through the view leads every program to the disk",
      run: ({ vm }) =>
        withKernelArray(vm, async (array) => {
          await array.createZvol(ZVOL);
          await array.offer({ namespaces: { 7: ZVOL } });
          await nvmeConnect(vm, PORTALS[0]);
          const disk = `nvme-uuid.${uuidOf(ZVOL)}`;
          await awaitLink(vm, disk);
          await withMounts(vm, async () => {
            await vm.sh(`ln -s ../.dev/disk/by-id/${disk} /run/tnblock/links/san/volume`);
            const path = "/dev/tnblock/san/volume";
            // O_EXCL asks for a new file, and there is one.
            const expected = Object.keys(WRITERS).filter((name) => !name.includes("O_EXCL"));
            assertEquals(await writersThatSucceed(vm, path), expected);
            assertEquals(await vm.sh(`blockdev --getsize64 ${path}`), String(64 * MIB));
            assertEquals(
              await vm.sh(`stat -L -c %t:%T:%i ${path}`),
              await vm.sh(`stat -L -c %t:%T:%i /dev/disk/by-id/${disk}`),
              "it is the very node of /dev, which /proc/locks names by its inode",
            );
            assertMatch(await vm.sh(`readlink -f ${path}`), /^\/dev\/tnblock\/\.dev\/nvme\d+n\d+$/);
          });
        }),
    },
    {
      name: "no program makes a file where a link is missing, dangles, or udev's own link dangles",
      run: ({ vm }) =>
        withMounts(vm, async () => {
          await vm.sh(`set -e; mkdir -p /dev/disk/by-id; cd /run/tnblock/links/san
            ln -s ../.dev/disk/by-id/nvme-uuid.gone dangling
            ln -s ../../nvme7n7 /dev/disk/by-id/nvme-uuid.going
            ln -s ../.dev/disk/by-id/nvme-uuid.going going
            ln -s ../.dev/absent/by-id/x no-folder`);
          try {
            const before = await strayFiles(vm);
            for (const name of ["missing", "dangling", "going", "no-folder", "no-storage/x"]) {
              const path = `/dev/tnblock/san/${name}`.replace("san/no-storage", "no-storage");
              assertEquals(await writersThatSucceed(vm, path), [], name);
            }
            assertEquals(await strayFiles(vm), before);
          } finally {
            await vm.sh("rm /dev/disk/by-id/nvme-uuid.going");
          }
        }),
    },
    {
      name: "without the views the same programs make files on the system's own /dev",
      async run({ vm, note }) {
        await vm.sh(`set -e; mkdir -p /dev/disk/by-id /run/plain; cd /run/plain
          ln -s /dev/disk/by-id/nvme-uuid.gone dangling
          mkdir -p /dev/near/.by-id; mount --bind -o ro /dev/disk/by-id /dev/near/.by-id
          ln -s ../../nvme7n7 /dev/disk/by-id/nvme-uuid.going; ln -s .by-id/nvme-uuid.going /dev/near/going
          mkdir /run/small; mount -t tmpfs -o size=4k small /run/small
          mkdir /run/full; mount -t tmpfs -o nr_inodes=3 full /run/full; ln -s x /run/full/1; ln -s x /run/full/2`);
        const made = async (path: string, file: string) =>
          (await vm.try(`path=${path}; ${WRITERS["open O_CREAT|O_RDWR"]}; [ -f ${file} ]`))
            .status === 0;
        const results = {
          "a link straight to /dev/disk/by-id, dangling": await made(
            "/run/plain/dangling",
            "/dev/disk/by-id/nvme-uuid.gone",
          ),
          "only /dev/disk/by-id bound read-only, udev's link dangling": await made(
            "/dev/near/going",
            "/dev/nvme7n7",
          ),
          "tmpfs with size=4k": await made("/run/small/x", "/run/small/x"),
          "tmpfs with nr_inodes used up": await made("/run/full/x", "/run/full/x"),
          "the same after one link was removed":
            (await vm.sh("rm /run/full/1"), await made("/run/full/x", "/run/full/x")),
        };
        await vm.sh(`rm /dev/disk/by-id/nvme-uuid.gone /dev/disk/by-id/nvme-uuid.going /dev/nvme7n7
          umount /dev/near/.by-id /run/small /run/full; rm -r /dev/near /run/plain /run/small /run/full`);
        for (const [way, file] of Object.entries(results)) {
          note(`${way}: O_CREAT ${file ? "made a regular file" : "failed"}`);
        }
        assertEquals(Object.values(results), [true, true, true, false, true]);
      },
    },
    {
      name:
        "other mount namespaces have both views too, read-only, and later mounts are not doubled",
      async run({ vm }) {
        // Systemd makes every mount shared; services with a namespace of their own are slaves of it.
        await vm.sh(`mount --make-rshared /
          unshare --mount --propagation slave sleep 600 >/dev/null 2>&1 & echo $! >/run/other.pid
          until [ "$(readlink /proc/$!/ns/mnt)" != "$(readlink /proc/self/ns/mnt)" ]; do sleep 0.05; done`);
        await withMounts(vm, async () => {
          const mounts = (pid: string) =>
            vm.sh(`awk '$5 ~ "^/dev/tnblock" {print $5, substr($6, 1, 2)}' /proc/${pid}/mountinfo`);
          const expected = "/dev/tnblock ro\n/dev/tnblock/.dev ro";
          assertEquals(await mounts("self"), expected);
          assertEquals(await mounts("$(cat /run/other.pid)"), expected);
          await vm.sh("mkdir /dev/later && mount -t tmpfs later /dev/later");
          assertEquals(await vm.sh("grep -c later /proc/self/mountinfo"), "1");
          await vm.sh("umount /dev/later && rmdir /dev/later");
        });
        await vm.sh("kill $(cat /run/other.pid); rm /run/other.pid; mount --make-rprivate /");
      },
    },
  ],
};
