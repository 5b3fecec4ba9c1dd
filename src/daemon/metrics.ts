/**
 * The state as Prometheus reads it (text exposition format 0.0.4): pure. Base units, and labels of few values
 * only: storage, portal, array, method, code.
 */
import type { DaemonState, State } from "./state.ts";

type Labels = Readonly<Record<string, string>>;
type Sample = readonly [labels: Labels, value: number, suffix?: string];

/** The lines of all metrics; undefined values are left out, and a metric without any with them. */
export function renderMetrics(state: State & { readonly daemon: DaemonState }): string {
  const { daemon, storages, journal } = state;
  const { requests, links } = daemon;
  return [
    gauge("tnblock_up", "1 while the daemon runs; the file goes when it ends.", [[{}, 1]]),
    gauge("tnblock_build_info", "The daemon's version.", [[{ version: daemon.version }, 1]]),
    gauge("tnblock_start_time_seconds", "When the daemon was started, since the epoch.", [
      [{}, secondsOf(daemon.startedAt)],
    ]),
    gauge("tnblock_collected_time_seconds", "When these figures were taken, since the epoch.", [
      [{}, secondsOf(state.time)],
    ]),

    counter(
      "tnblock_requests_total",
      "Requests of Proxmox VE that were answered.",
      requests.byMethod.map(({ method, count }) => [{ method }, count]),
    ),
    counter(
      "tnblock_request_errors_total",
      "Requests that failed, by error code.",
      requests.byMethod.flatMap(({ method, failed }) =>
        Object.entries(failed).map(([code, count]): Sample => [{ method, code }, count])
      ),
    ),
    family(
      "histogram",
      "tnblock_request_duration_seconds",
      "Time from a request to its answer.",
      requests.byMethod.flatMap((one) => histogram(one, daemon.latencyBuckets)),
    ),
    gauge("tnblock_requests_in_progress", "Requests under way, those past their deadline too.", [
      [{}, requests.underWay],
    ]),

    counter(
      "tnblock_array_calls_total",
      "Calls on arrays for requests and memories.",
      daemon.arrayCalls.map(({ method, count }) => [{ method }, count]),
    ),
    counter(
      "tnblock_array_call_errors_total",
      "Calls on arrays that failed or were refused.",
      daemon.arrayCalls.map(({ method, failed }) => [{ method }, failed]),
    ),
    counter(
      "tnblock_array_call_seconds_total",
      "Time that calls on arrays took.",
      daemon.arrayCalls.map(({ method, seconds }) => [{ method }, seconds]),
    ),

    ...linkMetrics(links),
    ...storageMetrics(storages),

    gauge("tnblock_journal_open", "Operations in the journal, those under way too.", [
      [{}, journal.open.length],
    ]),
    gauge("tnblock_journal_given_up", "Operations that need somebody's hand.", [
      [{}, journal.open.filter(({ isGivenUp }) => isGivenUp).length + journal.unread.length],
    ]),
    gauge("tnblock_process_resident_memory_bytes", "Memory of the daemon.", [
      [{}, daemon.residentBytes],
    ]),
    counter("tnblock_process_cpu_seconds_total", "Time of processors that the daemon has used.", [
      [{}, daemon.cpuSeconds],
    ]),
    gauge("tnblock_event_loop_lag_seconds", "The longest wait for the program itself of late.", [
      [{}, daemon.loopLagSeconds],
    ]),
  ].join("");
}

/** Links with the same addresses (an old key and a new one) count as one array. */
function linkMetrics(links: DaemonState["links"]): string[] {
  const byArray = new Map<string, DaemonState["links"][number][]>();
  for (const link of links) {
    const array = link.hosts.join(",");
    byArray.set(array, [...byArray.get(array) ?? [], link]);
  }
  const arrays = [...byArray];
  const sum = (of: (link: DaemonState["links"][number]) => number) =>
    arrays.map(([array, own]): Sample => [
      { array },
      own.reduce((all, link) => all + of(link), 0),
    ]);
  const any = (of: (link: DaemonState["links"][number]) => boolean) =>
    arrays.map(([array, own]): Sample => [{ array }, own.some(of) ? 1 : 0]);
  return [
    gauge("tnblock_array_up", "Whether there is a session with the array.", any(isUp)),
    gauge(
      "tnblock_array_session_start_time_seconds",
      "Since when the session has been up, since the epoch.",
      arrays.flatMap(([array, own]) => {
        const up = own.filter(isUp).map(({ since }) => secondsOf(since));
        return up.length === 0 ? [] : [[{ array }, Math.min(...up)] as Sample];
      }),
    ),
    counter("tnblock_array_logins_total", "Logins that were tried.", sum(({ logins }) => logins)),
    counter(
      "tnblock_array_sessions_total",
      "Sessions that were opened; each but the first is a reconnect.",
      sum(({ sessions }) => sessions),
    ),
    gauge(
      "tnblock_array_login_locked",
      "Whether logins wait because there were too many.",
      any(({ error }) => error?.code === "rate-limited"),
    ),
    gauge(
      "tnblock_array_queue_depth",
      "Writes that wait for their turn.",
      arrays.flatMap(([array, own]) => {
        const services = [...new Set(own.flatMap(({ queued }) => Object.keys(queued)))].sort();
        return services.map((service): Sample => [
          { array, service },
          own.reduce((all, { queued }) => all + (queued[service] ?? 0), 0),
        ]);
      }),
    ),
    gauge(
      "tnblock_array_writes_in_progress",
      "Writes that the array is at work on.",
      sum(({ writing }) => writing),
    ),
  ];
}

