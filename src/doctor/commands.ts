/** Commands that guides tell to run, where several do; each as the program takes it. */

/** Asks for settings anew, secrets without showing them: nothing of them is in a list of processes. */
export function editStorage(storage: string): string {
  return `tnblock setup --edit ${storage}`;
}

/** Shows what nobody needs, and removes it after a question. */
export function cleanUp(storage: string): string {
  return `tnblock cleanup-orphans ${storage}`;
}

/** Gives a volume its export back. */
export function rebind(storage: string, volume: string): string {
  return `tnblock rebind ${storage} ${volume}`;
}

/** Marks volumes that are there already as those of a storage. */
export function adopt(storage: string): string {
  return `tnblock adopt ${storage}`;
}

/** Tells whether a port takes connections; bash and timeout are on every node. */
export function tryPort(host: string, port: number): string {
  return `timeout 3 bash -c '</dev/tcp/${host}/${port}' && echo it answers`;
}

/** `1 volume`, `2 volumes`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** The first three names, and how many more there are. */
export function some(names: readonly string[]): string {
  const more = names.length > 3 ? ` and ${names.length - 3} more` : "";
  return `${names.slice(0, 3).map((name) => `"${name}"`).join(", ")}${more}`;
}
