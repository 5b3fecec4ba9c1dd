/** The few statistics that the bench needs. */

/** The middle value; of an even number the upper of the two. Zero of nothing. */
export function median(values: readonly number[]): number {
  return quantile(values, 0.5);
}

/** The value that a share of all values does not exceed. Zero of nothing. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** The mean. Zero of nothing. */
export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

/** `1.2–3.4`: the least and the most. */
export function range(values: readonly number[]): string {
  if (values.length === 0) return "none";
  return `${Math.min(...values).toFixed(1)}–${Math.max(...values).toFixed(1)}`;
}
