/** Part of linux.ts: turns what the runtimes throw into a {@link HostError} with the kernel's name. */
import { HostError } from "./host.ts";

/** The kernel's symbolic name in a thrown value, or undefined. Both runtimes put it into `code`. */
export function codeOf(error: unknown): string | undefined {
  const code = typeof error === "object" && error !== null && "code" in error
    ? error.code
    : undefined;
  return typeof code === "string" ? code : undefined;
}

/** A failure with what was being done in front; `EIO` when the runtime gave no name. */
export function hostError(doing: string, error: unknown): HostError {
  if (error instanceof HostError) return error;
  const code = codeOf(error) ?? "EIO";
  return new HostError(code, `${doing}: ${code}`, { cause: error });
}

/**
 * Whether there is nothing at a path. `ENODEV` is what a sysfs attribute answers when its object
 * went away between open and read.
 */
export function isAbsence(error: unknown): boolean {
  const code = codeOf(error);
  return code === "ENOENT" || code === "ENOTDIR" || code === "ENODEV";
}
