/**
 * Completions for shells: scripts that ask `tnblock complete -- WORDS`, and the answers, made of the command tree,
 * of storage.cfg and of what the daemon remembers. No array is asked, and nothing that fails is said. The only
 * file that knows @bomb.sh/tab.
 */
import { RootCommand } from "@bomb.sh/tab";
import { DAEMON_SOCKET } from "../daemon/serve.ts";
import type { Host } from "../host/host.ts";
import { readSections, type StorageSection } from "../pve/storage_cfg.ts";
import type { Command } from "./framework.ts";
import { HELP_TOPICS } from "./help_topics.ts";

/** The shells that there are scripts for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** One of {@link SHELLS}. */
export type Shell = typeof SHELLS[number];

/** Milliseconds for the daemon: a list that is late is no help. */
const ASK_MS = 60;
const MAX_ANSWER = 16 * 1024 * 1024;

/** What a shell would take apart or carry out is offered by nobody. */
const PLAIN = /^[A-Za-z0-9:_.,@/+-]+$/;

/** The tree, as it is asked for what it consists of. */
// deno-lint-ignore no-explicit-any
type AnyCommand = Command<any, any, any>;

/** The script that a shell is to load. */
export function completionScript(shell: Shell): string {
  if (shell === "bash") return BASH;
  return printed(() => new RootCommand().setup("tnblock", "tnblock", shell));
}

/** What the words of a line, of which the last is being typed, can go on with: lines for the shell's script. */
export async function complete(
  program: AnyCommand,
  words: readonly string[],
  host: Host,
): Promise<string> {
  if (isFileWanted(program, words)) return FILES;
  const wanted = neededBy(program, words);
  const sections = wanted === undefined ? [] : await readSections(host.files, host.nodeName)
    .catch(() => []);
  const storages = sections.map(({ id }) => id);
  const volumes = wanted?.kind === "volume" ? await volumesOf(host, sections, wanted.storage) : [];
  const known = { storage: storages, volume: volumes };
  return printed(() => treeOf(program, known).parse([...words]));
}

/** Leaves it to the shell, which knows files (ShellCompDirectiveDefault of cobra, whose protocol this is). */
const FILES = ":0\n";

/** Whether what is typed is the value of an option that takes a file. */
function isFileWanted(program: AnyCommand, words: readonly string[]): boolean {
  const before = words.at(-2) ?? "";
  const command = visible(program).find((one) => words.slice(0, -1).includes(one.name()));
  return [...program.options, ...command?.options ?? []]
    .some((option) => isOf(option, before) && /<(?:file|path|dir)>/.test(option.flags));
}

type Kind = "storage" | "volume";

/** What an argument or the value of an option is, by the name that it has in the tree. */
function kindOf(name: string): Kind | undefined {
  if (/^storages?$|^id$/i.test(name)) return "storage";
  return /^(?:volumes?|zvols?)$/i.test(name) ? "volume" : undefined;
}

/** Which of the node's names the line may need; undefined for none, so that no file is read. */
function neededBy(
  program: AnyCommand,
  words: readonly string[],
): { readonly kind: Kind; readonly storage: string | undefined } | undefined {
  const command = visible(program).find((one) => words.slice(0, -1).includes(one.name()));
  if (command === undefined) return undefined;
  const current = words.at(-1) ?? "";
  const before = words.at(-2) ?? "";
  if (command.options.some((option) => isOf(option, before) && takesValue(option))) {
    return { kind: "storage", storage: undefined };
  }
  if (current.startsWith("--") && current.includes("=")) {
    return { kind: "storage", storage: undefined };
  }
  if (current.startsWith("-")) return undefined;
  const given = operands(program, command, words.slice(words.indexOf(command.name()) + 1, -1));
  const place = Math.min(given.length, command.registeredArguments.length - 1);
  const kind = kindOf(command.registeredArguments[place]?.name() ?? "");
  return kind === undefined ? undefined : { kind, storage: given[0] };
}

/** The words after the command that are neither options nor their values. */
function operands(program: AnyCommand, command: AnyCommand, words: readonly string[]): string[] {
  const found: string[] = [];
  const options = [...program.options, ...command.options];
  for (let at = 0; at < words.length; at++) {
    const word = words[at] ?? "";
    if (!word.startsWith("-")) found.push(word);
    else if (options.some((option) => isOf(option, word) && takesValue(option))) at++;
  }
  return found;
}

interface TreeOption {
  readonly short?: string | undefined;
  readonly long?: string | undefined;
  readonly required: boolean;
  readonly optional: boolean;
}

function isOf({ short, long }: TreeOption, word: string): boolean {
  return word !== "" && (word === short || word === long);
}

function takesValue({ required, optional }: TreeOption): boolean {
  return required || optional;
}

function visible(command: AnyCommand): readonly AnyCommand[] {
  return command.createHelp().visibleCommands(command);
}

