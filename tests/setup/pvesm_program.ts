/**
 * A stand-in for `pvesm` below a root, as far as setup uses it: `add` runs the plugin's hook as Proxmox VE does
 * (validate, connect, activate), then writes the section; `set` and `remove` change it.
 */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import process from "node:process";
import { silentLog } from "../../src/common/log.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";

const [root = "", verb = "", ...words] = process.argv.slice(2);
const file = `${root}/etc/pve/storage.cfg`;

function fail(text: string): never {
  process.stderr.write(`${text}\n`);
  process.exit(255);
}

function optionsIn(rest: readonly string[]): Record<string, string> {
  const options: Record<string, string> = {};
  for (let index = 0; index < rest.length; index += 2) {
    options[(rest[index] ?? "").replace(/^--/, "")] = rest[index + 1] ?? "";
  }
  return options;
}

async function hook(storage: string, config: Record<string, string>, method: string) {
  const { reply, delivered, settled } = answer(
    JSON.stringify({ protocol: 1, id: "p", method, storage, config, args: {}, deadlineMs: 20_000 }),
    {
      ...{ host: linuxHost({ root }), log: silentLog, limitLogins: false },
      setDebugLevel: () => {},
    },
  );
  const { text, ok } = await reply;
  await delivered();
  await settled;
  if (!ok) fail(JSON.parse(text).error.message);
}

/** Sections as they are written: a header and indented lines, an empty line after each. */
function sections(): Map<string, string> {
  const parts = readFileSync(file, "utf8").split(/\n\s*\n/).filter((part) => part.trim() !== "");
  return new Map(parts.map((part) => [/^\s*\S+:\s*(\S+)/.exec(part)?.[1] ?? "", part.trim()]));
}

function write(all: Map<string, string>): void {
  writeFileSync(file, `${[...all.values()].join("\n\n")}\n`);
}

const all = sections();
if (verb === "add") {
  const [type = "", id = "", ...rest] = words;
  const options = optionsIn(rest);
  if (all.has(id)) fail(`storage ID '${id}' already defined`);
  if (Object.keys(options).some((name) => /key|password|secret/.test(name))) {
    fail("a secret came in the arguments");
  }
  const config = { type, ...options };
  await hook(id, config, "validate_storage");
  try {
    readFileSync(`${root}/stub/pvesm-fails`);
    fail("planted: pvesm add failed");
  } catch {
    // As it should be.
  }
  await hook(id, config, "check_connection");
  await hook(id, config, "activate_storage");
  const lines = Object.entries(options).map(([name, value]) => `\t${name} ${value}`);
  all.set(id, [`${type}: ${id}`, ...lines].join("\n"));
  write(all);
} else if (verb === "set") {
  const [id = "", ...rest] = words;
  const section = all.get(id);
  if (section === undefined) fail(`storage '${id}' does not exist`);
  const { delete: gone = "", ...changes } = optionsIn(rest);
  const dropped = [...gone.split(","), ...Object.keys(changes)];
  const [head = "", ...lines] = section.split("\n");
  const kept = lines.filter((line) => !dropped.includes(line.trim().split(" ")[0] ?? ""));
  const next = [head, ...kept, ...Object.entries(changes).map(([key, text]) => `\t${key} ${text}`)];
  const config = Object.fromEntries(
    next.slice(1).map((line) => {
      const [key = "", ...value] = line.trim().split(" ");
      return [key, value.join(" ")];
    }),
  );
  await hook(id, { type: "tnblock", ...config }, "validate_storage");
  all.set(id, next.join("\n"));
  write(all);
} else if (verb === "remove") {
  const [id = ""] = words;
  if (!all.delete(id)) fail(`storage '${id}' does not exist`);
  rmSync(`${root}/etc/pve/priv/storage/${id}.tnblock`, { force: true });
  write(all);
} else fail(`unknown command ${verb}`);
process.exit(0);
