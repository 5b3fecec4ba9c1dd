/**
 * Programs that live on beside the tests.
 *
 * Deno's listening unix sockets are inherited by whatever is started (2.9.6 makes them without FD_CLOEXEC; bun and
 * node do not), and a lock of the node is such a socket: a child would keep what any test of this process held at
 * that moment locked for as long as it lives. So it is started with its three standard files alone.
 */

const CLOSE_OTHERS =
  'for file in /proc/$$/fd/*; do n=${file##*/}; if [ "$n" -gt 2 ]; then eval "exec $n>&-"; fi; done; exec "$@"';

/** A command as `new Deno.Command` makes one; the program keeps its process id. */
export function lastingCommand(
  program: string | URL,
  options: Deno.CommandOptions,
): Deno.Command {
  const args = ["-c", CLOSE_OTHERS, "bash", String(program), ...options.args ?? []];
  return new Deno.Command("/bin/bash", { ...options, args });
}
