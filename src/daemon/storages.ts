/** The storages that this node has: those of `storage.cfg`, and those that PVE asked for meanwhile. */
import { Deadline } from "../common/deadline.ts";
import { readSections, type StorageSection } from "../pve/storage_cfg.ts";
import type { HookWorld } from "../pve/hook.ts";
import { type OpenStorage, openStorage } from "../pve/open_storage.ts";

/** The node's storages, for what the daemon does without being asked. */
export class Storages {
  constructor(readonly world: HookWorld) {}

  /** Sections of this node, read anew. */
  sections(): Promise<StorageSection[]> {
    return readSections(this.world.host.files, this.world.host.nodeName);
  }

  /**
   * Opens a storage for `ms` milliseconds; it must be closed.
   *
   * @throws TnblockError `config` when its section cannot be used.
   */
  open(section: StorageSection, ms: number): Promise<OpenStorage> {
    const { host } = this.world;
    return openStorage(
      { storage: section.id, config: section.config, node: host.nodeName },
      this.world,
      new Deadline(host, ms),
    );
  }
}
