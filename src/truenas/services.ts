/** Whether the array's iSCSI and NVMe-oF services run: with a stopped service every write "succeeds" and nothing appears. */
import * as v from "valibot";
import type { Caller, Wait } from "./caller.ts";
import { read, rows } from "./request.ts";

/** The array's names for them. */
export type ServiceName = "iscsitarget" | "nvmet";

/** A service. */
export interface Service {
  readonly running: boolean;
  /** Whether it starts at boot. */
  readonly enabled: boolean;
}

/** Whether a service runs; the cheapest question. */
export async function isRunning(caller: Caller, name: ServiceName, wait?: Wait): Promise<boolean> {
  return await read(
    caller,
    {
      method: "service.started",
      params: [name],
      doing: `Cannot ask whether service "${name}" runs`,
    },
    v.boolean(),
    wait,
  );
}

const serviceRow = v.object({ state: v.string(), enable: v.boolean() });

/** A service's state and whether it starts at boot; undefined where the release has no such service. */
export async function state(
  caller: Caller,
  name: ServiceName,
  wait?: Wait,
): Promise<Service | undefined> {
  const found = await read(
    caller,
    {
      method: "service.query",
      params: [[["service", "=", name]], {}],
      doing: `Cannot read the state of service "${name}"`,
    },
    rows(serviceRow),
    wait,
  );
  const row = found[0];
  return row === undefined ? undefined : { running: row.state === "RUNNING", enabled: row.enable };
}
