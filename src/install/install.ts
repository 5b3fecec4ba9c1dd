/** `tnblock install`, `install --roll-back` and `uninstall` on one node: look, plan, and do. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { readCluster } from "../pve/cluster.ts";
import { carryOut, type Outcome } from "./carry_out.ts";
import { type NodeFacts, readFacts } from "./facts.ts";
import type { Plan } from "./plan.ts";
import { planInstall, planRollBack } from "./plan_install.ts";
import { planUninstall } from "./plan_uninstall.ts";
import { checkNode } from "./requirements.ts";
import type { InstallOptions, InstallWorld } from "./world.ts";

/** As long is one waited for that ends because its ssh was cut: it puts everything back first. */
const TURN_MS = 15_000;

/** Milliseconds for which a plan is taken for that of the node as it is. */
const FRESH_MS = 2_000;

const SECRETS_FOLDER = "/etc/pve/priv/storage";

/** What is planned, and the way to do it. */
export interface Prepared {
  readonly facts: NodeFacts;
  readonly plan: Plan;
  readonly carryOut: () => Promise<Outcome>;
}

/** In words, for what is refused. */
const DOING: Readonly<Record<Plan["kind"], string>> = {
  "install": "Cannot install tnblock",
  "roll-back": "Cannot roll tnblock back",
  "uninstall": "Cannot uninstall tnblock",
};

/**
 * Makes the plan and hands it to `decide`, which shows it, asks, and has it done or not. Nobody else installs
 * on this node meanwhile.
 *
 * @throws TnblockError `busy` when somebody does.
 */
export async function prepare<T>(
  world: InstallWorld,
  kind: Plan["kind"],
  options: InstallOptions,
  decide: (prepared: Prepared) => Promise<T>,
): Promise<T> {
  const doing = DOING[kind];
  await checkNode(world, doing);
  // An empty /etc/pve holds no storage either: who removes the plugin must know that there are none.
  if (kind === "uninstall") await readCluster(world.host);
  const release = await attempt(
    doing,
    () => world.host.lock("install", { deadlineMs: world.turnMs ?? TURN_MS }),
  );
  try {
    const { facts, plan } = await look(world, kind, options);
    const seenAt = world.host.monotonicMs();
    return await decide({
      facts,
      plan,
      async carryOut() {
        if (world.host.monotonicMs() - seenAt < FRESH_MS) return await carryOut(world, facts, plan);
        // Who was asked may have thought about it for an hour.
        const now = await look(world, kind, options);
        if (JSON.stringify(now.plan) === JSON.stringify(plan)) {
          return await carryOut(world, now.facts, now.plan);
        }
        throw new TnblockError("busy", "Cannot go on: the node has changed since this was shown", {
          hint: "Run the same again",
        });
      },
    });
  } finally {
    release();
  }
}

async function look(
  world: InstallWorld,
  kind: Plan["kind"],
  options: InstallOptions,
): Promise<{ facts: NodeFacts; plan: Plan }> {
  const facts = await readFacts(world, kind === "install" && options.lvmFilter);
  switch (kind) {
    case "install":
      return { facts, plan: planInstall(facts, world, options) };
    case "roll-back":
      return { facts, plan: planRollBack(facts) };
    case "uninstall":
      return { facts, plan: planUninstall(facts) };
  }
}

/** Removes the secrets of our storages, none of which is left; the paths of what was removed. */
export async function removeSecrets({ host }: InstallWorld): Promise<string[]> {
  return await attempt("Cannot remove the secrets", async () => {
    const names = (await host.files.list(SECRETS_FOLDER) ?? []).filter((name) =>
      name.endsWith(".tnblock")
    );
    for (const name of names) await host.files.remove(`${SECRETS_FOLDER}/${name}`);
    return names.map((name) => `${SECRETS_FOLDER}/${name}`);
  });
}
