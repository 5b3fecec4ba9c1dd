/** Methods about what is noted on a volume, and about the place where volumes are kept. */
import type { Method } from "./method.ts";

export const ATTRIBUTE_METHODS: Readonly<Record<string, Method>> = {};
