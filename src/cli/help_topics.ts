/** What `tnblock help` knows besides the commands: exit statuses, the environment, files. */
import { EXIT } from "./framework.ts";

/** A topic: what it is about in a few words, and its text. */
export interface HelpTopic {
  readonly about: string;
  readonly text: string;
}

/** Each status with its meaning; a test holds it against {@link EXIT}. */
export const EXIT_MEANINGS: Readonly<Record<keyof typeof EXIT, string>> = {
  done: "done, or already so",
  failed: "failed, and nothing more specific; status: something is degraded",
  usage: "a mistake in usage or configuration; nothing was touched",
  notFound: "not found",
  denied: "the array refused the key, or its user lacks a right; or only root may",
  inUse: "refused: in use, not ours, or something cannot be told now",
  unreachable: "the array or the network cannot be reached, or its certificate is not trusted",
  timeout: "a deadline passed",
  partly: "partly done: some items failed; doctor --strict: warnings only",
  findings: "doctor found errors",
  interrupted: "left at a question, or interrupted",
};

/** Variables that we read, with what they do. */
export const VARIABLES: readonly (readonly [name: string, about: string])[] = [
  ["TNBLOCK_ROOT", "folder that stands for the root of the file system, as --root"],
  ["TNBLOCK_DIRECT", "1: tnblock hook does the work itself although a daemon runs"],
  ["TNBLOCK_LOGIN_BUDGET", "0: logins are not limited to what TrueNAS takes a minute; for tests"],
  ["TNBLOCK_TRACE", "1: an unexpected failure is printed with its stack, as --debug"],
  ["NO_COLOR", "anything: no colours, whatever else says so (no-color.org), as --no-color"],
  ["CLICOLOR_FORCE", "anything but 0: colours although nobody reads them in a terminal"],
  ["TERM", "dumb: no colours"],
];

/** Files and folders, with what they hold. */
export const FILES: readonly (readonly [path: string, about: string])[] = [
  ["/etc/pve/storage.cfg", "the storages: sections of type tnblock (docs/options.md)"],
  ["/etc/pve/priv/storage/ID.tnblock", "the secrets of a storage, readable by root alone"],
  ["/usr/local/bin/tnblock", "this program"],
  [
    "/usr/share/perl5/PVE/Storage/Custom/TnblockPlugin.pm",
    "the plugin that Proxmox VE loads, and that asks this program",
  ],
  ["/etc/systemd/system/tnblock.service, .socket", "the daemon's units"],
  ["/run/tnblock/daemon.sock", "where the daemon is asked; root's alone"],
  ["/run/tnblock/metrics.prom", "figures for Prometheus (docs/operating.md)"],
  ["/dev/tnblock/ID/", "links to the disks of a storage, by identity"],
  ["/var/lib/tnblock/", "what the daemon keeps: known disks, the last listings"],
  ["/var/lib/tnblock/journal/", "changing operations that are under way, or were stopped"],
  ["/var/lib/tnblock/install/", "what install has replaced"],
  ["/var/log/tnblock/", "records of what cleanup-orphans removed"],
];

const rows = (pairs: readonly (readonly [string, string])[]) =>
  pairs.map(([name, about]) => `  ${name}\n      ${about}\n`).join("");

/** All topics by their names. */
export const HELP_TOPICS: Readonly<Record<string, HelpTopic>> = {
  "exit-codes": {
    about: "what a command ends with",
    text: "What a command ends with:\n\n" +
      Object.entries(EXIT_MEANINGS).map(([name, about]) =>
        `  ${String(EXIT[name as keyof typeof EXIT]).padStart(3)}  ${about}\n`
      ).join("") +
      "\ntnblock hook tells failures in its answer, and ends with 0 or 1.\n",
  },
  "environment": {
    about: "variables that are read",
    text: `Variables that are read; a flag wins over its variable:\n\n${rows(VARIABLES)}` +
      "\nNo secret is taken from the environment, and no .env file is read.\n",
  },
  "files": {
    about: "where things are",
    text: `Where things are:\n\n${rows(FILES)}`,
  },
};
