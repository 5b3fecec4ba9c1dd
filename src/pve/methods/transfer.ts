/** Methods around the bytes that the shim copies: export and import of raw+size. */
import type { Method } from "./method.ts";

export const TRANSFER_METHODS: Readonly<Record<string, Method>> = {};
