/** Switching an iSCSI extent off and on: the LUN goes and comes back with the same naa. */
import type { Caller, Wait } from "./caller.ts";
import { bag, write } from "./request.ts";

/** Switches an extent; two reloads on 25.x. */
export async function setExtentEnabled(
  caller: Caller,
  id: number,
  enabled: boolean,
  wait?: Wait,
): Promise<void> {
  await write(
    caller,
    {
      method: "iscsi.extent.update",
      params: [id, { enabled }],
      doing: `Cannot switch iSCSI extent ${id} ${enabled ? "on" : "off"}`,
    },
    bag,
    wait,
  );
}