function storageMetrics(storages: State["storages"]): string[] {
  /** One sample for each storage that has the figure. */
  const each = (of: (storage: State["storages"][number]) => number | null | undefined): Sample[] =>
    storages.flatMap((storage) => {
      const value = of(storage);
      return value === null || value === undefined ? [] : [[{ storage: storage.id }, value]];
    });
  const usable = storages.filter(({ error }) => error === null);
  const perUsable = (of: (storage: State["storages"][number]) => number): Sample[] =>
    usable.map((storage) => [{ storage: storage.id }, of(storage)]);
  return [
    gauge(
      "tnblock_storage_active",
      "Whether the storage answers from what is known to be true.",
      storages.map(({ id, memory }) => [
        { storage: id },
        memory !== null && memory.trust !== "none" ? 1 : 0,
      ]),
    ),
    gauge(
      "tnblock_memory_age_seconds",
      "Since when what is remembered is not known to be true.",
      each(({ memory }) => memory?.ageSeconds),
    ),
    counter(
      "tnblock_memory_reads_total",
      "Reads of the array for the memory.",
      each(({ memory }) => memory?.reads),
    ),
    gauge(
      "tnblock_memory_followed",
      "Whether the array tells of changes.",
      each(({ memory }) => memory === null ? null : Number(memory.followed)),
    ),
    gauge("tnblock_volumes", "Volumes of the storage.", each(({ memory }) => memory?.volumes)),
    gauge("tnblock_volumes_limit", "The most that it can hold.", each((one) => one.volumeLimit)),
    gauge(
      "tnblock_dataset_used_bytes",
      "What the storage's dataset has taken.",
      each(({ space }) => space?.used),
    ),
    gauge(
      "tnblock_dataset_available_bytes",
      "What the storage's dataset may still take.",
      each(({ space }) => space?.available),
    ),
    gauge(
      "tnblock_pool_healthy",
      "Whether the pool is ONLINE.",
      storages.flatMap(({ id, pool }): Sample[] =>
        pool === null ? [] : [[{ storage: id, pool: pool.name }, Number(pool.status === "ONLINE")]]
      ),
    ),
    gauge(
      "tnblock_portal_up",
      "Whether this node is connected to the portal.",
      // An alert for what nobody has looked at yet would come with each start.
      storages.flatMap(({ id, portals }) =>
        portals.filter(({ state }) => state !== "unseen").map(({ address, state }): Sample => [
          { storage: id, portal: address },
          Number(state === "live"),
        ])
      ),
    ),
    gauge(
      "tnblock_portals_configured",
      "Portals of the storage.",
      perUsable(({ portals }) => portals.length),
    ),
    gauge(
      "tnblock_portal_link_bytes_per_second",
      "Speed of the node's interface that leads to the portal.",
      storages.flatMap(({ id, portals }) =>
        portals.flatMap(({ address, bytesPerSecond }): Sample[] =>
          bytesPerSecond === null ? [] : [[{ storage: id, portal: address }, bytesPerSecond]]
        )
      ),
    ),
    gauge("tnblock_disks_attached", "Disks on this node.", perUsable(({ disks }) => disks.length)),
    gauge(
      "tnblock_disks_in_use",
      "Disks on this node that somebody has open.",
      perUsable(({ disks }) => disks.filter(({ inUse }) => inUse === true).length),
    ),
    gauge(
      "tnblock_disk_paths",
      "Paths that carry the disks on this node, all together.",
      perUsable(({ disks }) => disks.reduce((sum, { pathsUp }) => sum + pathsUp, 0)),
    ),
    gauge(
      "tnblock_disk_paths_configured",
      "Paths that could carry them.",
      perUsable(({ disks }) => disks.reduce((sum, one) => sum + one.pathsConfigured, 0)),
    ),
  ];
}

function isUp({ state }: DaemonState["links"][number]): boolean {
  return state === "up";
}

function histogram(
  { method, count, seconds }: DaemonState["requests"]["byMethod"][number],
  bounds: readonly number[],
): Sample[] {
  const labels = [...bounds.map(String), "+Inf"];
  return [
    ...labels.map((le, index): Sample => [
      { method, le },
      seconds.buckets[index] ?? count,
      "_bucket",
    ]),
    [{ method }, seconds.sum, "_sum"],
    [{ method }, count, "_count"],
  ];
}

function gauge(name: string, help: string, samples: readonly Sample[]): string {
  return family("gauge", name, help, samples);
}

function counter(name: string, help: string, samples: readonly Sample[]): string {
  return family("counter", name, help, samples);
}

function family(type: string, name: string, help: string, samples: readonly Sample[]): string {
  if (samples.length === 0) return "";
  const lines = samples.map(([labels, value, suffix = ""]) => {
    const text = Object.entries(labels).map(([key, text]) => `${key}="${escaped(text)}"`).join(",");
    return `${name}${suffix}${text === "" ? "" : `{${text}}`} ${value}\n`;
  });
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function escaped(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n");
}

function secondsOf(iso: string): number {
  return Date.parse(iso) / 1000;
}
