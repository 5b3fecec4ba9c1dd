/** Where `tnblock install` puts things, and the node's programs that it runs. */

export { PROGRAM } from "../daemon/unit.ts";

/** Every `*.pm` in this folder is loaded by Proxmox VE; the path is fixed in its `PVE/Storage.pm`. */
export const CUSTOM_PLUGINS = "/usr/share/perl5/PVE/Storage/Custom";
export const SHIM_FILE = `${CUSTOM_PLUGINS}/TnblockPlugin.pm`;
export const UNIT_FOLDER = "/etc/systemd/system";
export const MULTIPATH_CONF = "/etc/multipath.conf";
/** multipath-tools' own `config_dir`, read after `/etc/multipath.conf`, by name. */
export const MULTIPATH_FOLDER = "/etc/multipath/conf.d";
export const MULTIPATH_FILE = `${MULTIPATH_FOLDER}/tnblock.conf`;
export const NVME_RULE_FILE = "/etc/udev/rules.d/71-tnblock.rules";
export const LVM_CONF = "/etc/lvm/lvm.conf";
/** What stands here wins over {@link LVM_CONF} (lvm.conf(5)). */
export const LVM_LOCAL_CONF = "/etc/lvm/lvmlocal.conf";

/** Where each shell looks for completions of programs that no package has brought. */
export const COMPLETION_FILES = {
  bash: "/usr/local/share/bash-completion/completions/tnblock",
  zsh: "/usr/local/share/zsh/site-functions/_tnblock",
  fish: "/usr/local/share/fish/vendor_completions.d/tnblock.fish",
} as const;

/** Our own notes: what was put where, and what was there before. */
export const NOTES_FOLDER = "/var/lib/tnblock/install";

export const RUN = {
  getconf: "/usr/bin/getconf",
  lvmconfig: "/usr/sbin/lvmconfig",
  lvs: "/usr/sbin/lvs",
  multipathd: "/usr/sbin/multipathd",
  perl: "/usr/bin/perl",
  pvesm: "/usr/sbin/pvesm",
  pvs: "/usr/sbin/pvs",
  systemctl: "/usr/bin/systemctl",
  udevadm: "/usr/bin/udevadm",
} as const;

/** Milliseconds for a program that only looks. */
export const LOOK_MS = 60_000;
/** Milliseconds for what starts, ends or reloads a service; the daemon's unit allows itself 180 s to end. */
export const SERVICE_MS = 240_000;

export const DAEMON_UNITS = ["tnblock.socket", "tnblock.service"] as const;

/**
 * Who holds the plugins of Proxmox VE loaded for its whole life. The package's trigger would reload the first
 * four (pve-manager, `debian/postinst`); the resource manager of HA has loaded them with the guests' code.
 */
export const PVE_SERVICES = ["pvedaemon", "pveproxy", "pvestatd", "pvescheduler", "pve-ha-lrm"]
  .map((name) => `${name}.service`);
