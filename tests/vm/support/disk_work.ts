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

/** A guest that writes and reads back; begun by {@link beginWriting}. */
export interface Writing {
  /** How often it has read back all that it wrote. */
  rounds(): Promise<number>;
  /** Resolves when so many rounds more have ended, or it has failed. */
  more(count: number): Promise<void>;
  /** Has it end; fails where it has met an error, or read a wrong byte. */
  end(): Promise<void>;
}

/**
 * Has a process hold the disk open, write its beginning over and over, past every cache, and read back
 * all that it wrote. It ends at the first error and the first wrong byte.
 *
 * @param name of this one, where several write at once.
 */
export async function beginWriting(
  vm: Vm,
  path: string,
  mebibytes: number,
  { name = "writing", timeoutSeconds = 600 } = {},
): Promise<Writing> {
  const folder = `/run/${name}`;
  await vm.sh(`rm -rf ${folder}; mkdir ${folder}; touch ${folder}/rounds`);
  const writing = vm.sh(
    `exec 8<>${path}
    cd ${folder}
    until [ -e enough ]; do
      head -c ${mebibytes}M /dev/urandom >pattern
      dd if=pattern of=${path} bs=1M oflag=direct conv=nocreat,notrunc status=none || exit
      dd if=${path} bs=1M count=${mebibytes} iflag=direct,fullblock status=none |
        cmp - pattern || exit
      echo >>rounds
      # Leaves the emulated processors to the others for a moment.
      sleep 0.1
    done; rm pattern`,
    { timeoutSeconds },
  );
  let ended = false;
  const end = () => ended = true;
  writing.then(end, end);
  const rounds = async () => Number(await vm.sh(`wc -l <${folder}/rounds`));
  return {
    rounds,
    more: async (count) => {
      const wanted = await rounds() + count;
      while (!ended && await rounds() < wanted);
    },
    end: async () => {
      await vm.sh(`touch ${folder}/enough`);
      await writing;
    },
  };
}

/**
 * Does something while a disk is written and read back ({@link beginWriting}); one round at least begins and
 * ends after it. Fails at the first error and the first wrong byte.
 */
export async function whileWritten(
  vm: Vm,
  path: string,
  mebibytes: number,
  act: () => Promise<void>,
): Promise<void> {
  const writing = await beginWriting(vm, path, mebibytes);
  try {
    await writing.more(1);
    await act();
    // The first to end may have begun before.
    await writing.more(2);
  } finally {
    await writing.end();
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
