/** Checks of the daemon, its socket, and what was left half-done. */
import { DAEMON_SOCKET } from "../../daemon/serve.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { guide } from "../guide.ts";
import type { NodeContext } from "../node_context.ts";

/** Seconds that the daemon may be late with its work. */
const LATE_S = 1;

const daemon = check({
  id: "daemon",
  title: "the daemon runs, is of this version, and starts with the node",
  needs: "node",
  run: async (node) => {
    const [answer, unit] = await Promise.all([node.daemon(), node.unit("tnblock.service")]);
    const steps = (first: string, third: string) =>
      guide(
        node.again("daemon"),
        first,
        "Read its last words: journalctl -u tnblock -e",
        third,
        "See that it answers: tnblock status",
      );
    const look = "See how it is: systemctl status tnblock.socket tnblock.service";
    switch (answer.kind) {
      case "distrusted":
        throw new Skipped("its socket is not to be trusted: see socket");
      case "absent":
        return [{
          severity: "error",
          text: "the daemon does not run: Proxmox VE sees the storages as inactive",
          guide: steps(look, "Start it: systemctl enable --now tnblock.socket tnblock.service"),
        }];
      case "silent":
        return [{
          severity: "error",
          text: `the daemon does not answer as it should: ${answer.why}`,
          guide: steps(look, "Start it anew, which stops no guest: systemctl restart tnblock"),
        }];
    }
    const { daemon } = answer.state;
    if (daemon !== null && daemon.version !== node.version) {
      return [{
        severity: "warning",
        text: `the daemon is of version ${daemon.version}, and this program of ${node.version}`,
        guide: steps(
          "See which version is installed: /usr/local/bin/tnblock version",
          "Start the daemon anew, which stops no guest: systemctl restart tnblock",
        ),
      }];
    }
    if (unit.enabled !== "" && unit.enabled !== "enabled") {
      return [{
        severity: "warning",
        text: `the daemon does not start with the node: its unit is ${unit.enabled}`,
        guide: steps(look, "Let it start: systemctl enable tnblock.socket tnblock.service"),
      }];
    }
    if (daemon !== null && daemon.loopLagSeconds > LATE_S) {
      const late = daemon.loopLagSeconds.toFixed(1);
      return [{
        severity: "warning",
        text: `the daemon was ${late} s late with its work: the node has too little time for it`,
        guide: steps(
          "See what keeps the processors busy: top -b -n 1 | head -20, and cat /proc/pressure/cpu",
          "Give the node less to do, or move guests to other nodes: qm migrate VMID NODE --online",
        ),
      }];
    }
    return [];
  },
});

const socket = check({
  id: "socket",
  title: "the daemon's socket belongs to root alone",
  needs: "node",
  run: async (node) => {
    const [answer, status] = await Promise.all([
      node.daemon(),
      node.host.files.status(DAEMON_SOCKET),
    ]);
    const isOpen = status !== undefined && (status.mode & 0o077) !== 0;
    if (answer.kind !== "distrusted" && !isOpen) return [];
    const mode = ((status?.mode ?? 0) & 0o777).toString(8);
    return [{
      severity: "error",
      text: answer.kind === "distrusted"
        ? `the daemon's socket is not used: ${answer.why}`
        : `the daemon's socket can be used by others than root (mode ${mode})`,
      guide: guide(
        node.again("socket"),
        `See whose it is: ls -ld /run/tnblock ${DAEMON_SOCKET}`,
        "See who serves it: systemctl status tnblock.socket",
        `Remove it: systemctl stop tnblock.service tnblock.socket, then rm -f ${DAEMON_SOCKET}`,
        "Let systemd make it anew: systemctl start tnblock.socket tnblock.service",
      ),
    }];
  },
});

const journal = check({
  id: "journal",
  title: "no operation was left half-done",
  needs: "node",
  run: async (node) => {
    const answer = await node.daemon();
    const told = answer.kind === "answered" ? answer.state.journal : undefined;
    const open = told?.open.filter(({ isGivenUp, failures }) => isGivenUp || failures > 0) ?? [];
    const unread = told?.unread ?? (await node.journal()).unread;
    const steps = (first: string) =>
      guide(
        node.again("journal"),
        first,
        "Read what the daemon says of it: journalctl -u tnblock -g journal -e",
        "See that its array answers: tnblock status",
        "Let the daemon try again at once: systemctl restart tnblock",
      );
    const old = told === undefined ? await leftOpen(node) : [];
    return [
      ...open.map(({ op, zvol, storage, isGivenUp, why }): Problem => ({
        severity: isGivenUp ? "error" : "warning",
        text: `${op} of "${zvol}" on storage "${storage}" was stopped and ` +
          `${isGivenUp ? "is left as it is" : "is not ended yet"}${why === null ? "" : `: ${why}`}`,
        guide: steps(`See what there is of it on the array: tnblock list ${storage}`),
      })),
      ...old.map((text): Problem => ({
        severity: "warning",
        text,
        guide: steps("Start the daemon, which ends it: systemctl start tnblock"),
      })),
      ...unread.map((path): Problem => ({
        severity: "error",
        text: `the journal's entry ${path} cannot be read, and nobody ends what it began`,
        guide: steps(`Read it, and keep a copy of it: cat ${path}`),
      })),
    ];
  },
});

/** Without a daemon nobody ends what was stopped; what is younger than this may be under way. */
const LEFT_OPEN_MS = 300_000;

async function leftOpen(node: NodeContext): Promise<string[]> {
  const { entries } = await node.journal();
  const now = node.host.now();
  return entries.filter(({ startedMs }) => now - startedMs > LEFT_OPEN_MS).map(
    ({ details, zvol, storage }) =>
      `${details.op} of "${zvol}" on storage "${storage}" is not ended, and no daemon runs that would end it`,
  );
}

/** All of them. */
export const DAEMON_CHECKS = [daemon, socket, journal] as const;
