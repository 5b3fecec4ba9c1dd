/** What iscsiadm's exit statuses mean for a login, in words of our own. */
import { type ErrorCode, TnblockError } from "../common/error.ts";
import type { ProgramResult } from "./host.ts";
import type { IscsiLogin } from "./iscsi_admin.ts";

/** Exit statuses of iscsiadm (usr/iscsi_err.h of open-iscsi) that have a meaning of their own for us. */
export function loginFailure(
  doing: string,
  login: Pick<IscsiLogin, "chap">,
  result: ProgramResult,
): TnblockError {
  const network = "Check the network to the portal, and that the iSCSI service runs on the array";
  const meanings: Readonly<Record<number, readonly [ErrorCode, string, string]>> = {
    4: ["unreachable", "the connection failed", network],
    5: [
      "denied",
      "the target refused the login",
      "Check tnb-target-iqn, and the initiators that the target allows",
    ],
    8: [
      "unreachable",
      "no login in time: the portal does not answer or does not know the target",
      "Check tnb-target-iqn, the portal, and the initiators that the target allows",
    ],
    11: ["unreachable", "the portal takes connections but does not answer", network],
    13: ["host-fault", "only root may do that", "Run it as root"],
    18: ["host-fault", "iscsid does not answer", "Run systemctl restart iscsid"],
    19: login.chap?.peer !== undefined
      ? [
        "auth",
        "the target could not prove itself with the peer secret",
        "Compare tnb-chap-peer-user and tnb-chap-peer-password with the array",
      ]
      : [
        "denied",
        "the target refused the login for good",
        "Check tnb-target-iqn, and the initiators that the target allows",
      ],
    20: ["host-fault", "iscsid does not run", "Run systemctl enable --now iscsid"],
    21: ["host-fault", "there is no such record", "Try again; somebody may have removed it"],
    24: login.chap === undefined
      ? [
        "auth",
        "the target wants CHAP and the storage has none",
        "Set tnb-chap-user and tnb-chap-password",
      ]
      : [
        "auth",
        "the target did not accept the CHAP name and secret",
        "Compare tnb-chap-user and tnb-chap-password with the array",
      ],
  };
  const words = result.stderr.trim().split("\n").at(-1) ?? "";
  const [code, what, hint] = meanings[result.status] ??
    ["host-fault", `iscsiadm failed with status ${result.status}`, "Look at journalctl -u iscsid"];
  return new TnblockError(code, `${doing}: ${what}`, {
    hint,
    cause: new Error(`iscsiadm ended with status ${result.status}: ${words}`),
  });
}