/** The library's tree; nothing of it outlives an answer. */
function treeOf(
  program: AnyCommand,
  known: Readonly<Record<Kind, readonly string[]>>,
): RootCommand {
  const root = new RootCommand();
  const give = (values: readonly string[]) => (add: (value: string, about: string) => void) => {
    for (const value of values) add(value, "");
  };
  const subjects = [
    ...visible(program).map((command) => command.name()),
    ...Object.keys(HELP_TOPICS),
  ];
  for (const command of visible(program)) {
    const node = root.command(command.name(), command.description().split("\n")[0] ?? "");
    const help = command.createHelp();
    for (const option of [...help.visibleOptions(command), ...help.visibleOptions(program)]) {
      const name = option.long?.replace(/^--/, "");
      if (name === undefined || node.options.has(name)) continue;
      const short = option.short?.replace(/^-/, "");
      const kind = kindOf(/<([^>]+)>/.exec(option.flags)?.[1] ?? "");
      const values = option.argChoices ?? (kind === undefined ? [] : known[kind]);
      if (takesValue(option)) node.option(name, option.description, give(values), short);
      else if (short === undefined) node.option(name, option.description);
      else node.option(name, option.description, short);
    }
    for (const argument of command.registeredArguments) {
      const kind = kindOf(argument.name());
      const values = argument.argChoices ??
        (command.name() === "help" ? subjects : kind === undefined ? [] : known[kind]);
      node.argument(argument.name(), give(values), argument.variadic);
    }
  }
  for (const option of program.createHelp().visibleOptions(program)) {
    const name = option.long?.replace(/^--/, "");
    if (name === undefined) continue;
    if (takesValue(option)) root.option(name, option.description, give([]));
    else root.option(name, option.description);
  }
  return root;
}

/** Zvols of a storage, as far as the daemon knows them at once. */
async function volumesOf(
  host: Host,
  sections: readonly StorageSection[],
  storage: string | undefined,
): Promise<string[]> {
  const asked = sections.filter(({ id }) => id === storage);
  const lists = await Promise.all(asked.map(async ({ id, config }) => {
    const request = {
      ...{ protocol: 1, id: "complete", method: "list_images", storage: id, config },
      ...{ args: {}, deadlineMs: ASK_MS, node: host.nodeName },
    };
    try {
      const text = await host.askLocal(DAEMON_SOCKET, JSON.stringify(request), {
        ...{ takenMs: ASK_MS, deadlineMs: ASK_MS, maxLine: MAX_ANSWER },
      });
      const { result } = JSON.parse(text);
      return Array.isArray(result) ? result.map((row) => zvolIn(String(row?.volid ?? ""))) : [];
    } catch {
      return [];
    }
  }));
  return lists.flat().filter((name) => PLAIN.test(name));
}

/** The zvol of `san:vol-vm-100-disk-0-lun5`. */
function zvolIn(volid: string): string {
  const own = volid.slice(Math.max(volid.indexOf(":"), volid.lastIndexOf("/")) + 1);
  return /^vol-(.*)-(?:lun\d+|ns[0-9a-f-]{36})$/.exec(own)?.[1] ?? own;
}

/** What the library prints, which it does by `console.log` and at once. */
function printed(work: () => void): string {
  let text = "";
  const before = console.log;
  console.log = (...parts: unknown[]) => void (text += `${parts.join(" ")}\n`);
  try {
    work();
  } finally {
    console.log = before;
  }
  return text;
}

/**
 * Ours, because the library's evaluates what has been typed so far (`$(…)` would be carried out by the tab key),
 * leaves read-only variables in the shell, which say so when it is loaded again, and needs bash-completion.
 */
const BASH = `# bash completion for tnblock

_tnblock() {
    local cur prev words cword line value
    COMPREPLY=()
    if declare -F _get_comp_words_by_ref >/dev/null 2>&1; then
        _get_comp_words_by_ref -n "=:" cur prev words cword 2>/dev/null || return 0
    else
        words=("\${COMP_WORDS[@]}")
        cword=$COMP_CWORD
        cur="\${COMP_WORDS[COMP_CWORD]}"
    fi
    while IFS= read -r line; do
        value="\${line%%$'\\t'*}"
        [[ $value == :0 ]] && compopt -o default 2>/dev/null
        [[ $value == :* || -z $value ]] && continue
        [[ $value == "\${cur##--*=}"* ]] && COMPREPLY+=("$value")
    done < <(tnblock complete -- "\${words[@]:1:cword}" 2>/dev/null)
    if [[ $cur != --*= ]] && declare -F __ltrim_colon_completions >/dev/null 2>&1; then
        __ltrim_colon_completions "$cur"
    fi
    return 0
}

complete -o nosort -F _tnblock tnblock 2>/dev/null || complete -F _tnblock tnblock
`;
