/** A plot as SVG: lines over logarithmic axes. Pure. */

/** A measured pair. */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** One line of the plot. */
export interface Series {
  readonly name: string;
  readonly points: readonly Point[];
}

/** What is written around the lines. */
export interface PlotText {
  readonly title: string;
  readonly x: string;
  readonly y: string;
}

const WIDTH = 760;
const HEIGHT = 440;
const AREA = { left: 70, right: 560, top: 50, bottom: 385 } as const;
/** Told apart by the colour-blind as well, and by their dashes in print. */
const STYLES = [
  { colour: "#0072b2", dash: "" },
  { colour: "#56b4e9", dash: "6 3" },
  { colour: "#777777", dash: "2 3" },
  { colour: "#d55e00", dash: "10 3 2 3" },
] as const;
/** Names of lines that end close together are pushed apart by so much. */
const LABEL_HEIGHT = 16;

/** Draws it. */
export function renderPlot(series: readonly Series[], text: PlotText): string {
  const points = series.flatMap((one) => one.points);
  const x = axis(points.map((point) => point.x), AREA.left, AREA.right);
  const y = axis(points.map((point) => point.y), AREA.bottom, AREA.top);
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" ` +
    `font-family="sans-serif" font-size="13" fill="#222">`,
    `<title>${escaped(text.title)}</title>`,
    `<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>`,
    `<text x="${AREA.left}" y="28" font-size="16">${escaped(text.title)}</text>`,
  ];
  for (const tick of x.ticks) {
    const at = round(x.at(tick));
    parts.push(
      `<path d="M${at} ${AREA.top}V${AREA.bottom}" stroke="#ddd"/>`,
      `<text x="${at}" y="${AREA.bottom + 18}" text-anchor="middle">${label(tick)}</text>`,
    );
  }
  for (const tick of y.ticks) {
    const at = round(y.at(tick));
    parts.push(
      `<path d="M${AREA.left} ${at}H${AREA.right}" stroke="#ddd"/>`,
      `<text x="${AREA.left - 8}" y="${at + 4}" text-anchor="end">${label(tick)}</text>`,
    );
  }
  const middle = (AREA.top + AREA.bottom) / 2;
  parts.push(
    `<text x="${(AREA.left + AREA.right) / 2}" y="${AREA.bottom + 42}" text-anchor="middle">` +
      `${escaped(text.x)}</text>`,
    `<text transform="translate(18 ${middle}) rotate(-90)" text-anchor="middle">` +
      `${escaped(text.y)}</text>`,
  );
  const ends = labelHeights(series.map(({ points }) => y.at(points.at(-1)?.y ?? 1)));
  series.forEach(({ name, points }, index) => {
    const { colour, dash } = STYLES[index % STYLES.length] ?? STYLES[0];
    const places = points.map((point) => [round(x.at(point.x)), round(y.at(point.y))] as const);
    const line = places.map(([px, py], at) => `${at === 0 ? "M" : "L"}${px} ${py}`).join("");
    parts.push(
      `<path d="${line}" fill="none" stroke="${colour}" stroke-width="2"` +
        `${dash === "" ? "" : ` stroke-dasharray="${dash}"`}/>`,
      ...places.map(([px, py]) => `<circle cx="${px}" cy="${py}" r="3.5" fill="${colour}"/>`),
      `<text x="${AREA.right + 10}" y="${round((ends[index] ?? 0) + 4)}" fill="${colour}">` +
        `${escaped(name)}</text>`,
    );
  });
  return [...parts, "</svg>", ""].join("\n");
}

interface Axis {
  readonly ticks: readonly number[];
  at(value: number): number;
}

/** From the power of ten at or below the least value to the one at or above the greatest. */
function axis(values: readonly number[], from: number, to: number): Axis {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  return {
    ticks: Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index)),
    at: (value) => from + (to - from) * (Math.log10(value) - low) / (high - low),
  };
}

/** Heights as near to the wanted ones as the height of a line allows. */
function labelHeights(wanted: readonly number[]): number[] {
  const order = wanted.map((_, index) => index)
    .sort((a, b) => (wanted[a] ?? 0) - (wanted[b] ?? 0));
  const heights = [...wanted];
  let least = -Infinity;
  for (const index of order) {
    heights[index] = Math.max(heights[index] ?? 0, least);
    least = (heights[index] ?? 0) + LABEL_HEIGHT;
  }
  return heights;
}

function label(value: number): string {
  return value >= 1 ? value.toLocaleString("en") : String(Number(value.toPrecision(1)));
}

const round = (value: number) => Math.round(value * 10) / 10;

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
};

function escaped(text: string): string {
  return text.replaceAll(/[&<>"]/g, (character) => ESCAPES[character] ?? character);
}
