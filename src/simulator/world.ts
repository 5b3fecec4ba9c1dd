/** All that the simulated array remembers: pools, database tables, services, users. */

import { randomUUID } from "node:crypto";
import type { JsonObject } from "./json.ts";
import { Table } from "./table.ts";
import { Zfs } from "./zfs.ts";

export type ServiceName = "iscsitarget" | "nvmet" | "ssh" | "nfs" | "cifs";

export interface ServiceState {
  readonly id: number;
  enable: boolean;
  running: boolean;
}

export interface User {
  readonly name: string;
  readonly password?: string;
  /** `<id>-<64 characters>`. */
  readonly apiKey: string;
  readonly apiKeyId: number;
  /** `FULL_ADMIN` may do everything. */
  readonly roles: readonly string[];
}

/** Where the array may be reached on the data side. */
export interface Addresses {
  /** IPs that the array calls its own. */
  readonly own: readonly string[];
}

export class World {
  readonly zfs: Zfs;
  readonly tables = {
    portal: new Table(),
    initiator: new Table(),
    auth: new Table(),
    target: new Table(),
    extent: new Table(),
    targetextent: new Table(),
    host: new Table(),
    subsys: new Table(),
    port: new Table(),
    namespace: new Table(),
    hostSubsys: new Table(),
    portSubsys: new Table(),
  };
  readonly services = new Map<ServiceName, ServiceState>([
    ["cifs", { id: 4, enable: false, running: false }],
    ["iscsitarget", { id: 13, enable: true, running: false }],
    ["nfs", { id: 9, enable: false, running: false }],
    ["nvmet", { id: 20, enable: true, running: false }],
    ["ssh", { id: 10, enable: false, running: false }],
  ]);
  readonly users = new Map<string, User>();
  /** Rows of `replication.query`. */
  replications: JsonObject[] = [];
  iscsiGlobal: JsonObject = {
    id: 1,
    basename: "iqn.2005-10.org.freenas.ctl",
    isns_servers: [],
    listen_port: 3260,
    pool_avail_threshold: null,
    alua: false,
    iser: false,
  };
  nvmetGlobal: JsonObject = {
    id: 1,
    basenqn: `nqn.2011-06.com.truenas:uuid:${randomUUID()}`,
    kernel: true,
    ana: false,
    rdma: false,
    xport_referral: true,
  };
  addresses: Addresses = { own: [] };
  bootId: string = randomUUID();
  readonly hostId = randomUUID().replaceAll("-", "").repeat(2);

  constructor(now: () => number) {
    this.zfs = new Zfs(now);
  }
}
