/** The storage as it is going to be, and its running guests' disks on every node. */
import { Deadline } from "../common/deadline.ts";
import type { Cluster } from "../pve/cluster.ts";
import { type OpenStorage, openStorage } from "../pve/open_storage.ts";
import { secretsPath } from "../pve/secrets.ts";
import { type Attached, attachHere, attachOnNode } from "./attach.ts";
import type { Mapped } from "./findings.ts";
import type { MigrateWorld } from "./world.ts";

/** Opens the storage as it is going to be; its secrets are not in their place yet. */
export async function withStorage<T>(
  { host, log, limitLogins }: MigrateWorld,
  id: string,
  { config, secrets }: Mapped,
  ms: number,
  work: (storage: OpenStorage) => Promise<T>,
): Promise<T> {
  const files = {
    ...host.files,
    readText: (path: string) =>
      path === secretsPath(id)
        ? Promise.resolve(JSON.stringify(secrets))
        : host.files.readText(path),
  };
  const storage = await openStorage(
    { storage: id, config: { type: "tnblock", ...config }, node: host.nodeName },
    { host: { ...host, files }, log, limitLogins, setDebugLevel: () => {} },
    new Deadline(host, ms),
  );
  try {
    return await work(storage);
  } finally {
    await storage.close();
  }
}

/** Links the disks of guests that run, on all nodes at once. */
export async function attachEverywhere(
  { host, log, limitLogins }: MigrateWorld,
  cluster: Cluster,
  id: string,
  config: Readonly<Record<string, string>>,
): Promise<Attached[]> {
  const hook = { host, log, limitLogins, setDebugLevel: () => {} };
  return await Promise.all(
    cluster.nodes.map((node) =>
      node.isThis
        ? attachHere(hook, id, { type: "tnblock", ...config })
        : attachOnNode(host, node, id)
    ),
  );
}
