import { assert, assertEquals } from "@std/assert";
import { type TransportKind, TRANSPORTS } from "../support/place.ts";
import { KEY, Pty } from "../support/pty.ts";
import { SetupPlace } from "./support.ts";

const BUN = new URL("../../node_modules/.bin/bun", import.meta.url).pathname;
const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;

const command = (there: SetupPlace, ...args: readonly string[]) =>
  ["--no-env-file", "run", MAIN, "--root", there.directory, "setup", ...args] as const;

const ENV = { TNBLOCK_LOGIN_BUDGET: "0" };

const terminalFor = (there: SetupPlace, ...args: readonly string[]) =>
  new Pty(BUN, command(there, ...args), { env: ENV });

/** The keys from the first question to the name of the storage: what is shown, and what is pressed. */
function keys(there: SetupPlace): readonly (readonly [shown: string, pressed: string])[] {
  const { ready } = there.place.simulator;
  return [
    ["Address or name of TrueNAS", `${ready.host}:${ready.port}${KEY.enter}`],
    // Pinning stands first, "No" is what Enter alone would mean.
    ["Is this the right TrueNAS?", KEY.up + KEY.up + KEY.enter],
    ["User that the API key belongs to", KEY.enter],
    ["API key (not shown)", `${ready.apiKey}${KEY.enter}`],
    ["Dataset for the volumes", KEY.down + KEY.enter],
    ["Transport", there.transport === "iscsi" ? KEY.down + KEY.enter : KEY.enter],
    ["Portals: one for each network", `${KEY.space}${KEY.down}${KEY.space}${KEY.enter}`],
    ["carries all volumes of a storage", KEY.enter],
    ["Name of the new", KEY.enter],
    ["How do the nodes prove", KEY.down + KEY.down + KEY.enter],
    ...there.transport === "iscsi" ? [["Sectors of the disks", KEY.enter] as const] : [],
    ["Block size of new volumes", KEY.enter],
    ["Thin volumes", KEY.enter],
    ["Name of the storage", `lab${KEY.enter}`],
    ["Do all this?", "y"],
  ];
}

function secretsIn(text: string | undefined): Record<string, string> {
  return JSON.parse(text ?? "{}");
}

for (const transport of TRANSPORTS) {
  Deno.test(`from the first key to the last: a storage that works (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    await using terminal = terminalFor(there);
    for (const [shown, pressed] of keys(there)) await terminal.answers(shown, pressed);
    await terminal.shows("Storage lab works. Try next:");
    assertEquals(await terminal.ends(), 0);
    const section = await there.read("/etc/pve/storage.cfg") ?? "";
    assert(section.includes("tnblock: lab"), section);
    const secrets = secretsIn(await there.read("/etc/pve/priv/storage/lab.tnblock"));
    assertEquals(Object.keys(secrets).length, 3);
    const calls = await there.read("/run/calls") ?? "";
    for (const secret of Object.values(secrets)) {
      assert(!terminal.shown.includes(secret), "a secret was shown");
      assert(!calls.includes(secret), "a secret was in a command");
      assert(!section.includes(secret), "a secret is in storage.cfg");
    }
    // What it made lets this node in, and nobody else.
    assertEquals(await onlyThisNode(there), true);
  });
}

async function onlyThisNode(there: SetupPlace): Promise<boolean> {
  const objects = await there.objects();
  if (there.transport === "nvme-tcp") {
    const made = objects.subsystems.find((one: { name: string }) => one.name !== "pve");
    const nqn = (await there.read("/etc/nvme/hostnqn"))?.trim();
    return made.allow_any_host === false && objects.host.length === 1 &&
      objects.host[0].hostnqn === nqn && objects.host[0].dhchap_key !== null &&
      objects.host[0].dhchap_ctrl_key !== null;
  }
  const made = objects.targets.find((one: { name: string }) => one.name !== "pve");
  const initiator = (await there.read("/etc/iscsi/initiatorname.iscsi"))?.trim().split("=")[1];
  return made.groups.every((group: { initiator: number; authmethod: string }) =>
    group.initiator === objects.initiator[0].id && group.authmethod === "CHAP_MUTUAL"
  ) && objects.initiator.length === 1 && objects.initiator[0].initiators.length === 1 &&
    objects.initiator[0].initiators[0] === initiator;
}

/** At these questions Ctrl-C is pressed in a real terminal; the others go the same way in questions_test.ts. */
const LEFT_AT: readonly (readonly [TransportKind, number])[] = [["iscsi", 3], ["nvme-tcp", -1]];

for (const [transport, at] of LEFT_AT) {
  Deno.test(`Ctrl-C in a terminal leaves no trace (question ${at}, ${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const [objects, files] = [await there.objects(), await there.files()];
    await using terminal = terminalFor(there);
    const all = keys(there);
    const index = at < 0 ? all.length + at : at;
    for (const [shown, pressed] of all.slice(0, index)) await terminal.answers(shown, pressed);
    await terminal.answers(all[index]?.[0] ?? "", KEY.ctrlC);
    await terminal.shows("Left; nothing was changed.");
    assertEquals(await terminal.ends(), 130);
    assertEquals(await there.objects(), objects);
    assertEquals(await there.files(), files);
  });
}

async function ran(there: SetupPlace, ...args: readonly string[]) {
  const output = await new Deno.Command(BUN, {
    args: [...command(there, ...args)],
    env: ENV,
    stdin: "null",
  }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code: output.code, out: text(output.stdout), err: text(output.stderr) };
}

Deno.test("without a terminal nothing is asked: the flag is named, and 2 is the end", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const { code, out, err } = await ran(there, "--api-port", "443");
  assertEquals([code, out], [2, ""]);
  assert(err.includes("--api-host"), err);
});

Deno.test("printed answers are taken by --answers, and --dry-run changes nothing", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const flags = Object.entries(there.answers()).flatMap(([id, value]) => [`--${id}`, value ?? ""]);
  const printed = await ran(there, ...flags, "--dry-run", "--print-answers");
  assertEquals([printed.code, printed.err.includes("error")], [0, false], printed.err);
  await there.write("/root/answers.json", printed.out);
  const [objects, files] = [await there.objects(), await there.files()];
  const planned = await ran(there, "--answers", "/root/answers.json", "--dry-run", "-o", "json");
  assertEquals(planned.code, 0, planned.err);
  const { schemaVersion, steps } = JSON.parse(planned.out);
  assertEquals([schemaVersion, steps.at(-1).kind], [1, "try"]);
  assertEquals(await there.objects(), objects);
  assertEquals(await there.files(), files);
  const done = await ran(there, "--answers", "/root/answers.json", "--yes");
  assertEquals(done.code, 0, done.err);
  assert((await there.read("/etc/pve/storage.cfg"))?.includes("tnblock: san"));
});
