/**
 * Reads the text exposition format 0.0.4 as strictly as promtool does
 * (https://prometheus.io/docs/instrumenting/exposition_formats/), and throws at the first thing that is wrong.
 */

/** A family of metrics. */
export interface MetricFamily {
  readonly type: string;
  readonly help: string;
  readonly samples: readonly MetricSample[];
}

/** One line. */
export interface MetricSample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const NAME = "[a-zA-Z_:][a-zA-Z0-9_:]*";
const LABEL = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)/;

/** Families by their names. */
export function parseMetrics(text: string): ReadonlyMap<string, MetricFamily> {
  if (!text.endsWith("\n")) throw new Error("the last line has no line feed");
  const families = new Map<string, MetricFamily & { samples: MetricSample[] }>();
  const seen = new Set<string>();
  let help: readonly [string, string] | undefined;
  let current: string | undefined;
  for (const line of text.slice(0, -1).split("\n")) {
    const comment = new RegExp(`^# (HELP|TYPE) (${NAME}) (.+)$`).exec(line);
    if (comment !== null) {
      const [, what, name = "", rest = ""] = comment;
      if (what === "HELP") {
        if (families.has(name)) throw new Error(`${name} is in two places`);
        help = [name, rest];
        current = undefined;
        continue;
      }
      if (help?.[0] !== name) throw new Error(`TYPE of ${name} without its HELP before it`);
      if (!["counter", "gauge", "histogram"].includes(rest)) throw new Error(`the type ${rest}`);
      families.set(name, { type: rest, help: help[1], samples: [] });
      current = name;
      continue;
    }
    const sample = new RegExp(`^(${NAME})(?:\\{(.*)\\})? (\\S+)$`).exec(line);
    if (sample === null) throw new Error(`no line of metrics: ${line}`);
    const [, name = "", labelText = "", number = ""] = sample;
    const family = current === undefined ? undefined : families.get(current);
    const suffixes = family?.type === "histogram" ? ["_bucket", "_sum", "_count"] : [""];
    if (family === undefined || !suffixes.some((suffix) => name === `${current}${suffix}`)) {
      throw new Error(`${name} stands among those of ${current}`);
    }
    const value = Number(number);
    if (Number.isNaN(value)) throw new Error(`no number: ${line}`);
    const labels = parseLabels(labelText);
    const series = JSON.stringify([name, Object.entries(labels).sort()]);
    if (seen.has(series)) throw new Error(`twice: ${series}`);
    seen.add(series);
    family.samples.push({ name, labels, value });
  }
  for (const [name, family] of families) check(name, family);
  return families;
}

function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {};
  for (let rest = text; rest !== "";) {
    const match = LABEL.exec(rest);
    if (match === null) throw new Error(`no label: ${rest}`);
    const [whole, name = "", value = ""] = match;
    if (Object.hasOwn(labels, name)) throw new Error(`the label ${name} stands twice`);
    labels[name] = value.replaceAll(
      /\\(.)/g,
      (_, one: string) => one === "n" ? "\n" : one,
    );
    rest = rest.slice(whole.length);
  }
  return labels;
}

/** What promtool's linter asks for. */
function check(name: string, { type, samples }: MetricFamily): void {
  if (samples.length === 0) throw new Error(`${name} has no samples`);
  if ((type === "counter") !== name.endsWith("_total")) throw new Error(`${name} is a ${type}`);
  if (/_(ms|milliseconds|minutes|kib|mib|percent)(_|$)/.test(name)) {
    throw new Error(`${name} is in no base unit`);
  }
  if (type === "counter" && samples.some(({ value }) => value < 0)) {
    throw new Error(`${name} is below zero`);
  }
  if (type === "histogram") checkHistogram(name, samples);
}

function checkHistogram(name: string, samples: readonly MetricSample[]): void {
  const keyOf = ({ labels: { le: _, ...labels } }: MetricSample) =>
    JSON.stringify(Object.entries(labels).sort());
  for (const key of new Set(samples.map(keyOf))) {
    const own = samples.filter((sample) => keyOf(sample) === key);
    const buckets = own.filter((sample) => sample.name === `${name}_bucket`);
    const bounds = buckets.map(({ labels }) => Number(labels["le"]?.replace("+Inf", "Infinity")));
    const counts = buckets.map(({ value }) => value);
    const isRising = (numbers: readonly number[], strictly: boolean) =>
      numbers.every((number, index) => {
        const before = numbers[index - 1] ?? -Infinity;
        return strictly ? number > before : number >= before;
      });
    if (!isRising(bounds, true) || bounds.at(-1) !== Infinity) throw new Error(`bounds of ${key}`);
    if (!isRising(counts, false)) throw new Error(`buckets of ${key} do not add up`);
    const count = own.find((sample) => sample.name === `${name}_count`);
    if (count?.value !== counts.at(-1)) throw new Error(`count of ${key}`);
    if (!own.some((sample) => sample.name === `${name}_sum`)) throw new Error(`no sum of ${key}`);
  }
}
