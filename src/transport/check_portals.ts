/** Comparing the portals of a storage with those that the array offers. */
import { TnblockError } from "../common/error.ts";
import { formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";

/** Listening on one of these is listening everywhere. */
export const EVERY_ADDRESS: readonly string[] = ["0.0.0.0", "::"];

/** What is compared. */
export interface PortalCheck {
  /** The target or subsystem, in words. */
  readonly what: string;
  readonly configured: readonly Portal[];
  /** For the message. */
  readonly offered: readonly Portal[];
  readonly isOffered: (portal: Portal) => boolean;
  /** What to do on the array. */
  readonly remedy: string;
}

/**
 * @returns a warning when some of the configured portals are not offered.
 * @throws TnblockError `config` when none of them is.
 */
export function checkPortals(check: PortalCheck): string[] {
  const missing = check.configured.filter((portal) => !check.isOffered(portal));
  if (missing.length === 0) return [];
  const there = check.offered.map(formatPortal).join(", ") || "no portal";
  const text = `${check.what} is not offered at ${
    missing.map(formatPortal).join(", ")
  }, but at ${there}`;
  if (missing.length < check.configured.length) return [text];
  throw new TnblockError("config", `Cannot reach the volumes: ${text}`, {
    field: "tnb-portals",
    hint: `${check.remedy}, or correct tnb-discovery-portal and tnb-portals`,
  });
}
