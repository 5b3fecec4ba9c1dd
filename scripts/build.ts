/**
 * Compiles the binary.
 *
 *     deno task build          dist/tnblock for this machine
 *     deno task build --all    dist/tnblock-linux-x64 and dist/tnblock-linux-arm64, with SHA256SUMS
 *
 * The two `--no-compile-autoload-*` flags matter: without them a compiled program runs what a
 * `bunfig.toml` in the current folder tells it to and takes in its `.env`, as root.
 */
import { collectLicenses } from "./collect_licenses.ts";

const ROOT = new URL("../", import.meta.url).pathname;
const BUN = `${ROOT}node_modules/.bin/bun`;

const COMMON_FLAGS = [
  "build",
  "--compile",
  "--minify",
  "--bytecode",
  "--format=esm",
  "--no-compile-autoload-dotenv",
  "--no-compile-autoload-bunfig",
];

/** The targets of `--all`: x64 for every processor since Nehalem, and arm64. */
const RELEASE_TARGETS = {
  "tnblock-linux-x64": "bun-linux-x64-baseline",
  "tnblock-linux-arm64": "bun-linux-arm64",
} as const;

async function compile(outfile: string, target?: string): Promise<void> {
  const args = [
    ...COMMON_FLAGS,
    ...(target === undefined ? [] : [`--target=${target}`]),
    `--define=TNBLOCK_BUILD_TARGET="${target ?? "native"}"`,
    `--define=TNBLOCK_BUILD_COMMIT="${await commit()}"`,
    `--outfile=${outfile}`,
    `${ROOT}src/main.ts`,
  ];
  const result = await new Deno.Command(BUN, {
    args,
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  if (!result.success) {
    const decoder = new TextDecoder();
    console.error(decoder.decode(result.stdout) + decoder.decode(result.stderr));
    throw new Error(`bun could not compile ${outfile}`);
  }
}

/** The short commit hash, with `+` when the tree differs from it; `unknown` outside a checkout. */
async function commit(): Promise<string> {
  const git = async (...args: string[]) => {
    const result = await new Deno.Command("git", {
      args: ["-C", ROOT, ...args],
      stderr: "null",
    }).output();
    if (!result.success) throw new Error("no git");
    return new TextDecoder().decode(result.stdout).trim();
  };
  try {
    const hash = await git("rev-parse", "--short=12", "HEAD");
    return (await git("status", "--porcelain")) === "" ? hash : `${hash}+`;
  } catch {
    return "unknown";
  }
}

async function sha256(path: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function main(args: readonly string[]): Promise<void> {
  const unknown = args.find((arg) => arg !== "--all");
  if (unknown !== undefined) throw new Error(`unknown option ${unknown}; there is only --all`);
  await Deno.mkdir(`${ROOT}dist`, { recursive: true });
  await collectLicenses(ROOT);
  if (!args.includes("--all")) {
    await compile(`${ROOT}dist/tnblock`);
    return;
  }
  const sums: string[] = [];
  for (const [name, target] of Object.entries(RELEASE_TARGETS)) {
    await compile(`${ROOT}dist/${name}`, target);
    sums.push(`${await sha256(`${ROOT}dist/${name}`)}  ${name}`);
  }
  await Deno.writeTextFile(`${ROOT}dist/SHA256SUMS`, sums.join("\n") + "\n");
}

if (import.meta.main) await main(Deno.args);
