import { assert, assertEquals, assertRejects } from "@std/assert";
import { Cancelled } from "../../src/common/asking.ts";
import type { TnblockError } from "../../src/common/error.ts";
import type { Answers } from "../../src/setup/answers.ts";
import { parseAnswers } from "../../src/setup/answers.ts";
import { type TransportKind, TRANSPORTS } from "../support/place.ts";
import { nobody, Scripted, SetupPlace } from "./support.ts";

/** What a person types who makes a new target or subsystem; all else is as proposed. */
function typed(there: SetupPlace): Record<string, readonly unknown[]> {
  const { ready } = there.place.simulator;
  return {
    "--api-host": [`${ready.host}:${ready.port}`],
    "--trust": ["pin"],
    "--api-key-file": [ready.apiKey],
    "--dataset": ["tank/pve"],
    "--transport": [there.transport],
    "--target": [""],
  };
}

/** Every question that is put on the way, in its order. */
const ASKED: Readonly<Record<TransportKind, readonly string[]>> = {
  "nvme-tcp": [
    ...["--api-host", "--trust", "--api-user", "--api-key-file", "--dataset", "--transport"],
    ...["--portals", "--target", "--target", "--proof", "--zvol-blocksize", "--thin"],
    "--storage",
  ],
  "iscsi": [
    ...["--api-host", "--trust", "--api-user", "--api-key-file", "--dataset", "--transport"],
    ...["--portals", "--target", "--target", "--proof", "--extent-blocksize", "--zvol-blocksize"],
    ...["--thin", "--storage"],
  ],
};

for (const transport of TRANSPORTS) {
  Deno.test(`each question is put once, in this order (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const asker = new Scripted(typed(there));
    await there.run({}, {
      asker,
      decide: ({ plan, answers }) => {
        assertEquals(asker.asked, ASKED[transport]);
        assertEquals(plan.steps.at(-1)?.action.kind, "try");
        // What it prints is what it takes.
        assertEquals(answers["target"], "new:pve-2");
        assertEquals(answers["api-key-file"], "/etc/pve/priv/storage/san.tnblock");
        assert(!JSON.stringify(answers).includes(there.place.simulator.ready.apiKey));
        return Promise.resolve();
      },
    });
  });

  Deno.test(`leaving at any question changes nothing anywhere (${transport})`, async () => {
    await using there = await SetupPlace.start(transport);
    const [objects, files] = [await there.objects(), await there.files()];
    for (let at = 1; at <= ASKED[transport].length; at++) {
      const asker = new Scripted(typed(there), at);
      const error = await assertRejects(() => there.run({}, { asker }));
      assert(error instanceof Cancelled, `${at}: ${error}`);
      assertEquals(asker.asked.length, at);
    }
    assertEquals(await there.objects(), objects);
    assertEquals(await there.files(), files);
    assertEquals(await there.connections(), []);
  });
}

/** Answers that will not do: told, and asked again. */
const WRONG: readonly (readonly [flag: string, answer: unknown, words: string])[] = [
  ["--api-host", "http://127.0.0.1", "it is not encrypted"],
  ["--api-host", "127.0.0.1:1", "Cannot connect"],
  ["--api-user", "no user", "it is no user name"],
  ["--dataset", "tank/pve/", "it is not a dataset below a pool"],
  ["--dataset", "nope/pve", 'there is no "nope"'],
  ["--portals", ["10.255.255.1:4420"], "TrueNAS has 127.0.0.1"],
  ["--target", "nqn.2011-06.com.truenas:none", "there are"],
  ["--storage", "9", "a letter first"],
  ["--storage", "local", "there is one"],
];

for (const [flag, answer, words] of WRONG) {
  Deno.test(`${flag} ${answer}: "${words}" is told, and it is asked again`, async () => {
    await using there = await SetupPlace.start("nvme-tcp");
    const right = typed(there);
    const asker = new Scripted({ ...right, [flag]: [answer, ...right[flag] ?? []] });
    await there.run({}, { asker, decide: () => Promise.resolve() });
    assert(asker.told.some((text) => text.includes(words)), asker.told.join("\n"));
  });
}

Deno.test("a wrong key may be typed three times, and then it is said how one is made", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const wrong = `9-${"x".repeat(64)}`;
  const asker = new Scripted({ ...typed(there), "--api-key-file": [wrong, wrong, wrong] });
  const error = await assertRejects(() => there.run({}, { asker })) as TnblockError;
  assertEquals(error.code, "auth");
  assert(error.hint?.includes("Credentials > Groups > Privileges"), error.hint);
  assertEquals(asker.asked.filter((flag) => flag === "--api-key-file").length, 3);
  assert(![error.message, ...asker.told].join().includes(wrong));
});

/** What is refused when nobody can be asked again, by the change to answers that are right. */
const REFUSED: readonly (readonly [string, Answers, string, string])[] = [
  ["another certificate", { "trust": "ab".repeat(32) }, "tls", "--trust"],
  ["no authority's certificate", { "trust": "verified" }, "tls", "--trust"],
  ["an authority that is no file", { "trust": "/none.pem" }, "config", "--trust"],
  ["a key file that is not there", { "api-key-file": "/none" }, "config", "--api-key-file"],
  ["a transport that is none", { "transport": "fc" }, "invalid", "--transport"],
  ["a portal that is not there", { "portals": "10.255.255.1" }, "not-found", "--portals"],
  ["a name that is taken", { "target": "new:pve" }, "exists", "--target"],
  ["block sizes that are none", { "zvol-blocksize": "3K" }, "invalid", "--zvol-blocksize"],
  ["an answer without meaning", { "extent-blocksize": "512" }, "invalid", "--extent-blocksize"],
  ["a content that is none", { "content": "iso" }, "invalid", "--content"],
];

for (const [what, change, code, field] of REFUSED) {
  Deno.test(`${what} is refused with its flag, before anything is written`, async () => {
    await using there = await SetupPlace.start("nvme-tcp");
    const [objects, files] = [await there.objects(), await there.files()];
    const error = await assertRejects(() => there.run(there.answers(change))) as TnblockError;
    assertEquals([error.code, error.field], [code, field], error.message);
    assertEquals(await there.objects(), objects);
    assertEquals(await there.files(), files);
  });
}

Deno.test("a key that others may read is not taken", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  await there.write("/root/open", there.place.simulator.ready.apiKey, 0o644);
  const answers = there.answers({ "api-key-file": "/root/open" });
  const error = await assertRejects(() => there.run(answers)) as TnblockError;
  assert(error.message.includes("chmod 600"), error.message);
});

Deno.test("without anybody to ask, a missing answer names its flag", async () => {
  await using there = await SetupPlace.start("nvme-tcp");
  const { dataset: _, ...rest } = there.answers();
  await assertRejects(() => there.run(rest, { world: there.world() }), "asked: --dataset");
  assertEquals(typeof nobody.text, "function");
});

Deno.test("a file of answers is read strictly", () => {
  assertEquals(parseAnswers('{"thin":true,"api-port":443,"portals":["a","b"]}', "f"), {
    ...{ "thin": "yes", "api-port": "443", "portals": "a,b" },
  });
  for (const text of ["", "[]", '{"api-key":"1-x"}', '{"thin":{}}']) {
    let refused = "";
    try {
      parseAnswers(text, "f");
    } catch (error) {
      refused = String(error);
    }
    assert(refused.includes("Cannot use the answers in f"), `${text}: ${refused}`);
  }
});
