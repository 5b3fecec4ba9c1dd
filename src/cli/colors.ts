/** Colours in one place: what flag and environment say becomes one variable that all libraries know. */

/**
 * Settles it before anything is printed: `--no-color`, NO_COLOR (also over CLICOLOR_FORCE) and TERM=dumb mean
 * none; CLICOLOR_FORCE means some even where nobody reads them in a terminal.
 */
export function settleColors(env: Record<string, string | undefined>, color: boolean): void {
  const isOff = !color || (env["NO_COLOR"] ?? "") !== "" || env["TERM"] === "dumb";
  if (isOff) {
    env["NO_COLOR"] = "1";
    delete env["FORCE_COLOR"];
    delete env["CLICOLOR_FORCE"];
    return;
  }
  const forced = env["CLICOLOR_FORCE"];
  if (forced !== undefined && forced !== "" && forced !== "0") env["FORCE_COLOR"] = "1";
}
