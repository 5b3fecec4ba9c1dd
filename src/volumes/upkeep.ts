/** What the daemon does for a storage on this node between the verbs, as the verbs see it. */

/** The daemon's upkeep of one storage. */
export interface StorageUpkeep {
  /**
   * Has `connect` make the storage's portals live, unless one was live at the last look, which is not old. While
   * none answers what failed a moment ago fails again at once: PVE asks every ten seconds, one storage after the other.
   */
  connected(connect: () => Promise<void>, anyAnswers: () => Promise<boolean>): Promise<void>;
  /**
   * Somebody is about to use what is attached under this name: it counts as used now, and its link was found to be
   * right. To be called under the volume's lock.
   */
  wanted(name: string): void;
}
