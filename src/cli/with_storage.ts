/** A storage of this node for the length of a command. */
import { Deadline } from "../common/deadline.ts";
import { TnblockError } from "../common/error.ts";
import { lineLog } from "../common/log.ts";
import type { Host } from "../host/host.ts";
import type { ArrayCall } from "../pve/hook.ts";
import { type OpenStorage, openStorage } from "../pve/open_storage.ts";
import { readSections, STORAGE_CFG } from "../pve/storage_cfg.ts";
import type { CommandContext } from "./framework.ts";
import { printable } from "./table.ts";

/**
 * Opens it, and closes it again.
 *
 * @param ms for all of the work; a question in a terminal is no part of it: open it anew after one.
 * @throws TnblockError `not-found` when there is no such section for this node.
 */
export async function withStorage<T>(
  context: Pick<CommandContext, "err" | "env">,
  host: Host,
  id: string,
  ms: number,
  work: (storage: OpenStorage) => Promise<T>,
): Promise<T> {
  const section = (await readSections(host.files, host.nodeName)).find((one) => one.id === id);
  if (section === undefined) {
    throw new TnblockError(
      "not-found",
      `Cannot find the storage "${id}": ${STORAGE_CFG} has no such section of type tnblock for this node`,
      { hint: "Look at: tnblock status" },
    );
  }
  const storage = await openStorage(
    { storage: id, config: section.config, node: host.nodeName },
    {
      host,
      log: lineLog((line) => context.err(`${printable(line)}\n`), () => 0),
      setDebugLevel: () => {},
      limitLogins: context.env["TNBLOCK_LOGIN_BUDGET"] !== "0",
      // Parameters, and so secrets, are never shown.
      ...(context.env["TNBLOCK_TRACE"] !== "1" ? {} : {
        onArrayCall: ({ method, ms, done }: ArrayCall) =>
          context.err(`debug: ${method} ${ms.toFixed(0)} ms${done ? "" : ", failed"}\n`),
      }),
    },
    new Deadline(host, ms),
  );
  try {
    return await work(storage);
  } finally {
    await storage.close();
  }
}
