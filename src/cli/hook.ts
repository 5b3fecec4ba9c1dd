/** `tnblock hook`: one request line on standard input, one reply line on standard output. */
import { TnblockError } from "../common/error.ts";
import { lineLog } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import { forward, type Forwarded } from "../daemon/forward.ts";
import { linuxHost } from "../host/linux.ts";
import { answer } from "../pve/hook.ts";
import { failureLine, REQUEST_LIMIT } from "../pve/request.ts";
import { type CommandContext, EXIT } from "./framework.ts";

/**
 * Reads up to the first line feed, or to the end of the input.
 *
 * @throws TnblockError `invalid` as soon as more than {@link REQUEST_LIMIT} bytes came without one.
 */
export async function readLine(input: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of input) {
    const end = chunk.indexOf(0x0a);
    const piece = end < 0 ? chunk : chunk.subarray(0, end);
    size += piece.length;
    if (size > REQUEST_LIMIT) {
      throw new TnblockError("invalid", "Cannot read the request: it is longer than 1 MiB");
    }
    chunks.push(piece);
    if (end >= 0) break;
  }
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return new TextDecoder().decode(bytes);
}

/**
 * Answers one request; the exit status tells whether it succeeded. A daemon that runs does the work.
 *
 * @param options.direct does it here in any case.
 */
export async function runHook(
  context: CommandContext,
  options: { readonly direct?: boolean } = {},
): Promise<number> {
  let level = 0;
  const log = lineLog((line) => context.err(`${line}\n`), () => level);
  let line: string;
  let host: Host;
  try {
    line = await readLine(context.input);
    host = linuxHost({ root: context.root });
  } catch (error) {
    context.out(failureLine(null, error));
    return EXIT.failed;
  }
  const stop = new AbortController();
  context.stopped().then(() => stop.abort());
  const isDirect = options.direct === true || context.env["TNBLOCK_DIRECT"] === "1";
  const forwarded: Forwarded = isDirect
    ? { kind: "here", line }
    : await forward(line, host, { signal: stop.signal, deliver: context.deliver });
  if (forwarded.kind === "answered") return forwarded.ok ? EXIT.done : EXIT.failed;
  if (forwarded.kind === "failed") {
    context.out(forwarded.text);
    return EXIT.failed;
  }
  const { reply, settled, delivered, undelivered, abandon } = answer(forwarded.line, {
    host,
    log,
    setDebugLevel: (value) => level = value,
    limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
  });
  context.stopped().then(abandon);
  const { text, ok } = await reply;
  await (await context.deliver(text) ? delivered() : undelivered());
  // What was under way when the deadline passed is undone or finished before the process ends.
  await settled;
  return ok ? EXIT.done : EXIT.failed;
}
