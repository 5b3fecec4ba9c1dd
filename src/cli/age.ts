/** How long something has been so, for people: `12s`, `3m`, `4h12m`, `3d4h`. */

/** @param since, now ISO 8601. */
export function formatAge(since: string, now: string): string {
  return formatSeconds((Date.parse(now) - Date.parse(since)) / 1000);
}

/** Two units at most; what lies in the future is of now. */
export function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [days, hours, minutes] = [86_400, 3_600, 60].map((unit) => Math.floor(whole / unit)) as [
    number,
    number,
    number,
  ];
  const and = (rest: number, unit: string) => rest === 0 ? "" : `${rest}${unit}`;
  if (days > 0) return `${days}d${and(hours % 24, "h")}`;
  if (hours > 0) return `${hours}h${and(minutes % 60, "m")}`;
  return minutes > 0 ? `${minutes}m` : `${whole}s`;
}
