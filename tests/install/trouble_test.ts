import { assert, assertEquals } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { prepare } from "../../src/install/install.ts";
import type { Plan } from "../../src/install/plan.ts";
import {
  EVERYTHING,
  type InstallNode,
  type Trouble,
  troubled,
  withInstallNode,
} from "./support.ts";

const SHIM_FILE = "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm";
const KEPT = "/var/lib/tnblock/install/kept/";

/** What is tried: from which node, and by which program. */
interface Deed {
  readonly name: string;
  readonly kind: Plan["kind"];
  readonly version: string;
  readonly before: (node: InstallNode) => Promise<void>;
}

const install = async (node: InstallNode, version: string) => {
  await prepare(node.world(version), "install", EVERYTHING, ({ carryOut }) => carryOut());
};

const DEEDS: readonly Deed[] = [
  { name: "a first installation", kind: "install", version: "0.2.0", before: async () => {} },
  {
    name: "an upgrade with another plugin",
    kind: "install",
    version: "0.3.0",
    before: async (node) => {
      await install(node, "0.2.0");
      await node.write(SHIM_FILE, "package old;\n");
    },
  },
  {
    name: "a roll back",
    kind: "roll-back",
    version: "0.3.0",
    before: async (node) => {
      await install(node, "0.2.0");
      await node.write(SHIM_FILE, "package old;\n");
      await install(node, "0.3.0");
    },
  },
  {
    name: "a removal",
    kind: "uninstall",
    version: "0.2.0",
    before: (node) => install(node, "0.2.0"),
  },
];

/** Files and services; not our own copies, which a failure at the very end may leave. */
async function stateOf(node: InstallNode): Promise<Record<string, string>> {
  const all = await node.snapshot();
  return Object.fromEntries(Object.entries(all).filter(([path]) => !path.startsWith(KEPT)));
}

/** Does the deed with trouble at one operation after the plan was made; whether it got through. */
async function attemptWith(node: InstallNode, deed: Deed, trouble: Trouble): Promise<boolean> {
  trouble.count = -Infinity;
  const world = troubled(node.world(deed.version), trouble);
  try {
    await prepare(world, deed.kind, EVERYTHING, ({ carryOut }) => {
      trouble.count = 0;
      return carryOut();
    });
    return true;
  } catch (error) {
    // No failure of the node looks like a defect of ours.
    assert(error instanceof TnblockError && error.code !== "internal", String(error));
    if (Deno.env.get("SHOW")) console.log(trouble.at, error.message);
    return false;
  }
}

for (const deed of DEEDS) {
  Deno.test(`${deed.name} that fails at any operation leaves everything as it was`, async () => {
    await withInstallNode(async (node) => {
      await deed.before(node);
      const before = await stateOf(node);
      const original = await files(node);
      let tried = 0;
      for (let at = 1;; at++) {
        const trouble: Trouble = { at, kind: "fails", count: 0 };
        const isThrough = await attemptWith(node, deed, trouble);
        if (trouble.count < at) break;
        tried++;
        // Only what is not needed may fail without ending it: then it is done.
        if (isThrough) await backToFiles(node, original);
        else assertEquals(await stateOf(node), before, `after trouble at ${at}`);
      }
      assert(tried > 20, `only ${tried} operations`);
    });
  });

  Deno.test(`${deed.name} that is killed at any operation is put right by the next run`, async () => {
    await withInstallNode(async (model) => {
      await deed.before(model);
      await attemptWith(model, deed, { at: Infinity, kind: "killed", count: 0 });
      const after = essence(await stateOf(model));
      await withInstallNode(async (node) => {
        await deed.before(node);
        const before = await files(node);
        for (let at = 1;; at++) {
          const trouble: Trouble = { at, kind: "killed", count: 0 };
          await attemptWith(node, deed, trouble);
          if (trouble.count < at) break;
          await node.calls();
          assert(
            await attemptWith(node, deed, { at: Infinity, kind: "killed", count: 0 }),
            `the run after a kill at ${at}`,
          );
          assertEquals(essence(await stateOf(node)), after, `after a kill at ${at}`);
          await backToFiles(node, before);
        }
      });
    });
  });
}

