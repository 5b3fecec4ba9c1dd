/** Checks of what is configured in the storages' sections and secrets. */
import { asTnblockError } from "../../common/error.ts";
import { readSecrets, secretsPath } from "../../pve/secrets.ts";
import { parseSettings } from "../../pve/settings.ts";
import { optionSchema, SECRET_OPTIONS } from "../../pve/options.ts";
import type { StorageSection } from "../../pve/storage_cfg.ts";
import { check, type Problem } from "../check.ts";
import { editStorage } from "../commands.ts";
import { guide } from "../guide.ts";
import type { NodeContext } from "../node_context.ts";

const options = check({
  id: "options",
  title: "every section of type tnblock has options that are known and fit together",
  needs: "node",
  run: async (node) => {
    const sections = await node.sections().catch(() => []);
    const problems = await Promise.all(sections.map((section) => optionProblem(node, section)));
    return problems.flat();
  },
});

async function optionProblem(node: NodeContext, section: StorageSection): Promise<Problem[]> {
  const { id, config } = section;
  const secrets = await readableSecrets(node, id);
  // A damaged file is told by the check of secrets.
  if (secrets === undefined) return [];
  const known = Object.fromEntries(
    Object.entries(secrets).filter(([name]) => SECRET_OPTIONS.includes(name)),
  );
  try {
    // That there is no key is told by the check of secrets.
    parseSettings(id, config, { "tnb-api-key": `1-${"x".repeat(64)}`, ...known });
    return [];
  } catch (error) {
    const { message, hint, field = "" } = asTnblockError(error);
    if (SECRET_OPTIONS.includes(field) && field in secrets) return [];
    const isUnknown = !(field in optionSchema.entries);
    return [{
      severity: "error",
      text: `storage "${id}": ${message}`,
      guide: guide(
        node.again("options"),
        `See the section: grep -A20 "^tnblock: ${id}$" /etc/pve/storage.cfg`,
        "See what each option takes: docs/options.md, or pvesm help set | grep tnb-",
        isUnknown
          ? `Take that line out of the section with an editor, or correct its name${
            hint === undefined ? "" : ` (${hint})`
          }: nano /etc/pve/storage.cfg`
          : `Correct it${hint === undefined ? "" : ` (${hint})`}: pvesm set ${id} --${
            field || "OPTION"
          } VALUE`,
        "Where a newer tnblock knows it, install that on all nodes before anybody edits a storage: tnblock install --all-nodes",
      ),
    }];
  }
}

async function readableSecrets(
  node: NodeContext,
  id: string,
): Promise<Record<string, unknown> | undefined> {
  return await readSecrets(node.host.files, id).catch(() => undefined);
}

const secrets = check({
  id: "secrets",
  title: "every storage has its secrets in a file that root alone can read",
  needs: "node",
  run: async (node) => {
    const sections = await node.sections().catch(() => []);
    const problems = await Promise.all(sections.map(({ id }) => secretProblem(node, id)));
    return problems.flat();
  },
});

async function secretProblem(node: NodeContext, id: string): Promise<Problem[]> {
  const path = secretsPath(id);
  const [status, held] = await Promise.all([
    node.host.files.status(path),
    readableSecrets(node, id),
  ]);
  const stranger = Object.keys(held ?? {}).find((name) => !SECRET_OPTIONS.includes(name));
  // pmxcfs shows all below priv/ as 0600, whatever was asked for: another mode is another file system.
  const text = status === undefined
    ? `storage "${id}" has no secrets: there is no ${path}`
    : (status.mode & 0o077) !== 0
    ? `${path} can be read by others than root (mode ${(status.mode & 0o777).toString(8)})`
    : held === undefined
    ? `${path} is damaged: it is no JSON object`
    : stranger !== undefined
    ? `${path} holds "${stranger}", which is no secret of a storage`
    : held["tnb-api-key"] === undefined
    ? `storage "${id}" has no API key in ${path}`
    : undefined;
  if (text === undefined) return [];
  return [{
    severity: "error",
    text,
    guide: guide(
      node.again("secrets"),
      `See the file, not its content: ls -l ${path}`,
      "See that the cluster's file system is mounted, and can be written: mount | grep /etc/pve; pvecm status",
      status === undefined
        ? "See whether another node has it, and this one has left the cluster: pvecm nodes"
        : (status.mode & 0o077) !== 0
        ? `Let nobody else read it: chmod 600 ${path}`
        : `Keep what is there, out of the way: mv ${path} /root/${id}.tnblock.old`,
      `Set the secrets anew, which are not shown: ${editStorage(id)}`,
    ),
  }];
}

const content = check({
  id: "content",
  title: "the storage is for disks of guests",
  needs: "storage",
  run: async ({ node, id, again }) => {
    const section = (await node.sections()).find((one) => one.id === id);
    const kinds = section?.config["content"]?.split(",").map((kind) => kind.trim());
    // Without the line PVE takes the type's default, which is both.
    if (kinds === undefined || kinds.some((kind) => kind === "images" || kind === "rootdir")) {
      return [];
    }
    return [{
      severity: "error",
      text: `storage "${id}" is for ${kinds.join(", ") || "nothing"} and not for disks of guests`,
      guide: guide(
        again("content"),
        `See the section: grep -A20 "^tnblock: ${id}$" /etc/pve/storage.cfg`,
        `Allow disks of virtual machines and containers: pvesm set ${id} --content images,rootdir`,
        "Take a storage of another type for backups, images of discs and templates",
        `See that it can be chosen: pvesm status --content images`,
      ),
    }];
  },
});

/** What no two storages may share. */
const EXCLUSIVE = ["tnb-dataset", "tnb-target-iqn", "tnb-subsystem-nqn"] as const;

const shared = check({
  id: "shared-target",
  title: "no two storages share a dataset, target or subsystem",
  needs: "node",
  run: async (node) => {
    const sections = await node.allSections();
    return EXCLUSIVE.flatMap((option) => {
      const byValue = new Map<string, string[]>();
      for (const { id, config } of sections) {
        const value = config[option];
        if (value === undefined) continue;
        const key = `${config["tnb-api-host"]} ${value}`;
        byValue.set(key, [...byValue.get(key) ?? [], id]);
      }
      return [...byValue].filter(([, ids]) => ids.length > 1).map(([key, ids]): Problem => ({
        severity: "error",
        text: `the storages ${ids.map((id) => `"${id}"`).join(" and ")} have the same ${option}, ${
          key.slice(key.indexOf(" ") + 1)
        }`,
        guide: guide(
          node.again("shared-target"),
          `See both sections: grep -A20 "^tnblock:" /etc/pve/storage.cfg`,
          `See which of them guests use: grep -rhoE "(${
            ids.join("|")
          }):[^, ]+" /etc/pve/nodes/*/qemu-server /etc/pve/nodes/*/lxc`,
          `Remove the one that none uses, which leaves the volumes: pvesm remove ${ids.at(-1)}`,
          "Make it anew with a dataset and a target or subsystem of its own: tnblock setup",
        ),
      }));
    });
  },
});

/** All of them. */
export const CONFIG_CHECKS = [options, secrets, shared, content] as const;
