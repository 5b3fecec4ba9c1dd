/** The command line of the bench. */

/** What the user asked for. */
export interface BenchOptions {
  readonly json: boolean;
  /** Fewer runs and smaller worlds: for whoever changes the bench. */
  readonly quick: boolean;
  /** Sections to run; all when empty. */
  readonly only: readonly string[];
  /** The program that is measured. */
  readonly binary: string;
  /** Where the plot goes, and whether the user said so. */
  readonly plot: string;
  readonly isPlotGiven: boolean;
}

/** Reads the arguments. @throws Error what is wrong with them. */
export function parseOptions(
  args: readonly string[],
  known: readonly string[],
  defaults: { readonly binary: string; readonly plot: string },
): BenchOptions {
  let json = false;
  let quick = false;
  let only: string[] = [];
  let { binary, plot } = defaults;
  const rest = [...args];
  const value = (option: string) => {
    const next = rest.shift();
    if (next === undefined) throw new Error(`${option} needs a value`);
    return next;
  };
  while (rest.length > 0) {
    const option = rest.shift() ?? "";
    if (option === "-o") {
      const format = value(option);
      if (format !== "json" && format !== "table") throw new Error("-o is json or table");
      json = format === "json";
    } else if (option === "--quick") quick = true;
    else if (option === "--only") only = [...only, ...value(option).split(",")];
    else if (option === "--binary") binary = value(option);
    else if (option === "--plot") plot = value(option);
    else throw new Error(`unknown option ${option}`);
  }
  const stranger = only.find((name) => !known.includes(name));
  if (stranger !== undefined) {
    throw new Error(`--only knows ${known.join(", ")}, not ${stranger}`);
  }
  return { json, quick, only, binary, plot, isPlotGiven: plot !== defaults.plot };
}
