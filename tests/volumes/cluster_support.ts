/** What all nodes of a real cluster see as one. */
import { lineLog } from "../../src/common/log.ts";
import type { Host } from "../../src/host/host.ts";
import { linuxHost } from "../../src/host/linux.ts";
import { answer } from "../../src/pve/hook.ts";
import type { Place, Reply } from "../support/place.ts";

/** The host of a node, whose /etc/pve/priv/tnblock is that of the first node. */
export function pmxcfsHost(place: Place, node: string): Host {
  const own = linuxHost({ root: place.node(node).directory });
  const first = linuxHost({ root: place.directory });
  const files = Object.entries(own.files).map(([key, value]) => [
    key,
    typeof value !== "function" ? value : (path: string, ...rest: unknown[]) => {
      const isShared = /^\/etc\/pve\/priv\/tnblock\/[a-z-]+\//.test(path);
      const from = isShared ? first.files : own.files;
      return (from as unknown as Record<string, typeof value>)[key]?.call(from, path, ...rest);
    },
  ]);
  return { ...own, files: Object.fromEntries(files) as Host["files"] };
}

/** As {@link Place.ask}, on a node that sees what tnblock keeps in the first node's /etc/pve. */
export async function askBeside(
  place: Place,
  node: string,
  method: string,
  args: Record<string, unknown>,
): Promise<Reply> {
  const { reply, settled } = beginOn(place, pmxcfsHost(place, node), method, args, node);
  const given = await reply;
  await settled;
  return given;
}

/** As {@link Place.begin}, in a process with a host of its own. */
export function beginOn(
  place: Place,
  host: Host,
  method: string,
  args: Record<string, unknown>,
  node = "pve1",
): { readonly reply: Promise<Reply>; readonly settled: Promise<unknown> } {
  const request = JSON.stringify(place.request(method, args, { node }));
  const { reply, settled, delivered } = answer(request, {
    host,
    log: lineLog((line) => place.log.push(line), () => 2),
    setDebugLevel: () => {},
    limitLogins: false,
  });
  return {
    reply: reply.then(({ text }) => JSON.parse(text) as Reply),
    settled: Promise.all([delivered(), settled]),
  };
}
