/** Where files of this repository are. */

/** The path of a file, by its place beside this one. */
export function fromFileUrl(relative: string): string {
  return decodeURIComponent(new URL(relative, import.meta.url).pathname);
}
