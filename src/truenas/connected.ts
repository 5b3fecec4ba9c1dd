/** Who is connected to a target or subsystem at this moment; read from the array's kernel. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** Names of the initiators that have a session with a target, each once. */
export async function initiatorsOf(caller: Caller, iqn: string, wait?: Wait): Promise<string[]> {
  const found = await read(
    caller,
    {
      method: "iscsi.global.sessions",
      params: [[["target", "=", iqn]], {}],
      doing: `Cannot tell who is connected to target "${iqn}"`,
    },
    rows(v.object({ initiator: v.string() })),
    wait,
  );
  return [...new Set(found.map(({ initiator }) => initiator))];
}

/**
 * NQNs of the hosts that are connected to a subsystem, each once. The array finds the sessions of those alone that
 * are named after its own NQN (`middlewared/plugins/nvmet/global.py`): an empty list says little.
 *
 * @param subsystem its row's id.
 */
export async function hostsOf(caller: Caller, subsystem: number, wait?: Wait): Promise<string[]> {
  const found = await read(
    caller,
    {
      method: "nvmet.global.sessions",
      params: [[["subsys_id", "=", subsystem]], {}],
      doing: `Cannot tell who is connected to NVMe subsystem ${subsystem}`,
    },
    rows(v.object({ hostnqn: v.string() })),
    wait,
  );
  return [...new Set(found.map(({ hostnqn }) => hostnqn))];
}
