/** The check for what is left on the array. */
import { guestVolnames } from "../../host/guest_volnames.ts";
import { orphanSigns } from "../../volumes/orphan_signs.ts";
import { isIscsi } from "../array_facts.ts";
import { check } from "../check.ts";
import { cleanUp, count, rebind, some } from "../commands.ts";
import { guide } from "../guide.ts";

const orphans = check({
  id: "orphans",
  title: "nothing is left on the array that nobody needs",
  needs: "array",
  run: async (array) => {
    const { storage, menus } = array;
    const { host } = storage.node;
    const [listing, guests] = await Promise.all([
      array.listing(),
      guestVolnames(host, storage.id),
    ]);
    if (listing === undefined) return [];
    const iscsi = isIscsi(array) ? await array.iscsi() : undefined;
    const nvme = !isIscsi(array) && array.release.can.nvmet ? await array.nvme() : undefined;
    const signs = orphanSigns(storage.storage, {
      zvols: listing.zvols,
      extents: iscsi?.extents ?? [],
      mappings: iscsi?.mappings.filter((row) => row.target === iscsi.target?.id) ?? [],
      namespaces: nvme?.namespaces.filter((row) => row.subsystem === nvme.subsystem?.id) ?? [],
      volnames: guests.unread.length === 0 ? guests.volnames : undefined,
      nowMs: host.now(),
    });
    const kinds: [readonly (string | number)[], string, string][] = [
      [signs.mappings, "mapping", "without an extent"],
      [signs.exports, "export", "without a zvol"],
      [signs.unexported, "volume", "that nothing exports"],
      [signs.unnamed, "volume", "that no guest names"],
    ];
    const found = kinds.filter(([list]) => list.length > 0);
    if (found.length === 0) return [];
    const names = [...signs.exports, ...signs.unexported, ...signs.unnamed];
    const own = names.map((name) => name.slice(storage.settings.dataset.length + 1));
    return [{
      severity: "warning",
      text: `${found.map(([list, noun, why]) => `${count(list.length, noun)} ${why}`).join(", ")}${
        own.length === 0 ? "" : `: ${some(own)}`
      }`,
      guide: guide(
        storage.again("orphans"),
        `See what they are, and what speaks for keeping each: ${cleanUp(storage.id)} --dry-run`,
        `Give a volume of a guest that lost its export that back: ${rebind(storage.id, "NAME")}`,
        "Let guests that lost a disk from their configuration have it again: qm disk rescan",
        `Remove the rest, one by one after a question: ${
          cleanUp(storage.id)
        }; what it does not offer is yours to look at: ${menus.datasets}`,
      ),
    }];
  },
});

/** All of them. */
export const ORPHAN_CHECKS = [orphans] as const;
