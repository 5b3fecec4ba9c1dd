/** All questions in their order: from the address of the array to the name of the storage. */
import type { SetupQuestion } from "./conversation.ts";
import { ACCESS_QUESTIONS } from "./questions_access.ts";
import { PLACE_QUESTIONS } from "./questions_place.ts";
import { STORAGE_QUESTIONS } from "./questions_storage.ts";
import { TARGET_QUESTIONS } from "./questions_target.ts";

export const QUESTIONS: readonly SetupQuestion[] = [
  ...ACCESS_QUESTIONS,
  ...PLACE_QUESTIONS,
  ...TARGET_QUESTIONS,
  ...STORAGE_QUESTIONS,
];
