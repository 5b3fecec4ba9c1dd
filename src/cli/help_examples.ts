/** Examples for the help of commands whose own text has none; a comment says what each is for. */

/** By command: lines of what to type, and what it does. */
export const EXAMPLES: Readonly<Record<string, readonly (readonly [line: string, why: string])[]>> =
  {
    version: [
      ["tnblock version", "for a report"],
      ["tnblock version -o json", "for scripts"],
    ],
    status: [
      ["tnblock status", "is all well on this node?"],
      ["tnblock status -o json | jq .findings", "what is not"],
    ],
    list: [
      ["tnblock list", "the volumes of all storages"],
      ["tnblock list san --snapshots", "one storage, asked now, with its snapshots counted"],
      ["tnblock list -o name san", "names for pvesm, one a line"],
    ],
    scan: [["tnblock scan", "what the kernel sees, whoever made it"]],
    uninstall: [
      ["tnblock uninstall --dry-run", "what would be removed"],
      ["tnblock uninstall --yes", "without a question"],
    ],
    completions: [
      ["source <(tnblock completions bash)", "for this shell; install puts them in place for all"],
      ["tnblock completions fish | source", "the same in fish"],
    ],
    hook: [["tnblock hook < request.json", "as the plugin asks"]],
    daemon: [
      ["tnblock daemon --print-units", "what install writes"],
      ["systemctl status tnblock", "the one that systemd runs"],
    ],
    demo: [["tnblock demo", "needs nothing and changes nothing"]],
    simulate: [
      ["tnblock simulate --host /tmp/node", "an array and a node to try things on"],
      ["tnblock simulate --truenas 26 --volumes 500", "another release, with volumes"],
    ],
    help: [
      ["tnblock help exit-codes", "a topic"],
      ["tnblock help doctor", "a command"],
    ],
  };

/** The lines at the end of a command's help; empty for a command without examples here. */
export function examplesOf(command: string): string {
  const lines = Object.hasOwn(EXAMPLES, command) ? EXAMPLES[command] ?? [] : [];
  if (lines.length === 0) return "";
  const width = Math.max(...lines.map(([line]) => line.length));
  const each = lines.map(([line, why]) => `  ${line.padEnd(width)}  # ${why}\n`).join("").trimEnd();
  return `\nExample${lines.length === 1 ? "" : "s"}:\n${each}`;
}
