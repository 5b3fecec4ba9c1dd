/** Growing a volume. */
import type { Method } from "./method.ts";

export const RESIZE_METHODS: Readonly<Record<string, Method>> = {};
