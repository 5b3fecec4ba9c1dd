/** The notices of what the binary contains, gathered by scripts/collect_licenses.ts. */
import text from "./licenses.txt" with { type: "text" };

/** The notices, as one text. */
export const LICENSES: string = text;
