/** `tnblock version`: what this program is and what it is built from. */
import manifest from "../../deno.json" with { type: "json" };
import type { CommandContext } from "./framework.ts";

// Set by scripts/build.ts; absent when the source runs as it is.
declare const TNBLOCK_BUILD_TARGET: string | undefined;
declare const TNBLOCK_BUILD_COMMIT: string | undefined;

/** The version of tnblock. */
export const VERSION: string = manifest.version;

/** What `version` tells. */
export function versionFacts(): Record<string, string> {
  const runtimes = process.versions as Readonly<Record<string, string | undefined>>;
  const runtime = ["bun", "deno", "node"].find((name) => runtimes[name] !== undefined) ?? "unknown";
  return {
    version: VERSION,
    commit: typeof TNBLOCK_BUILD_COMMIT === "undefined" ? "source" : TNBLOCK_BUILD_COMMIT,
    target: typeof TNBLOCK_BUILD_TARGET === "undefined" ? "source" : TNBLOCK_BUILD_TARGET,
    runtime: `${runtime} ${runtimes[runtime] ?? ""}`.trim(),
    protocol: "1",
    pveApi: "11 to 16",
    trueNas: "25.04, 25.10, 26",
  };
}

/** Prints the facts, the notices of everything that the binary contains, or the Perl shim in it. */
export async function runVersion(
  context: CommandContext,
  options: { readonly json: boolean; readonly licenses: boolean; readonly shim: boolean },
): Promise<void> {
  if (options.licenses) {
    const { LICENSES } = await import("./licenses.ts");
    context.out(LICENSES);
    return;
  }
  if (options.shim) {
    const { SHIM } = await import("../pve/shim/shim.ts");
    context.out(SHIM);
    return;
  }
  const facts = versionFacts();
  if (options.json) {
    context.out(JSON.stringify({ schemaVersion: 1, ...facts }, null, 2) + "\n");
    return;
  }
  context.out(
    `tnblock ${facts.version} (commit ${facts.commit}, target ${facts.target}, ${facts.runtime})\n` +
      `Proxmox VE storage API ${facts.pveApi}; TrueNAS ${facts.trueNas}; hook protocol ${facts.protocol}\n`,
  );
}
