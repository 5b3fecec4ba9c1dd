/** Connecting to all portals of a storage side by side: one live portal is enough to go on. */
import { asTnblockError, TnblockError } from "../common/error.ts";
import type { Log } from "../common/log.ts";
import { formatPortal } from "../common/portal.ts";
import type { Portal } from "../common/storage_settings.ts";

/** `recovering`: the kernel has the connection and tries to bring it back by itself. */
export type PortalOutcome = "live" | "recovering";

/** Longest wait for a disk whose portals are connected: an array under load reloads for seconds. */
export const DISK_WAIT_MS = 30_000;

/**
 * Runs `connect` for each portal. What fails is a warning while another portal lives.
 *
 * @throws TnblockError that names every portal's reason when none lives, with code and hint of the most telling
 *   one; `unreachable` when all are only recovering.
 */
export async function connectAll(
  log: Log,
  what: string,
  portals: readonly Portal[],
  connect: (portal: Portal) => Promise<PortalOutcome>,
): Promise<void> {
  const outcomes = await Promise.allSettled(portals.map(connect));
  const live = outcomes.some((outcome) =>
    outcome.status === "fulfilled" && outcome.value === "live"
  );
  if (!live) throw nobodyLives(what, portals, outcomes);
  outcomes.forEach((outcome, index) => {
    const portal = portals[index];
    if (portal === undefined) return;
    if (outcome.status === "rejected") {
      const reason = outcome.reason instanceof Error
        ? outcome.reason.message
        : String(outcome.reason);
      log.warning(
        `one path is missing: ${reason}; it is tried again when the storage is activated next`,
      );
    } else if (outcome.value === "recovering") {
      log.warning(
        `one path is missing: ${
          formatPortal(portal)
        } of ${what} is being reconnected by the kernel`,
      );
    }
  });
}

function nobodyLives(
  what: string,
  portals: readonly Portal[],
  outcomes: readonly PromiseSettledResult<PortalOutcome>[],
): TnblockError {
  const failures = outcomes.flatMap((outcome) =>
    outcome.status === "rejected" ? [asTnblockError(outcome.reason)] : []
  );
  // A portal that says why tells more than one that says nothing.
  const failure = failures.find((reason) => !isSilence(reason)) ?? failures[0];
  if (failure === undefined) {
    return new TnblockError(
      "unreachable",
      `Cannot reach ${what}: every portal is being reconnected by the kernel`,
      { hint: `Check the network to ${portals.map(formatPortal).join(", ")}` },
    );
  }
  const recovering = portals.filter((_, index) => outcomes[index]?.status === "fulfilled")
    .map((portal) => `${formatPortal(portal)} is being reconnected by the kernel`);
  const others = new Set(failures.map(({ message }) => message));
  others.delete(failure.message);
  const also = [...others, ...recovering];
  if (also.length === 0) return failure;
  const { code, hint, steps, errno, field } = failure;
  return new TnblockError(code, [failure.message, ...also].join("; "), {
    cause: failure,
    ...(hint === undefined ? {} : { hint }),
    ...(steps === undefined ? {} : { steps }),
    ...(errno === undefined ? {} : { errno }),
    ...(field === undefined ? {} : { field }),
  });
}

function isSilence({ code }: TnblockError): boolean {
  return ["unreachable", "timeout", "busy"].includes(code);
}
