/**
 * Makes what the plan says, in its order. What takes a step back is noted before the step, whose failure may have
 * done it all the same; on a failure everything made is undone, last first, and each is told.
 */
import { Cancelled } from "../common/asking.ts";
import { asTnblockError, TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { openNodeSession } from "../pve/node_session.ts";
import { parseStorageCfg, STORAGE_CFG } from "../pve/storage_cfg.ts";
import * as filesystems from "../truenas/filesystems.ts";
import { apiOf, type Draft } from "./draft.ts";
import { askNode, type ClusterFacts } from "./node_facts.ts";
import type { Plan, Step } from "./plan.ts";
import { makeIscsi } from "./make_iscsi.ts";
import { makeNvme } from "./make_nvme.ts";
import { addStorage, changeStorage } from "./add_storage.ts";
import { makeChapSecret, makeDhchapSecret } from "./secrets.ts";
import { tryVolume } from "./test_volume.ts";
import type { Work } from "./work.ts";
import type { SetupWorld } from "./world.ts";

/** Milliseconds to reach the array again for undoing. */
const RECONNECT_MS = 30_000;

/**
 * Does it all.
 *
 * @throws TnblockError after everything was undone, or with what was not; Cancelled when the user left meanwhile.
 */
export async function carryOut(
  world: SetupWorld,
  draft: Draft,
  cluster: ClusterFacts,
  plan: Plan,
): Promise<void> {
  const undos: { what: string; undo: () => Promise<boolean> }[] = [];
  let session = draft.session;
  const work: Work = {
    ...{ world, draft, cluster },
    array: async () => {
      if (!session.isOpen) {
        session = await openNodeSession(
          { host: world.host, limitLogins: world.limitLogins, dialectFile: DIALECT_FILE },
          apiOf(draft),
          { deadlineMs: RECONNECT_MS },
        );
      }
      return session;
    },
    onFailure: (what, undo) => void undos.push({ what, undo }),
    secrets: secretsOf(world, draft),
    made: new Map(),
    hostNames: namesOf(draft, cluster),
    targetName: draft.target.isNew ? undefined : draft.target.name,
  };
  try {
    for (const step of plan.steps) {
      if (world.signal?.aborted === true) throw new Cancelled();
      world.tell(`${step.about} …`);
      await attempt(`Cannot go on with: ${step.about}`, () => doStep(work, step));
    }
  } catch (error) {
    // Ctrl-C in a terminal ends the programs that run as well.
    const isLeaving = error instanceof Cancelled || world.signal?.aborted === true;
    const failure = isLeaving ? new Cancelled() : asTnblockError(error);
    if (!(failure instanceof Cancelled)) world.tell(`failed: ${failure.message}`);
    await undoAll(world, undos, failure);
  } finally {
    if (session !== draft.session) session.close();
  }
}

/** Where the storage's own sessions note the dialect, too. */
const DIALECT_FILE = "/run/tnblock/setup.dialect";

async function undoAll(
  { tell }: SetupWorld,
  undos: { readonly what: string; readonly undo: () => Promise<boolean> }[],
  failure: TnblockError | Cancelled,
): Promise<never> {
  const left = undos.map(({ what }) => what);
  for (const { what, undo } of undos.toReversed()) {
    try {
      if (await undo()) tell(`  undone: ${what}`);
      left.pop();
    } catch (error) {
      tell(`  not undone: ${what}: ${asTnblockError(error).message}`);
      // What was made earlier carries it: it stays too.
      break;
    }
  }
  const state = left.length === 0 ? "everything is as it was" : `left: ${left.join(", ")}`;
  if (failure instanceof Cancelled) {
    tell(left.length === 0 ? "Everything is as it was." : `Left: ${left.join(", ")}`);
    throw failure;
  }
  throw new TnblockError(failure.code, `Cannot set up the storage: ${failure.message}; ${state}`, {
    cause: failure,
    ...(failure.hint === undefined ? {} : { hint: failure.hint }),
  });
}

async function doStep(work: Work, { action }: Step): Promise<void> {
  const { world, draft, cluster } = work;
  switch (action.kind) {
    case "identity": {
      const node = cluster.cluster.nodes.find(({ name }) => name === action.node);
      if (node === undefined) return;
      // It stays whatever comes: a node needs one, and nothing can be done with it alone.
      const { hostNqn } = await askNode(world, node, { makeIdentity: true });
      if (hostNqn === null) {
        throw new TnblockError("host-fault", `Cannot give node ${node.name} an NVMe host name`);
      }
      work.hostNames.set(node.name, hostNqn);
      return;
    }
    case "dataset":
      return await makeDataset(work, action.name);
    case "iscsi-portal":
    case "initiators":
    case "more-initiators":
    case "chap-user":
    case "target":
      return await makeIscsi(work, action);
    case "nvme-port":
    case "subsystem":
    case "show":
    case "host":
    case "allow":
      return await makeNvme(work, action);
    case "secrets":
      return await writeSecrets(work, action.path);
    case "storage":
      return await addStorage(work, action.id, action.options);
    case "change":
      return await changeStorage(work, action);
    case "try": {
      const text = await world.host.files.readText(STORAGE_CFG) ?? "";
      const section = parseStorageCfg(text).find(({ id }) => id === draft.id);
      if (section === undefined) {
        throw new TnblockError(
          "host-fault",
          `Cannot try "${draft.id}": it is not in ${STORAGE_CFG}`,
        );
      }
      return await tryVolume(world, { ...section, sessions: { session: work.array } });
    }
  }
}

async function makeDataset(work: Work, name: string): Promise<void> {
  work.onFailure(`dataset ${name}`, async () => {
    const array = await work.array();
    if (!(await filesystems.all(array)).some((one) => one.name === name)) return false;
    await filesystems.remove(array, name);
    return true;
  });
  await filesystems.create(await work.array(), name);
}

async function writeSecrets({ world, secrets, onFailure }: Work, path: string): Promise<void> {
  const { files } = world.host;
  const before = await files.readText(path);
  onFailure(`secrets in ${path}`, async () => {
    if (before === undefined) return await files.remove(path);
    await files.replaceText(path, before, 0o600);
    return true;
  });
  await files.replaceText(path, `${JSON.stringify(secrets)}\n`, 0o600);
}

/** The names that nodes have already. */
function namesOf({ transport }: Draft, { asked }: ClusterFacts): Map<string, string> {
  return new Map(asked.flatMap(({ node, facts }): [string, string][] => {
    if (facts instanceof TnblockError) return [];
    const name = transport === "iscsi" ? facts.initiator : facts.hostNqn;
    return name === null ? [] : [[node.name, name]];
  }));
}

/** Those that were given, and those that are made now. */
function secretsOf({ host }: SetupWorld, draft: Draft): Record<string, string> {
  const given = Object.entries(draft.givenSecrets).filter(([name]) => !name.endsWith("-user"));
  const secrets: Record<string, string> = {
    "tnb-api-key": draft.key,
    ...Object.fromEntries(given),
  };
  if (draft.proof === "none") return secrets;
  const [one, other] = draft.transport === "iscsi"
    ? ["tnb-chap-password", "tnb-chap-peer-password"] as const
    : ["tnb-dhchap-secret", "tnb-dhchap-ctrl-secret"] as const;
  const make = () => draft.transport === "iscsi" ? makeChapSecret(host) : makeDhchapSecret(host);
  secrets[one] = make();
  if (draft.proof === "mutual") secrets[other] = make();
  return secrets;
}
