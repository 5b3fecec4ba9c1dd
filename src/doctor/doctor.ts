/**
 * Looks at a node, its storages and their arrays: runs the checks that are asked for, all at once, each with its own
 * deadline. What a check throws is a finding about the check; nothing that one does stops another.
 */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Host } from "../host/host.ts";
import { arrayErrorIn } from "../truenas/errors.ts";
import { ArraySessions } from "./array_sessions.ts";
import { type Check, type CheckResult, type Problem, Skipped } from "./check.ts";
import { CHECKS } from "./checks/all.ts";
import { askNodes } from "./ask_nodes.ts";
import type { ClusterContext } from "./cluster_context.ts";
import { guide } from "./guide.ts";
import { type NodeContext, nodeContext } from "./node_context.ts";
import { factsOf } from "./node_facts.ts";
import { type OpenedStorage, openStorages } from "./open_storages.ts";
import { readOnlyHost } from "./read_only_host.ts";
import type { StorageContext } from "./storage_context.ts";

/** What is looked at. */
export interface LookOptions {
  /** Only these checks; all of them when absent. */
  readonly ids?: readonly string[] | undefined;
  /** Only this storage. */
  readonly storage?: string | undefined;
  /** Whether all nodes are asked and compared. */
  readonly cluster?: boolean;
  /** Whether checks that read the arrays' objects run; yes unless told. Logging in is tried in any case. */
  readonly arrays?: boolean;
  /** Told of each result as it comes. */
  readonly onResult?: (result: CheckResult) => void;
}

/** What was found. */
export interface Look {
  readonly node: string;
  /** ISO 8601, UTC. */
  readonly time: string;
  readonly storages: readonly string[];
  /** In the order of the table of checks. */
  readonly results: readonly CheckResult[];
}

/** Milliseconds that a check may take, by what it needs. */
const PATIENCE: Readonly<Record<Check["needs"], number>> = {
  node: 15_000,
  storage: 25_000,
  array: 45_000,
  cluster: 90_000,
};

/** Failures of a call after which the others tell what is the matter. */
const TOLD_ELSEWHERE: Readonly<Record<string, string>> = {
  unsupported: "the array's release does not have it: see target",
  denied: "the API key may not read it: see api-rights",
  unreachable: "the array stopped answering: see api-reach",
  "rate-limited": "the array takes no login now: see api-key",
};

/** A doctor; it must be closed. Its sessions with the arrays last from one look to the next. */
export interface Doctor {
  look(options?: LookOptions): Promise<Look>;
  /** A context of the node, for what is told besides the checks. */
  node(): NodeContext;
  close(): Promise<void>;
}

/** What a doctor needs. */
export interface DoctorOptions {
  readonly host: Host;
  /** Of this program. */
  readonly version: string;
  /** The shim that belongs to it. */
  readonly shim: string;
  /** Whether logins draw on the node's budget. */
  readonly limitLogins: boolean;
  /** Instead of the table of all. */
  readonly checks?: readonly Check[];
  /** Instead of {@link PATIENCE}, in milliseconds. */
  readonly patienceMs?: number;
}

