/** The check for plugins of other makers that work on the same array. */
import { check } from "../check.ts";
import { guide } from "../guide.ts";

const perlPlugin = check({
  id: "perl-plugin",
  title: "no plugin of another maker works on the same storages",
  needs: "node",
  run: async (node) => {
    const folder = "/usr/share/perl5/PVE/Storage/Custom";
    const [names, text, broker] = await Promise.all([
      node.host.files.list(folder),
      node.storageCfg().catch(() => ""),
      node.unit("truenas-plugin-broker.service"),
    ]);
    const plugins = (names ?? []).filter((name) => /truenas.*\.pm$/i.test(name));
    const foreign = foreignSections(text ?? "");
    const ours = new Set((await node.allSections()).map(({ config }) => config["tnb-dataset"]));
    const both = foreign.filter(({ dataset }) => dataset !== undefined && ours.has(dataset));
    const steps = (third: string) =>
      guide(
        node.again("perl-plugin"),
        `See what is installed: ls -l ${folder}`,
        "See which storages are of its type: grep -E '^(truenasplugin|truenas):' /etc/pve/storage.cfg",
        third,
        "See that Proxmox VE loads what is left without a complaint: pvesm apiinfo",
      );
    if (both.length > 0) {
      const list = both.map(({ id, dataset }) => `"${id}" (${dataset})`).join(", ");
      return [{
        severity: "error",
        text:
          `a storage of the Perl plugin has the same dataset as one of tnblock: ${list}; both would free each ` +
          `other's volumes`,
        guide: steps(
          `Let one of them have it: tnblock migrate ${both[0]?.id}, or pvesm remove ${
            both[0]?.id
          }, which leaves the volumes`,
        ),
      }];
    }
    if (foreign.length > 0 || (plugins.length === 0 && broker.active !== "active")) return [];
    return [{
      severity: "warning",
      text: plugins.length > 0
        ? `${plugins.join(", ")} is still installed, and no storage is of its type`
        : "the broker of the Perl plugin still runs, and no storage is of its type",
      guide: steps(
        `Remove it when no node needs it: systemctl disable --now truenas-plugin-broker; find its package by dpkg -S ${folder}/${
          plugins[0] ?? "FILE"
        } and apt remove that, or remove the file`,
      ),
    }];
  },
});

/** Sections of the Perl plugin's types, and the dataset that each names (`dataset`, from 2.1 on `tn_dataset`). */
function foreignSections(text: string): { readonly id: string; readonly dataset?: string }[] {
  return text.split(/\n(?=\S)/).flatMap((section) => {
    const id = /^(?:truenasplugin|truenas):\s*(\S+)/.exec(section)?.[1];
    const dataset = /^\s+(?:tn_|truenas_)?dataset\s+(\S+)/m.exec(section)?.[1];
    return id === undefined ? [] : [{ id, ...(dataset === undefined ? {} : { dataset }) }];
  });
}

/** All of them. */
export const PERL_PLUGIN_CHECKS = [perlPlugin] as const;
