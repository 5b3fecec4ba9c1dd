/**
 * Runs the suites in tests/vm/ in the real-kernel VM.
 *
 *     deno task test:vm                 all of them, but for the slow ones
 *     deno task test:vm links nvme      those named
 *     deno task test:vm nvme --only a,b  of these, the cases whose name has "a" or "b" in it
 *     deno task test:vm --list          says which there are
 *
 * Without QEMU or root this fails rather than skips, unless TNBLOCK_SKIP_VM=1. The last line is
 * `vm: N passed, N failed`, and the status is 0 only when nothing failed.
 */

import { stopKernelArray } from "../tests/vm/support/kernel_array.ts";
import type { VmCase, VmSuite } from "../tests/vm/support/suite.ts";
import { Vm } from "../tests/vm/support/vm.ts";
import { installPackages } from "./vm/packages.ts";
import { bootMachine, ensureImage, type Machine } from "./vm/vm.ts";

const ROOT = new URL("../", import.meta.url).pathname;
const PRODUCT = `${ROOT}dist/tnblock`;
const SUITES = `${ROOT}tests/vm`;
/** Several times what the whole run takes on an idle machine of two cores, emulated. */
const LIFETIME_SECONDS = 7200;

const counts = { passed: 0, failed: 0 };
const onlyAt = Deno.args.indexOf("--only");
const only = onlyAt < 0 ? undefined : (Deno.args[onlyAt + 1] ?? "").split(",");
const named = onlyAt < 0 ? Deno.args : Deno.args.toSpliced(onlyAt, 2);

function say(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function loadSuites(): Promise<VmSuite[]> {
  const suites: VmSuite[] = [];
  for (const entry of [...Deno.readDirSync(SUITES)].toSorted(byName)) {
    if (!entry.name.endsWith("_suite.ts")) continue;
    const module = await import(`${SUITES}/${entry.name}`) as { suite: VmSuite };
    suites.push(module.suite);
  }
  return suites;
}

function byName(a: Deno.DirEntry, b: Deno.DirEntry): number {
  return a.name < b.name ? -1 : 1;
}

/** Compiles the product where its source is newer than the binary. */
async function buildProduct(): Promise<void> {
  if (newest(`${ROOT}src`) < modified(PRODUCT)) return;
  const { code } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "build"],
    cwd: ROOT,
    stdin: "null",
  }).output();
  if (code !== 0) throw new Error(`deno task build ended with status ${code}`);
}

function modified(path: string): number {
  try {
    return Deno.statSync(path).mtime?.getTime() ?? 0;
  } catch {
    return 0;
  }
}

function newest(folder: string): number {
  return Math.max(
    ...[...Deno.readDirSync(folder)].map((entry) =>
      entry.isDirectory ? newest(`${folder}/${entry.name}`) : modified(`${folder}/${entry.name}`)
    ),
    0,
  );
}

async function runSuite(suite: VmSuite, vm: Vm, secondVm: () => Promise<Vm>): Promise<void> {
  const usesProduct = suite.needsProduct === true;
  if (usesProduct) {
    await stopKernelArray(vm);
    await installProduct(vm);
  }
  for (const one of suite.cases) {
    if (only === undefined || only.some((text) => one.name.includes(text))) {
      await runCase(suite, one, vm, secondVm);
    }
  }
  if (usesProduct) await runCase(suite, REMOVAL, vm, secondVm);
}

async function runCase(
  suite: VmSuite,
  { name, run }: VmCase,
  vm: Vm,
  secondVm: () => Promise<Vm>,
): Promise<void> {
  const begun = Date.now();
  const notes: string[] = [];
  let failure: unknown;
  try {
    await run({ vm, secondVm, note: (line) => notes.push(line) });
    counts.passed++;
  } catch (error) {
    failure = error;
    counts.failed++;
  }
  const seconds = ((Date.now() - begun) / 1000).toFixed(1);
  say(`${failure === undefined ? "ok    " : "FAILED"} ${suite.name}: ${name} (${seconds} s)`);
  for (const note of notes) say(`         ${note.replaceAll("\n", "\n         ")}`);
  if (failure !== undefined) say(`       ${failure instanceof Error ? failure.stack : failure}`);
}

