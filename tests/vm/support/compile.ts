/** Compiles a program for the VM in the way the product is compiled, so that it runs the same. */

import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** Compiles a TypeScript program with everything it imports into one executable. */
export async function compileProgram(source: URL, executable: string): Promise<void> {
  const { code, stderr } = await new Deno.Command(`${ROOT}node_modules/.bin/bun`, {
    args: [
      ...["build", "--compile", "--minify", "--bytecode", "--format=esm"],
      ...["--no-compile-autoload-dotenv", "--no-compile-autoload-bunfig"],
      ...[`--outfile=${executable}`, fileURLToPath(source)],
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).output();
  if (code !== 0) throw new Error(`Cannot compile ${source}: ${new TextDecoder().decode(stderr)}`);
}
