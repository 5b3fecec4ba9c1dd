/** What a guest does to its disk: writes and reads back, through the cache and past it, or has a file system. */

import { assertEquals } from "@std/assert";
import { MIB } from "./kernel_array.ts";
import type { Vm } from "./vm.ts";

/** A disk's size in bytes, as the next process that opens it finds it. */
export async function sizeOf(vm: Vm, path: string): Promise<number> {
  return Number(await vm.sh(`blockdev --getsize64 ${path}`));
}

/** SHA-256 of the beginning of a disk, as a program reads it that knows nothing of caches. */
export async function cachedHash(vm: Vm, path: string, mebibytes = 4): Promise<string> {
  return (await vm.sh(`head -c ${mebibytes}M ${path} | sha256sum`)).slice(0, 64);
}

/** SHA-256 of a whole disk, read past every cache. */
export async function wholeHash(vm: Vm, path: string): Promise<string> {
  return await vm.hash(path, await sizeOf(vm, path) / MIB);
}

/** Fills the last 4 MiB of a disk, and sees that they are there. */
export async function fillEnd(vm: Vm, path: string): Promise<void> {
  const seek = await sizeOf(vm, path) / MIB - 4;
  const copy = "bs=1M count=4 status=none";
  await vm.sh(`set -e; head -c 4M /dev/urandom >/run/end
    dd if=/run/end of=${path} ${copy} seek=${seek} oflag=direct conv=nocreat,notrunc
    dd if=${path} ${copy} skip=${seek} iflag=direct,fullblock | cmp - /run/end
    rm /run/end`);
}

/**
 * Does something while a process holds the disk open, writes its beginning over and over, past every
 * cache, and reads back all that it wrote; one round at least begins and ends after it. Fails at the
 * first error and the first wrong byte.
 */
export async function whileWritten(
  vm: Vm,
  path: string,
  mebibytes: number,
  act: () => Promise<void>,
): Promise<void> {
  await vm.sh("rm -f /run/enough /run/rounds; touch /run/rounds");
  const writing = vm.sh(
    `exec 8<>${path}
    until [ -e /run/enough ]; do
      head -c ${mebibytes}M /dev/urandom >/run/pattern
      dd if=/run/pattern of=${path} bs=1M oflag=direct conv=nocreat,notrunc status=none || exit
      dd if=${path} bs=1M count=${mebibytes} iflag=direct,fullblock status=none |
        cmp - /run/pattern || exit
      echo >>/run/rounds
      # Leaves the emulated processors to the others for a moment.
      sleep 0.1
    done; rm /run/pattern`,
    { timeoutSeconds: 600 },
  );
  let ended = false;
  const end = () => ended = true;
  writing.then(end, end);
  const rounds = async () => Number(await vm.sh("wc -l </run/rounds"));
  const more = async (count: number) => {
    const wanted = await rounds() + count;
    while (!ended && await rounds() < wanted);
  };
  try {
    await more(1);
    await act();
    // The first to end may have begun before.
    await more(2);
  } finally {
    await vm.sh("touch /run/enough");
    await writing;
  }
}

/** Does something while a process holds the disk open. */
export async function whileOpen(vm: Vm, path: string, act: () => Promise<void>): Promise<void> {
  await vm.sh(`rm -f /run/enough /run/open
    (exec 8<${path}; touch /run/open; until [ -e /run/enough ]; do sleep 0.05; done
      exec 8<&-; rm /run/open) >/dev/null 2>&1 </dev/null &`);
  await vm.until("[ -e /run/open ]");
  try {
    await act();
  } finally {
    await vm.sh("touch /run/enough");
    await vm.until("[ ! -e /run/open ]");
  }
}

/** Makes the file system of a container, mounts it, and puts files into it. */
export async function makeFileSystem(vm: Vm, path: string, folder: string): Promise<void> {
  await vm.sh(`set -e; mkdir -p ${folder}
    mkfs.ext4 -q -O mmp -E nodiscard ${path}
    mount ${path} ${folder}`);
}

/** Adds files to a folder; answers with the sum over all files in it. */
export async function addFiles(vm: Vm, folder: string, name: string): Promise<string> {
  await vm.sh(`set -e; mkdir ${folder}/${name}
    for number in $(seq 40); do head -c 100k /dev/urandom >${folder}/${name}/$number; done`);
  return await sumOfFiles(vm, folder);
}

/** A sum over the names and contents of all files in a folder. */
export async function sumOfFiles(vm: Vm, folder: string): Promise<string> {
  return await vm.sh(
    `cd ${folder} && find . -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum`,
  );
}

/** Sees that a file system that is not mounted has no error, once its journal is replayed as a mount does. */
export async function assertClean(vm: Vm, path: string): Promise<void> {
  const { status, stdout, stderr } = await vm.try(
    `e2fsck -E journal_only -p ${path} && e2fsck -fn ${path}`,
  );
  assertEquals(status, 0, `${stdout}${stderr}`);
}