/**
 * From the guest's own disk the product starts in a tenth of the time. What stands in its place sets
 * the budget of logins aside, which a suite would use up; the shim clears the environment.
 */
async function installProduct(vm: Vm): Promise<void> {
  await vm.sh(`set -e
    cp /checkout/dist/tnblock /usr/local/lib/tnblock
    printf '%s\\n' '#!/bin/sh' 'TNBLOCK_LOGIN_BUDGET=0 exec /usr/local/lib/tnblock "$@"' >/usr/local/bin/tnblock
    chmod 755 /usr/local/bin/tnblock`);
}

/** Leaves the machine to the next suite as it was. */
const REMOVAL: VmCase = {
  name: "the product's mounts are not in use any more",
  run: async ({ vm }) => {
    await vm.sh(`set -e
      for mount in /dev/tnblock/.dev /dev/tnblock /run/tnblock/links; do
        ! mountpoint -q $mount || umount $mount
      done
      [ ! -e /dev/tnblock ] || rmdir /dev/tnblock
      rm -rf /run/tnblock /usr/local/bin/tnblock /usr/local/lib/tnblock`);
  },
};

/** Suites that ask for the same machine share one. */
async function runSuites(suites: readonly VmSuite[]): Promise<void> {
  const image = await ensureImage();
  const kinds = Map.groupBy(suites, (suite) => (suite.kernelArguments ?? []).join(" "));
  for (const [kernelArguments, group] of kinds) {
    const interruption = new AbortController();
    const machines: Machine[] = [];
    const boots: Promise<unknown>[] = [];
    const stopAll = async () => {
      // The second machine's wires end in the first.
      for (const machine of machines.toReversed()) await machine.stop();
    };
    const interrupted = () => {
      interruption.abort();
      // A machine that is booting is stopped by its own boot, which the signal ends.
      Promise.allSettled(boots).then(stopAll).then(() => Deno.exit(130));
    };
    for (const signal of ["SIGINT", "SIGTERM"] as const) {
      Deno.addSignalListener(signal, interrupted);
    }
    try {
      const boot = async (wiredTo?: Machine) => {
        const booting = bootMachine({
          image,
          lifetimeSeconds: LIFETIME_SECONDS,
          kernelArguments: kernelArguments === "" ? [] : kernelArguments.split(" "),
          signal: interruption.signal,
          ...wiredTo === undefined ? {} : { wiredTo },
        });
        boots.push(booting);
        const machine = await booting;
        machines.push(machine);
        return machine;
      };
      const vm = new Vm(await boot());
      let second: Promise<Vm> | undefined;
      const bootSecond = async () => {
        const other = new Vm(await boot(vm.machine), vm);
        await installProduct(other);
        return other;
      };
      for (const suite of group) await runSuite(suite, vm, () => second ??= bootSecond());
    } finally {
      for (const signal of ["SIGINT", "SIGTERM"] as const) {
        Deno.removeSignalListener(signal, interrupted);
      }
      await stopAll();
    }
  }
}

const all = await loadSuites();
if (named.includes("--list")) {
  for (const { name, cases } of all) say(`${name} (${cases.length} cases)`);
  Deno.exit(0);
}
if (Deno.env.get("TNBLOCK_SKIP_VM") === "1") {
  say("vm: skipped, because TNBLOCK_SKIP_VM=1");
  say("vm: 0 passed, 0 failed");
  Deno.exit(0);
}
const unknown = named.filter((name) => !all.some((suite) => suite.name === name));
try {
  if (unknown.length > 0) throw new Error(`There is no suite "${unknown.join('", "')}"`);
  if (Deno.uid() !== 0) {
    throw new Error("The VM needs root (TNBLOCK_SKIP_VM=1 leaves these tests out)");
  }
  const chosen = all.filter(({ name, isSlow }) =>
    named.length === 0 ? isSlow !== true : named.includes(name)
  );
  await installPackages();
  if (chosen.some(({ needsProduct }) => needsProduct === true)) await buildProduct();
  await runSuites(chosen);
} catch (error) {
  counts.failed++;
  say(`FAILED ${error instanceof Error ? error.message : error}`);
}
say(`vm: ${counts.passed} passed, ${counts.failed} failed`);
Deno.exit(counts.failed === 0 ? 0 : 1);
