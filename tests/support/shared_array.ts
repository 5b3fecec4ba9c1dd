/**
 * One simulated array that several simulated nodes are connected to. Each node has a player, and every
 * player is told everything, in the same order; what differs is who is connected to what.
 */
import { readdirSync } from "node:fs";
import { link, rm } from "node:fs/promises";
import { join } from "node:path";
import type { DataSide, Exports, Sessions } from "../../src/simulator/exports.ts";
import type { HostPlayer } from "../../src/simulator/host_player/player.ts";

/** Where a player keeps one file for each zvol and snapshot. */
const VOLUMES = ".array/volumes";

/** A data side for all of these nodes. Their folders must lie on one file system. */
export function sharedArray(players: readonly HostPlayer[]): DataSide {
  const [first, ...others] = players;
  if (first === undefined) throw new Error("an array needs a node");
  let queue: Promise<unknown> = Promise.resolve();

  /** One change after the other, at each node; the first one's refusal is everybody's. */
  const everywhere = (change: (player: HostPlayer) => Promise<void>): Promise<void> => {
    const done = queue.then(async () => {
      for (const player of players) await change(player);
    });
    queue = done.catch(() => {});
    return done;
  };

  /** Makes a zvol at a node, with its file; gives the file's path. */
  const made = async (player: HostPlayer, zvol: string, size: number, origin?: string) => {
    const folder = join(player.directory, VOLUMES);
    const before = new Set(readdirSync(folder));
    await player.createZvol(zvol, size, origin);
    // A player makes the file of a blank zvol late; rolling back makes it now.
    await player.createSnapshot(zvol, "now");
    await player.rollback(zvol, "now");
    await player.destroySnapshot(zvol, "now");
    const [file, ...more] = readdirSync(folder).filter((name) => !before.has(name));
    if (file === undefined || more.length > 0) throw new Error(`no file of its own for "${zvol}"`);
    return join(folder, file);
  };

  return {
    // What one node writes the others read: their files of a zvol are names of one inode, from the
    // beginning, before any device exists. A zvol keeps its inode for life.
    createZvol: (zvol, size, origin) => {
      const done = queue.then(async () => {
        const shared = await made(first, zvol, size, origin);
        for (const player of others) {
          const file = await made(player, zvol, size, origin);
          await rm(file);
          await link(shared, file);
        }
      });
      queue = done.catch(() => {});
      return done;
    },
    resizeZvol: (zvol, size) => everywhere((player) => player.resizeZvol(zvol, size)),
    renameZvol: (from, to) => everywhere((player) => player.renameZvol(from, to)),
    destroyZvol: (zvol) => everywhere((player) => player.destroyZvol(zvol)),
    createSnapshot: (zvol, name) => everywhere((player) => player.createSnapshot(zvol, name)),
    renameSnapshot: (zvol, from, to) =>
      everywhere((player) => player.renameSnapshot(zvol, from, to)),
    destroySnapshot: (zvol, name) => everywhere((player) => player.destroySnapshot(zvol, name)),
    rollback: (zvol, snapshot) => everywhere((player) => player.rollback(zvol, snapshot)),
    promote: (zvol) => everywhere((player) => player.promote?.(zvol) ?? Promise.resolve()),
    hasNode: (zvol) => first.hasNode(zvol),
    apply: (exports: Exports) => everywhere((player) => player.apply(exports)),
    sessions: (): Sessions => {
      const all = players.map((player) => player.sessions());
      return {
        iscsi: all.flatMap((one) => one.iscsi),
        nvmet: all.flatMap((one) => one.nvmet),
      };
    },
    close: async () => {
      for (const player of players) await player.close();
    },
  };
}
