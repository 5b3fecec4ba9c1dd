/** Methods about snapshots: take, delete, roll back, list. */
import type { Method } from "./method.ts";

export const SNAPSHOT_METHODS: Readonly<Record<string, Method>> = {};
