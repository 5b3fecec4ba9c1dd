/** The table of all checks, in the order in which they are told. */
import type { Check } from "../check.ts";
import { API_CHECKS } from "./api.ts";
import { ARRAY_CHECKS } from "./array.ts";
import { CLUSTER_CHECKS } from "./cluster.ts";
import { CONFIG_CHECKS } from "./config.ts";
import { DAEMON_CHECKS } from "./daemon.ts";
import { EXPORT_CHECKS } from "./exports.ts";
import { ISCSI_CHECKS } from "./iscsi.ts";
import { NODE_CHECKS } from "./node.ts";
import { NVME_CHECKS } from "./nvme.ts";
import { ORPHAN_CHECKS } from "./orphans.ts";
import { PATH_CHECKS } from "./paths.ts";
import { PERL_PLUGIN_CHECKS } from "./perl_plugin.ts";
import { RELEASE_CHECKS } from "./release.ts";
import { RIGHTS_CHECKS } from "./rights.ts";
import { SURROUNDINGS_CHECKS } from "./surroundings.ts";

/** Every check; their ids are all different. */
export const CHECKS: readonly Check[] = [
  ...NODE_CHECKS,
  ...DAEMON_CHECKS,
  ...PERL_PLUGIN_CHECKS,
  ...CONFIG_CHECKS,
  ...SURROUNDINGS_CHECKS,
  ...API_CHECKS,
  ...RELEASE_CHECKS,
  ...RIGHTS_CHECKS,
  ...ARRAY_CHECKS,
  ...EXPORT_CHECKS,
  ...ORPHAN_CHECKS,
  ...NVME_CHECKS,
  ...ISCSI_CHECKS,
  ...PATH_CHECKS,
  ...CLUSTER_CHECKS,
];
