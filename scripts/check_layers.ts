/**
 * Fails when a file of `src/` imports against the arrows of the house, a package that only one room
 * may know, or a runtime's own API. The picture is in docs/architecture.md; this table is the law.
 */

/** For each room (a folder of `src/`) the rooms it may import from; its own always. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  common: [],
  host: ["common"],
  truenas: ["common"],
  transport: ["common", "host", "truenas"],
  volumes: ["common", "host", "truenas", "transport"],
  pve: ["common", "host", "truenas", "transport", "volumes"],
  daemon: ["common", "host", "truenas", "transport", "volumes", "pve"],
  // The simulator is evidence only as far as it does not know the client.
  simulator: ["common"],
  demo: ["common", "host", "pve", "simulator"],
  // One folder per tool; a tool knows no other one.
  install: ["common", "host", "pve", "daemon"],
  setup: ["common", "host", "truenas", "transport", "volumes", "pve", "daemon"],
  doctor: ["common", "host", "truenas", "transport", "volumes", "pve", "daemon"],
  orphans: ["common", "host", "truenas", "transport", "volumes", "pve", "daemon"],
  migrate: ["common", "host", "truenas", "transport", "volumes", "pve", "daemon"],
  cli: [
    ...["common", "host", "pve", "daemon", "simulator", "demo"],
    ...["install", "setup", "doctor", "orphans", "migrate"],
  ],
  // src/main.ts
  ".": ["common", "host", "cli"],
};

/** Packages that only the named files may import. */
const ONLY_IN: readonly { readonly specifier: RegExp; readonly files: RegExp }[] = [
  { specifier: /^(commander|@commander-js\/.*)$/, files: /^cli\/framework\.ts$/ },
  { specifier: /^@clack\/prompts$/, files: /^cli\/asker\.ts$/ },
  { specifier: /^@bomb\.sh\/tab/, files: /^cli\/completions\.ts$/ },
  { specifier: /^ws$/, files: /^(truenas\/socket|simulator\/[^/]+)\.ts$/ },
  { specifier: /^selfsigned$/, files: /^simulator\// },
  {
    specifier: /^node:(child_process|fs|fs\/promises|dgram)$/,
    files: /^(host\/linux|simulator\/|demo\/)/,
  },
  {
    specifier: /^node:(net|tls|http|https)$/,
    files: /^(host\/linux|truenas\/socket|simulator\/)/,
  },
];

const IMPORT =
  /(?:^|\n)\s*(?:import|export)\b[^;"']*?from\s*["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']|(?:^|\n)import\s*["']([^"']+)["']/g;

/** What is wrong with one file; `path` is relative to `src/`. */
export function violations(path: string, source: string): string[] {
  const found: string[] = [];
  const room = path.includes("/") ? path.slice(0, path.indexOf("/")) : ".";
  const allowed = MAY_IMPORT[room];
  if (allowed === undefined) return [`${path}: the room "${room}" is not in the picture`];
  for (const match of source.matchAll(IMPORT)) {
    const specifier = match[1] ?? match[2] ?? match[3] ?? "";
    if (specifier.startsWith(".")) {
      const target = new URL(specifier, `file:///src/${path}`).pathname;
      if (target === "/deno.json") continue;
      if (!target.startsWith("/src/")) {
        found.push(`${path}: imports ${specifier}, which is outside of src/`);
        continue;
      }
      const inside = target.slice("/src/".length);
      const targetRoom = inside.includes("/") ? inside.slice(0, inside.indexOf("/")) : ".";
      if (targetRoom !== room && !allowed.includes(targetRoom)) {
        found.push(`${path}: ${room} may not import from ${targetRoom} (${specifier})`);
      }
      continue;
    }
    for (const rule of ONLY_IN) {
      if (rule.specifier.test(specifier) && !rule.files.test(path)) {
        found.push(`${path}: may not import ${specifier}`);
      }
    }
  }
  for (
    const match of source.replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, "").matchAll(
      /\b(Deno|Bun)\.[a-zA-Z]/g,
    )
  ) {
    found.push(`${path}: uses ${match[0]}…; the source must run under Deno and bun alike`);
  }
  return found;
}

async function* sourceFiles(directory: string): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(directory)) {
    const path = `${directory}/${entry.name}`;
    if (entry.isDirectory) yield* sourceFiles(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

if (import.meta.main) {
  const src = new URL("../src", import.meta.url).pathname;
  const found: string[] = [];
  for await (const file of sourceFiles(src)) {
    found.push(...violations(file.slice(src.length + 1), await Deno.readTextFile(file)));
  }
  for (const line of found.sort()) console.error(line);
  if (found.length > 0) Deno.exit(1);
}
