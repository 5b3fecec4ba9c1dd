/** Where a storage's volumes are: on which array, and in what it exports them. */
import type { StorageSettings } from "../common/storage_settings.ts";

/** With the dataset and the transport it tells one array's volumes from another's of the same names. */
export interface ArrayPlace {
  /** Host names or addresses of the API. */
  readonly hosts: readonly string[];
  readonly port: number;
  /** The target's IQN, or the subsystem's NQN. */
  readonly target: string;
}

/** The place that a storage has now. */
export function arrayPlace({ api, transport }: StorageSettings): ArrayPlace {
  const target = transport.kind === "iscsi" ? transport.targetIqn : transport.subsystemNqn;
  return { hosts: api.hosts, port: api.port, target };
}

/** Whether two places are on one array: a second host that was added, or the first that went, makes no other. */
export function isSameArray(one: ArrayPlace, other: ArrayPlace): boolean {
  return one.port === other.port && one.hosts.some((host) => other.hosts.includes(host));
}
