/**
 * Gathers the licence notices of what the binary bundles into `src/cli/licenses.txt`, which
 * `tnblock version --licenses` prints. Written anew at each build; committed so that the source runs
 * without a build.
 */

/** What ends up in the binary: the runtime dependencies with all they import, and the runtime itself. */
const BUNDLED = ["commander", "valibot", "ws", "selfsigned", "@clack/prompts", "@bomb.sh/tab"];

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** The packages with everything they depend on, each once, by name. */
async function closure(modules: string): Promise<Map<string, { manifest: Manifest; dir: string }>> {
  const found = new Map<string, { manifest: Manifest; dir: string }>();
  const visit = async (name: string, from: string) => {
    if (found.has(name)) return;
    const dir = await Deno.realPath(`${from}/${name}`);
    const manifest: Manifest = JSON.parse(await Deno.readTextFile(`${dir}/package.json`));
    found.set(name, { manifest, dir });
    const siblings = dir.slice(0, -name.length - 1);
    for (const dependency of Object.keys(manifest.dependencies ?? {})) {
      // Types only: nothing of it is in the binary.
      if (!dependency.startsWith("@types/")) await visit(dependency, siblings);
    }
  };
  for (const name of BUNDLED) await visit(name, modules);
  return found;
}

async function licenseText(dir: string): Promise<string> {
  for await (const entry of Deno.readDir(dir)) {
    if (/^licen[cs]e/i.test(entry.name) && entry.isFile) {
      return (await Deno.readTextFile(`${dir}/${entry.name}`)).trim();
    }
  }
  return "(the package names its licence, and carries no text of it)";
}

/** Writes `src/cli/licenses.txt` below `root` when it differs. */
export async function collectLicenses(root: string): Promise<void> {
  const packages = await closure(`${root}node_modules`);
  const bun: Manifest = JSON.parse(await Deno.readTextFile(`${root}node_modules/bun/package.json`));
  const parts = [
    "This program contains the following software.",
    `bun ${bun.version} (the runtime): MIT; its own notices, among them those of JavaScriptCore\n` +
    "(LGPL-2.1), stand at https://bun.com/docs/project/licensing",
  ];
  for (const [name, { manifest, dir }] of [...packages].sort(([a], [b]) => a < b ? -1 : 1)) {
    parts.push(
      `${name} ${manifest.version}: ${manifest.license ?? "see below"}\n\n${await licenseText(
        dir,
      )}`,
    );
  }
  const text = parts.join(`\n\n${"-".repeat(78)}\n\n`) + "\n";
  const file = `${root}src/cli/licenses.txt`;
  const before = await Deno.readTextFile(file).catch(() => "");
  if (before !== text) await Deno.writeTextFile(file, text);
}
