/** The measure of the simulator: conversations recorded from the server code of two releases. */

import { assertEquals } from "@std/assert";
import type { ReleaseName } from "../../src/simulator/simulator.ts";
import { schemaChecker } from "../support/schema_check.ts";
import { replay } from "./transcript.ts";

/** Records that differ, each with the reason why that is right. */
const DIFFERING: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  "25.10.6.jsonl": {},
  "25.04.2.6.jsonl": {
    539: "the job was still running when the recorder asked; here it has ended by then",
  },
};

const FILES: readonly (readonly [string, ReleaseName])[] = [
  ["25.10.6.jsonl", "25.10"],
  ["25.04.2.6.jsonl", "25.04"],
];

for (const [file, release] of FILES) {
  Deno.test(`the simulator answers as the recorded ${file.replace(".jsonl", "")} did`, async () => {
    const schema = schemaChecker();
    const outcome = await replay(file, release, { onExchange: schema.onExchange });
    const known = DIFFERING[file] ?? {};
    const report = [
      `records matched: ${outcome.matched} of ${outcome.compared}`,
      `${file}: ${outcome.keptBack} more without a recorded answer`,
      ...Object.entries(known).map(([seq, reason]) => `differs: ${seq}: ${reason}`),
    ];
    for (const line of report) Deno.stdout.writeSync(new TextEncoder().encode(`${line}\n`));
    const unexpected = outcome.differing.filter(({ seq }) => known[seq] === undefined);
    assertEquals(unexpected.map((entry) => [entry.seq, entry.what, entry.expected]), []);
    const seqs = outcome.differing.map(({ seq }) => String(seq));
    assertEquals(Object.keys(known).filter((seq) => !seqs.includes(seq)), []);
    assertEquals(schema.resultProblems(), []);
  });
}
