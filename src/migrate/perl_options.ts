/**
 * The options of the Perl plugin (type `truenasplugin`), each with what it is to tnblock. Names are those of 1.x; 2.x
 * puts `tn_` in front.
 */

/** The plugin's storage type. */
export const PERL_TYPE = "truenasplugin";

/** One option. */
export interface PerlOption {
  /** Ours; undefined when it has none. */
  readonly ours?: string;
  /** It lives in our secrets file. */
  readonly isSecret?: true;
  /** Only 2.x has it. */
  readonly isNew?: true;
  /** Why it is not carried over. */
  readonly why?: string;
}

const never = (why: string): PerlOption => ({ why });
const newer = (option: PerlOption): PerlOption => ({ ...option, isNew: true });

/** All of them, of 1.x, 2.x and the fork that came before it. Those that are mapped by hand have neither name nor reason. */
export const PERL_OPTIONS: Readonly<Record<string, PerlOption>> = {
  api_host: { ours: "tnb-api-host" },
  api_key: { ours: "tnb-api-key", isSecret: true },
  // The next four depend on each other.
  api_scheme: {},
  api_transport: {},
  api_port: {},
  api_insecure: {},
  prefer_ipv4: never("an address is tried as it is given; of a name every address is"),
  dataset: { ours: "tnb-dataset" },
  zvol_blocksize: { ours: "tnb-zvol-blocksize" },
  transport_mode: { ours: "tnb-transport-mode" },
  target_iqn: { ours: "tnb-target-iqn" },
  discovery_portal: { ours: "tnb-discovery-portal" },
  portals: { ours: "tnb-portals" },
  use_multipath: { ours: "tnb-use-multipath" },
  use_by_path: never("guests get links of our own, below /dev/tnblock"),
  ipv6_by_path: never("the plugin never read it"),
  force_delete_on_inuse: never("a disk in use is never freed by logging out"),
  logout_on_free: never("sessions are the daemon's, and stay while the storage is there"),
  chap_user: {},
  chap_password: {},
  subsystem_nqn: { ours: "tnb-subsystem-nqn" },
  hostnqn: { ours: "tnb-hostnqn" },
  nvme_dhchap_secret: { ours: "tnb-dhchap-secret", isSecret: true },
  nvme_dhchap_ctrl_secret: { ours: "tnb-dhchap-ctrl-secret", isSecret: true },
  nvme_allow_any_host: newer(never("who may connect is left as it is on the array")),
  compression: newer({ ours: "tnb-compression" }),
  sparse: { ours: "tnb-sparse" },
  enable_live_snapshots: never("the plugin never read it"),
  snapshot_volume_chains: never("the plugin never read it"),
  vmstate_storage: never("the plugin never read it; Proxmox VE asks its own option"),
  enable_bulk_operations: never("what can be done at once is done at once"),
  api_retry_max: { ours: "tnb-api-retry-max" },
  api_retry_delay: { ours: "tnb-api-retry-delay" },
  storage_lock_timeout: { ours: "tnb-lock-timeout" },
  use_cluster_lock: newer(never("the cluster's lock is always taken")),
  device_ready_retries: newer(never("a disk is waited for as long as the request allows")),
  broker_timeout: newer(never("there is no broker; the daemon has its own limits")),
  nr_io_queues: newer({ ours: "tnb-nr-io-queues" }),
  nvme_ctrl_loss_tmo: newer({ ours: "tnb-ctrl-loss-tmo" }),
  nvme_reconnect_delay: newer({ ours: "tnb-reconnect-delay" }),
  nvme_keep_alive_tmo: newer({ ours: "tnb-keep-alive-tmo" }),
  debug: { ours: "tnb-debug" },
  api_budget_s: newer(never("every request has a deadline")),
  status_probe_backoff_s: newer(never("the daemon waits longer by itself while an array is away")),
  status_budget_s: newer(never("status is answered from memory")),
  op_budget_s: newer(never("every request has a deadline")),
  nvme_max_io_kb: newer(never("tnblock install brings a udev rule for it")),
};

/** What is Proxmox VE's own, and stays as it is. */
export const PVE_OPTIONS: readonly string[] = ["nodes", "disable", "content", "shared", "bwlimit"];

/** Which generation of the plugin a section or a plugin's text is of. */
export type Dialect = "1.x" | "2.x";

/** An option's name in a generation; `tn_sparse` is called so in both. */
export function perlName(base: string, dialect: Dialect): string {
  return dialect === "2.x" || base === "sparse" ? `tn_${base}` : base;
}

/** The name that an option has in {@link PERL_OPTIONS}; undefined for one that the plugin never had. */
export function baseName(option: string): string | undefined {
  const base = option.startsWith("tn_") ? option.slice("tn_".length) : option;
  if (!Object.hasOwn(PERL_OPTIONS, base)) return undefined;
  const { isNew } = PERL_OPTIONS[base] ?? {};
  return option === base && (isNew === true || base === "sparse") ? undefined : base;
}