Deno.test("after a kill between the plugin and the reload, the next run reloads", async () => {
  await withInstallNode(async (node) => {
    const trouble: Trouble = { at: Infinity, kind: "killed", count: 0 };
    const world = troubled(
      node.world("0.2.0", {
        tell: (line) => {
          if (line.includes("storages work")) trouble.at = trouble.count + 1;
        },
      }),
      trouble,
    );
    await prepare(world, "install", EVERYTHING, ({ carryOut }) => carryOut()).catch(() => {});
    assert(await node.read(SHIM_FILE) !== undefined);
    await node.calls();
    await install(node, "0.2.0");
    assert((await node.calls()).includes("systemctl reload-or-try-restart pvedaemon.service"));
  });
});

Deno.test("a run of another version that fails after a killed one goes back to before both", async () => {
  await withInstallNode(async (node) => {
    const before = await stateOf(node);
    const deed = DEEDS[0];
    assert(deed !== undefined);
    await attemptWith(node, deed, { at: 30, kind: "killed", count: 0 });
    assert(await node.read(SHIM_FILE) !== undefined, "killed too early to tell");
    await node.plant("systemctl enable*");
    const other = { ...deed, version: "0.3.0" };
    assert(!await attemptWith(node, other, { at: Infinity, kind: "fails", count: 0 }));
    assertEquals(await stateOf(node), before);
  });
});

/** Without the notes, whose history may differ. */
function essence(state: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(state).filter(([path]) => !path.startsWith("/var/lib/tnblock/")),
  );
}

async function files(node: InstallNode): Promise<Map<string, { text: string; mode: number }>> {
  const found = new Map<string, { text: string; mode: number }>();
  for (const [path, said] of Object.entries(await node.snapshot())) {
    const mode = parseInt(said.split(" ")[0] ?? "644", 8);
    found.set(path, { text: await node.read(path) ?? "", mode });
  }
  return found;
}

async function backToFiles(
  node: InstallNode,
  before: Map<string, { text: string; mode: number }>,
): Promise<void> {
  for (const path of Object.keys(await node.snapshot())) await node.remove(path);
  for (const [path, { text, mode }] of before) await node.write(path, text, mode);
}

Deno.test("who had loaded the plugin already loads anew after it was taken back", async () => {
  await withInstallNode(async (node) => {
    const trouble: Trouble = { at: Infinity, kind: "fails", count: 0 };
    const before = await stateOf(node);
    const tell = (line: string) => {
      if (line.endsWith(`put back: ${SHIM_FILE}`)) Deno.removeSync(`${node.directory}/calls`);
      if (line.includes("pvedaemon")) trouble.at = Math.min(trouble.at, trouble.count + 1);
    };
    const world = troubled(node.world("0.2.0", { tell }), trouble);
    await prepare(world, "install", EVERYTHING, ({ carryOut }) => carryOut()).catch(() => {});
    assertEquals(await stateOf(node), before);
    // What was called since the plugin is gone.
    assert((await node.calls()).includes("systemctl reload-or-try-restart pvestatd.service"));
  });
});

Deno.test("files that a killed run has half written are cleared away", async () => {
  await withInstallNode(async (node) => {
    await install(node, "0.2.0");
    const clean = Object.keys(essence(await stateOf(node)));
    const left = [
      "/usr/local/bin/.tnblock.new",
      "/usr/share/perl5/PVE/Storage/Custom/.TnblockPlugin.pm.tmp.7.8.9",
    ];
    for (const path of left) await node.write(path, "half");
    await node.write(SHIM_FILE, "package old;\n");
    await install(node, "0.3.0");
    assertEquals(Object.keys(essence(await stateOf(node))), clean);
  });
});
