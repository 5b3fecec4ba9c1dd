/** Methods that make volumes of volumes: linked clones, templates, new names. */
import type { Method } from "./method.ts";

export const CLONE_METHODS: Readonly<Record<string, Method>> = {};
