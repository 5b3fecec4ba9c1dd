/** Methods about the storage as a whole. */
import { activateStorage } from "../../volumes/activate_storage.ts";
import { checkConnection } from "../../volumes/check_connection.ts";
import { storageStatus } from "../../volumes/status.ts";
import { validateStorage } from "../../volumes/validate.ts";
import type { Method } from "./method.ts";

export const STORAGE_METHODS: Readonly<Record<string, Method>> = {
  check_connection: (storage) => checkConnection(storage),
  activate_storage: (storage) => activateStorage(storage),
  // Sessions and controllers are shared by all volumes and by other storages: they stay.
  deactivate_storage: () => Promise.resolve(null),
  validate_storage: (storage) => validateStorage(storage),
  status: (storage) => storageStatus(storage),
};
