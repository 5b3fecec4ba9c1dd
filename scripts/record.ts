/**
 * Records the wizard, doctor and clean-up in a real terminal against a simulated array and node, as text:
 * `deno run -A scripts/record.ts [setup|doctor|cleanup-orphans]` writes docs/recordings/.
 */
import { Cluster } from "../tests/orphans/support.ts";
import { Healthy } from "../tests/doctor/healthy.ts";
import { SetupPlace } from "../tests/setup/support.ts";
import { KEY, Pty } from "../tests/support/pty.ts";
import { SHIM } from "../src/pve/shim/shim.ts";
import { VERSION } from "../src/cli/version.ts";
import { screenOf } from "./screen.ts";

const BUN = new URL("../node_modules/.bin/bun", import.meta.url).pathname;
const MAIN = new URL("../src/main.ts", import.meta.url).pathname;
const COLUMNS = 100;

/** Questions with the keys that answer them. */
type Keys = readonly (readonly [shown: string, pressed: string])[];

/** Runs tnblock below a folder, answers, and gives what the terminal shows in the end. */
async function record(root: string, args: readonly string[], keys: Keys): Promise<string> {
  const raw = await Deno.makeTempFile();
  try {
    const line = [BUN, "--no-env-file", "run", MAIN, "--root", root, ...args]
      .map((word) => `'${word}'`).join(" ");
    {
      await using terminal = new Pty("script", ["-qefc", line, raw], {
        env: { TNBLOCK_LOGIN_BUDGET: "0", SHELL: "/bin/sh" },
        patienceMs: 60_000,
      });
      for (const [shown, pressed] of keys) await terminal.answers(shown, pressed);
      await terminal.ends();
    }
    // What script(1) says itself names this machine.
    const written = (await Deno.readTextFile(raw)).replace(/^Script started[^\n]*\n/, "")
      .replace(/\s*Script done[^\n]*\n$/, "");
    const shown = screenOf(written, COLUMNS).replaceAll(root, "");
    return `# tnblock ${args.join(" ")}\n${shown}`;
  } finally {
    await Deno.remove(raw);
  }
}

async function setup(): Promise<string> {
  await using there = await SetupPlace.start("nvme-tcp");
  const { ready } = there.place.simulator;
  return await record(there.directory, ["setup"], [
    ["Address or name of TrueNAS", `${ready.host}:${ready.port}${KEY.enter}`],
    ["Is this the right TrueNAS?", KEY.up + KEY.up + KEY.enter],
    ["User that the API key belongs to", KEY.enter],
    ["API key (not shown)", `${ready.apiKey}${KEY.enter}`],
    ["Dataset for the volumes", KEY.down + KEY.enter],
    ["Transport", KEY.enter],
    ["Portals: one for each network", `${KEY.space}${KEY.down}${KEY.space}${KEY.enter}`],
    ["carries all volumes of a storage", KEY.enter],
    ["Name of the new", KEY.enter],
    ["How do the nodes prove", KEY.down + KEY.down + KEY.enter],
    ["Block size of new volumes", KEY.enter],
    ["Thin volumes", KEY.enter],
    ["Name of the storage", `lab${KEY.enter}`],
    ["Do all this?", "y"],
  ]);
}

async function doctor(): Promise<string> {
  await using node = await Healthy.start("nvme-tcp");
  await node.write("/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm", SHIM);
  if (node.daemonState.daemon !== null) node.daemonState.daemon.version = VERSION;
  await node.remove("/usr/local/bin/tnblock");
  return await record(node.place.directory, ["doctor", "--no-walk"], []);
}

async function cleanUp(): Promise<string> {
  await using cluster = await Cluster.start("nvme-tcp", { nodes: ["pve1"] });
  const { place } = cluster;
  await place.alloc(100);
  const named = await place.alloc(101);
  await cluster.everywhere("/etc/pve/nodes/pve1/qemu-server/101.conf", `scsi0: san:${named}\n`);
  cluster.age();
  await place.alloc(102);
  await Deno.mkdir(`${place.directory}/etc`, { recursive: true });
  await Deno.writeTextFile(`${place.directory}/etc/hostname`, "pve1\n");
  return await record(place.directory, ["cleanup-orphans", "san"], [
    ["Remove 1 orphan of storage san?", `san${KEY.enter}`],
  ]);
}

const STORIES = { "setup": setup, "doctor": doctor, "cleanup-orphans": cleanUp } as const;

if (import.meta.main) {
  const folder = new URL("../docs/recordings/", import.meta.url);
  await Deno.mkdir(folder, { recursive: true });
  for (const [name, story] of Object.entries(STORIES)) {
    if (Deno.args.length > 0 && !Deno.args.includes(name)) continue;
    await Deno.writeTextFile(new URL(`${name}.txt`, folder), await story());
  }
}
