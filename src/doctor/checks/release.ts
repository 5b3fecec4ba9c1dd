/** The check of the array's release, and of faults that releases are known for. */
import { TnblockError } from "../../common/error.ts";
import { isAtLeast, type Release } from "../../truenas/dialect.ts";
import { compareReleases } from "../../truenas/dialect.ts";
import type { ArrayContext } from "../array_context.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { guide } from "../guide.ts";

/** What is known of releases that bites in practice. */
interface KnownFault {
  readonly affects: (release: Release, array: ArrayContext) => boolean;
  readonly text: (release: Release) => string;
  readonly severity: "error" | "warning";
  readonly remedy: string;
}

/** The newest line that this tnblock was tried with. */
const NEWEST: readonly [number, number] = [27, 0];

const isBefore = (release: Release, numbers: readonly number[], preview?: string) =>
  compareReleases(release, { numbers, preview }) < 0;

/**
 * Faults of TrueNAS by release. A namespace that is in the database and not in the kernel is looked for by
 * `exports-seen`; here stands what can be told beforehand.
 */
const FAULTS: readonly KnownFault[] = [
  {
    // e3b14c4519 in truenas/middleware: a reload gives up when a host is connected.
    affects: (release, { storage }) =>
      storage.settings.transport.kind === "nvme-tcp" && isAtLeast(release, 26, 0) &&
      isBefore(release, [26, 0, 0], "BETA.2"),
    text: ({ text }) =>
      `TrueNAS ${text} may leave new NVMe namespaces out of its kernel while hosts are connected (fixed in ` +
      `26.0.0-BETA.2)`,
    severity: "warning",
    remedy: "Update TrueNAS to 26.0.0-BETA.2 or newer",
  },
  {
    affects: (release) => isAtLeast(release, ...NEWEST),
    text: ({ text }) =>
      `TrueNAS ${text} is newer than what this tnblock was tried with (25.04 to 26)`,
    severity: "warning",
    remedy:
      "Update tnblock on all nodes when there is a version for it: tnblock install --all-nodes",
  },
];

const releaseCheck = check({
  id: "release",
  title: "the array's release of TrueNAS is one that tnblock knows, without a fault that bites",
  needs: "storage",
  run: async (storage) => {
    const array = await storage.array();
    if (array instanceof TnblockError) {
      if (array.code !== "unsupported") throw new Skipped("the array cannot be asked");
      return [{
        severity: "error",
        text: array.message,
        guide: guide(
          storage.again("release"),
          `Open TrueNAS and see its release: https://${storage.settings.api.hosts[0]}, Dashboard`,
          "Read the notes of the releases up to the one that you want",
          "Update TrueNAS to 25.04 or newer, for NVMe/TCP to 25.10 or newer: System > Update",
          `Where REST is set, take it away for 26 and newer: pvesm set ${storage.id} --tnb-api-transport ws`,
        ),
      }];
    }
    const { release, menus } = array;
    return FAULTS.filter(({ affects }) => affects(release, array)).map((fault): Problem => ({
      severity: fault.severity,
      text: fault.text(release),
      guide: guide(
        storage.again("release"),
        `See which release there is to update to: ${menus.update}`,
        "Read its notes for what concerns iSCSI and NVMe-oF",
        fault.remedy,
        "See that all volumes are offered afterwards: tnblock doctor exports-seen",
      ),
    }));
  },
});

/** All of them. */
export const RELEASE_CHECKS = [releaseCheck] as const;
