/**
 * Who is connected, as far as the kernel tells. Both ends' addresses come from the network namespace's
 * own list of connections. LIO names its initiators, but not the address of one that no rule lists;
 * nvmet names no host at all (its debugfs is not built into Debian's kernel). So addresses are right,
 * and a name is given only where there is just one it can be; else it is empty.
 */

import { readdirSync, readFileSync } from "node:fs";
import type { Exports, Sessions } from "../exports.ts";
import { CONFIGFS } from "./configfs.ts";
import { insideNetns, runProgramNow } from "./programs.ts";

interface Connection {
  readonly local: string;
  readonly localPort: number;
  readonly peer: string;
}

/** The sessions of what is exported. */
export function readSessions(exports: Exports, netns: string | undefined): Sessions {
  const [program = "", ...args] = insideNetns(netns, ["cat", "/proc/net/tcp"]);
  const connections = establishedConnections(runProgramNow(program, args));
  return {
    iscsi: exports.iscsi.targets.flatMap((target) => {
      const initiators = initiatorNames(target.iqn);
      const peers = connections.filter(({ local, localPort }) =>
        localPort === exports.iscsi.port && target.portals.includes(local)
      );
      return peers.map(({ peer }) => ({
        iqn: target.iqn,
        initiator: onlyOne(initiators),
        address: peer,
      }));
    }),
    nvmet: exports.nvmet.subsystems.flatMap((subsystem) =>
      subsystem.ports.flatMap(({ address, port }) => {
        // A controller has a connection for each of its queues; one line stands for all of them.
        const peers = connections
          .filter(({ local, localPort }) => local === address && localPort === port)
          .map(({ peer }) => peer);
        return [...new Set(peers)].map((peer) => ({
          nqn: subsystem.nqn,
          hostNqn: onlyOne(subsystem.hosts.map(({ nqn }) => nqn)),
          address: peer,
          portAddress: address,
        }));
      })
    ),
  };
}

function onlyOne(names: readonly string[]): string {
  return names.length === 1 ? names[0] ?? "" : "";
}

/** Initiators with a session: unlisted ones from the group's own list, listed ones from their rule. */
function initiatorNames(iqn: string): string[] {
  const group = `${CONFIGFS}/target/iscsi/${iqn}/tpgt_1`;
  const unlisted = read(`${group}/dynamic_sessions`).split(/[\0\n]/);
  const listed = list(`${group}/acls`).filter((name) =>
    !read(`${group}/acls/${name}/info`).startsWith("No active iSCSI Session")
  );
  return [...new Set([...unlisted, ...listed])].filter((name) => name !== "");
}

/**
 * Parses the kernel's list of IPv4 connections, where addresses are in host byte order:
 *
 *       sl  local_address rem_address   st ...
 *        1: 0100630A:0CBC 0200630A:B2C4 01 ...
 */
export function establishedConnections(text: string): Connection[] {
  const ESTABLISHED = "01";
  return text.split("\n").slice(1).flatMap((line) => {
    const [, local, peer, state] = line.trim().split(/\s+/);
    if (local === undefined || peer === undefined || state !== ESTABLISHED) return [];
    const port = parseInt(local.split(":")[1] ?? "", 16);
    return [{ local: address(local), localPort: port, peer: address(peer) }];
  });
}

function address(field: string): string {
  return [6, 4, 2, 0].map((at) => parseInt(field.slice(at, at + 2), 16)).join(".");
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
