/** How long things may take on the node, in one place and each with its reason. All in milliseconds. */

/**
 * Pauses before the first, second, ... look at a condition; the last one is repeated. A disk is in
 * sysfs 34 to 102 ms after the array has it, and a look costs 0.1 ms: eager at first, then patient.
 */
export const BACK_OFF_MS: readonly number[] = [0, 10, 25, 50, 100, 250];

/** A TCP portal that lives answers in one round trip; a dropped SYN is sent again only after a second. */
export const PORTAL_PROBE_MS = 1_000;

/** A target that takes the connection and falls silent fails in the kernel after 10.3 s; then it is over. */
export const FABRICS_CONNECT_MS = 12_000;

/** `iscsiadm --login` with our record ends after 4.3 s at worst; a slow node gets twice that and more. */
export const ISCSI_LOGIN_MS = 15_000;

/** A local run of iscsiadm or multipathd takes 0.2 to 0.4 s in an emulated machine. */
export const PROGRAM_MS = 10_000;

/**
 * A `scan` or `rescan` on a path that has just died hangs in the kernel until the session's recovery
 * time-out: {@link ISCSI_REPLACEMENT_S} below a map, and this is a little longer. Without a map it is
 * {@link ISCSI_ONLY_PATH_S}: then we give up long before the kernel does, and its write goes on.
 */
export const SCSI_CONTROL_MS = 20_000;

/** `rescan_controller` and the like return in 5 to 250 ms. */
export const NVME_CONTROL_MS = 5_000;

/**
 * udev makes the link 0.3 to 1.3 s after sysfs in an emulated machine; behind a queue of many other disks, as
 * when a node boots, it was seen to take more than 5 s. Later than this it is broken.
 */
export const UDEV_LINK_MS = 30_000;

/** After a reuse of an nsid the kernel drops the disk and waits for a rescan; that long we wait for it by itself. */
export const NVME_RESCAN_AFTER_MS = 2_000;

/** A namespace that was switched off is gone from sysfs 30 to 250 ms later; longer is not worth waiting. */
export const NVME_GONE_MS = 2_000;

/** For locks of the node whose holder does one connect, one login or one scan at a time. */
export const NODE_LOCK_MS = 30_000;

/** Seconds (not milliseconds) after which a dead iSCSI path fails its commands, `replacement_timeout`. */
export const ISCSI_REPLACEMENT_S = 15;

/** The same where no map above the path keeps commands: a day, so that a guest waits for its array. */
export const ISCSI_ONLY_PATH_S = 86_400;

/** Seconds that one try of an iSCSI login may take, `login_timeout`. */
export const ISCSI_LOGIN_TRY_S = 3;