/** A doctor for a node. Whatever it is given, it only reads. */
export function openDoctor(options: DoctorOptions): Doctor {
  const { version, shim, checks = CHECKS } = options;
  const host = readOnlyHost(options.host);
  const sessions = new ArraySessions(host, options.limitLogins);
  const freshNode = () => nodeContext({ host, version, shim });

  const look = async (wanted: LookOptions = {}): Promise<Look> => {
    const chosen = choose(checks, wanted);
    const node = freshNode();
    const storages = await openStorages(node, sessions, wanted.storage);
    const results = chosen.map((one) => runFor(one, node, storages, wanted));
    const own = (await Promise.all(results)).flat();
    return {
      node: host.nodeName,
      time: new Date(host.now()).toISOString(),
      storages: storages.map(({ id }) => id),
      results: wanted.cluster === true ? [...own, ...await othersResults(node, wanted)] : own,
    };
  };

  /** What the other nodes found by themselves. */
  const othersResults = async (node: NodeContext, wanted: LookOptions): Promise<CheckResult[]> => {
    const { reports } = await clusterOf(node).catch(() => ({ reports: [] }));
    const results = reports.slice(1).flatMap(({ told }) =>
      told instanceof TnblockError ? [] : told.results
    );
    return results.filter(({ id, storage }) =>
      (wanted.ids === undefined || wanted.ids.includes(id)) &&
      (wanted.storage === undefined || storage === null || storage === wanted.storage)
    );
  };

  /** One check, for everything that it is about. */
  const runFor = async (
    one: Check,
    node: NodeContext,
    storages: readonly OpenedStorage[],
    wanted: LookOptions,
  ): Promise<CheckResult[]> => {
    switch (one.needs) {
      case "node":
        return [await run(one, node, null, wanted, () => one.run(node))];
      case "cluster": {
        const all = await run(one, node, null, wanted, async () => {
          const usables = storages.flatMap(({ context }) =>
            context instanceof TnblockError ? [] : [context]
          );
          const asked = await clusterOf(node).catch((error: unknown) => {
            // Told once.
            if (one.id === "cluster-nodes") throw error;
            throw new Skipped("the nodes are not known: see cluster-nodes");
          });
          return await one.run({ ...asked, storages: usables });
        });
        return [all];
      }
      case "storage":
        return await Promise.all(
          storages.map(({ id, context }) =>
            run(one, node, id, wanted, () => one.run(usable(context)))
          ),
        );
      case "array":
        return await Promise.all(
          storages.map(({ id, context }) =>
            run(one, node, id, wanted, async () => {
              const array = await usable(context).array();
              if (array instanceof TnblockError) throw new Skipped("the array cannot be asked");
              return await one.run(array);
            })
          ),
        );
    }
  };

  type Asked = Omit<ClusterContext, "storages">;
  const clusters = new WeakMap<NodeContext, Promise<Asked>>();
  const clusterOf = (node: NodeContext): Promise<Asked> => {
    const known = clusters.get(node) ?? askNodes(node, () => factsOf(node, []));
    clusters.set(node, known);
    return known;
  };

  const run = async (
    one: Check,
    node: NodeContext,
    storage: string | null,
    { onResult }: LookOptions,
    work: () => Promise<readonly Problem[]>,
  ): Promise<CheckResult> => {
    const start = host.monotonicMs();
    const about = { id: one.id, title: one.title, node: host.nodeName, storage };
    const end = (rest: Pick<CheckResult, "outcome" | "note" | "findings">): CheckResult => {
      const result = { ...about, milliseconds: Math.round(host.monotonicMs() - start), ...rest };
      onResult?.(result);
      return result;
    };
    const found = (problems: readonly Problem[]) =>
      problems.map((problem) => ({ ...problem, check: one.id, node: host.nodeName, storage }));
    const enough = new AbortController();
    const patience = options.patienceMs ?? PATIENCE[one.needs];
    try {
      const late = host.wait(patience, enough.signal).then(() => {
        throw new TnblockError("timeout", `it has not ended within ${patience / 1000} s`);
      });
      late.catch(() => {});
      // A check may throw at once, too.
      const working = Promise.resolve().then(work);
      working.catch(() => {});
      const problems = await Promise.race([working, late]);
      const outcome = problems.length === 0 ? "ok" : "found";
      return end({ outcome, note: null, findings: found(problems) });
    } catch (error) {
      const code = arrayErrorIn(error)?.code;
      const note = error instanceof Skipped ? error.message : TOLD_ELSEWHERE[code ?? ""];
      if (note !== undefined) return end({ outcome: "skipped", note, findings: [] });
      const again = node.again(one.id, storage ?? undefined);
      return end({ outcome: "broken", note: null, findings: found([broken(one, error, again)]) });
    } finally {
      enough.abort();
    }
  };

  return { look, node: freshNode, close: () => sessions.close() };
}

/** What is wrong with a check itself. */
function broken({ id }: Check, error: unknown, again: string): Problem {
  const { message } = asTnblockError(error);
  return {
    severity: "warning",
    text: `the check "${id}" could not look: ${message}`,
    guide: guide(
      again,
      "Look whether the node itself is well: uptime, then dmesg --level=err | tail",
      "Look whether the file system of the cluster answers: systemctl status pve-cluster, then ls /etc/pve",
      "Look whether the array answers: tnblock status",
      "If it stays so, report it as a defect with what tnblock doctor --report prints, which holds no secret",
    ),
  };
}

/** @throws TnblockError `invalid` for a check that there is not. */
function choose(checks: readonly Check[], { ids, cluster, arrays }: LookOptions): Check[] {
  const missing = ids?.find((id) => !checks.some((one) => one.id === id));
  if (missing !== undefined) {
    throw new TnblockError("invalid", `Cannot run the check "${missing}": there is none`, {
      hint: "See what there is: tnblock doctor --list",
    });
  }
  return checks.filter((one) =>
    (ids === undefined || ids.includes(one.id)) &&
    (one.needs !== "cluster" || cluster === true || ids?.includes(one.id) === true) &&
    (one.needs !== "array" || arrays !== false)
  );
}

function usable(context: StorageContext | TnblockError): StorageContext {
  if (context instanceof TnblockError) {
    throw new Skipped("its settings cannot be used: see options and secrets");
  }
  return context;
}
