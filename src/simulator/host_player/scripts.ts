/**
 * The programs of the simulated node (`iscsiadm`, `multipathd`, `blockdev`): one small shell program that hands
 * its command line to the player through a mailbox folder and prints the player's answer.
 */

import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Where programs leave their requests, as seen from the node. */
export const MAILBOX = "/run/simulator/mailbox";

/**
 * The program's text. A request `ID.request` holds the program's name and its arguments, one a line;
 * the answer is `ID.out`, `ID.err` and, last, `ID.status`. Status 20 is open-iscsi's "no iscsid".
 */
export const PROGRAM = `#!/bin/sh
# Part of a simulated node: the simulator does the work, this only carries the words.
box=\${0%/*}/../..${MAILBOX}
name=\${0##*/}
id=$name.$$
if [ ! -d "$box" ]; then
  echo "$name: the simulator that plays this node is gone" >&2
  exit 20
fi
rm -f "$box/$id".*
printf '%s\\n' "$name" "$@" >"$box/$id.draft" && mv "$box/$id.draft" "$box/$id.request" || exit 20
left=3000
until [ -f "$box/$id.status" ]; do
  left=$((left - 1))
  if [ "$left" -eq 0 ] || [ ! -d "$box" ]; then
    echo "$name: no answer from the simulator" >&2
    exit 20
  fi
  sleep 0.01
done
cat "$box/$id.out"
cat "$box/$id.err" >&2
read -r status <"$box/$id.status"
rm -f "$box/$id".*
exit "$status"
`;

/** What a program prints and how it ends. */
export interface Answer {
  readonly status: number;
  readonly out?: string;
  readonly err?: string;
}

/** Takes the requests that have come in, answers each, and says how many there were. */
export function answerRequests(
  root: string,
  answer: (program: string, args: readonly string[]) => Answer,
): number {
  const box = join(root, MAILBOX);
  const requests = readdirSync(box).filter((name) => name.endsWith(".request"));
  for (const request of requests) {
    const lines = readFileSync(join(box, request), "utf8").split("\n");
    rmSync(join(box, request));
    const { status, out = "", err = "" } = answer(lines[0] ?? "", lines.slice(1, -1));
    const id = join(box, request.slice(0, -".request".length));
    writeFileSync(`${id}.out`, out);
    writeFileSync(`${id}.err`, err);
    writeFileSync(`${id}.draft`, `${status}\n`);
    renameSync(`${id}.draft`, `${id}.status`);
  }
  return requests.length;
}
