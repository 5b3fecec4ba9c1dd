/** Limits of the kernel that take minutes to reach; run by name only (docs/kernel-facts.md). */

import { assertMatch } from "@std/assert";
import { withKernelArray } from "./support/kernel_array.ts";
import type { VmSuite } from "./support/suite.ts";

export const suite: VmSuite = {
  name: "limits",
  isSlow: true,
  cases: [
    {
      name: "the 1,025th namespace of a subsystem is refused by the kernel",
      run: ({ vm, note }) =>
        withKernelArray(vm, async () => {
          const folder = "/sys/kernel/config/nvmet/subsystems/nqn.2001-01.example:full";
          const refused = await vm.sh(
            `mkdir ${folder}; truncate -s 1M /run/tiny; cd ${folder}/namespaces
            for n in $(seq 1 1030); do
              mkdir $n; echo -n /run/tiny >$n/device_path
              echo 1 2>/run/why >$n/enable || { echo "$n $(sed 's/.*: //' /run/why)"; break; }
            done
            for n in *; do echo 0 >$n/enable; rmdir $n; done; rmdir ${folder}; rm /run/tiny /run/why`,
            {
              timeoutSeconds: 300,
            },
          );
          note(`first refused: ${refused}`);
          assertMatch(refused, /^1025 /);
        }),
    },
  ],
};
