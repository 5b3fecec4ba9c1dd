/** Every behaviour, in the order of the table's rows. */
import type { Behaviour } from "../behaviour.ts";
import { CLONES } from "./clones.ts";
import { CONTENT } from "./content.ts";
import { LIFE } from "./life.ts";
import { SNAPSHOTS } from "./snapshots.ts";
import { STORAGE } from "./storage.ts";

export const BEHAVIOURS: readonly Behaviour[] = [
  ...STORAGE,
  ...LIFE,
  ...SNAPSHOTS,
  ...CLONES,
  ...CONTENT,
];
