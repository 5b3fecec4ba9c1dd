/**
 * A VM to try things in by hand:
 *
 *     deno run -A scripts/vm/run_vm.ts              boots, says the agent's port, waits for Ctrl-C
 *     deno run -A scripts/vm/run_vm.ts 'COMMANDS'   boots, runs them, ends
 *     deno run -A scripts/vm/run_vm.ts --port PORT 'COMMANDS'   in a VM that runs already
 */

import { runInVm, type ShellResult } from "./agent.ts";
import { installPackages } from "./packages.ts";
import { bootMachine, ensureImage } from "./vm.ts";

const SECONDS = 1200;

function show(result: ShellResult): number {
  Deno.stdout.writeSync(new TextEncoder().encode(result.stdout));
  Deno.stderr.writeSync(new TextEncoder().encode(result.stderr));
  return result.status;
}

const [first, second, third] = Deno.args;
if (first === "--port") {
  Deno.exit(show(await runInVm(Number(second), third ?? "true", SECONDS)));
}
await installPackages();
const machine = await bootMachine({ image: await ensureImage(), lifetimeSeconds: 7200 });
if (first === undefined) {
  const line = `agent port ${machine.agentPort}, port 7001 is ${machine.forwardedPort}, ` +
    `shared folder ${machine.sharedFolder}\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(line));
  await new Promise<void>((resolve) => {
    Deno.addSignalListener("SIGINT", resolve);
    Deno.addSignalListener("SIGTERM", resolve);
  });
}
const status = first === undefined
  ? 0
  : show(await machine.shell(first, { timeoutSeconds: SECONDS }));
await machine.stop();
Deno.exit(status);
