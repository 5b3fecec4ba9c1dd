/** Which of two versions is the older one (semver.org, section 11; build metadata does not count). */

/** Below 0 when `a` is older than `b`, 0 when they are equal in order. */
export function compareVersions(a: string, b: string): number {
  const [mainA, preA] = split(a);
  const [mainB, preB] = split(b);
  return compareParts(mainA, mainB) ||
    (preA.length === 0 || preB.length === 0
      ? Number(preA.length === 0) - Number(preB.length === 0)
      : compareParts(preA, preB));
}

function split(version: string): [string[], string[]] {
  const [text = ""] = version.split("+");
  const at = text.indexOf("-");
  return at < 0
    ? [text.split("."), []]
    : [text.slice(0, at).split("."), text.slice(at + 1).split(".")];
}

function compareParts(a: readonly string[], b: readonly string[]): number {
  for (let at = 0; at < Math.max(a.length, b.length); at++) {
    const [x, y] = [a[at], b[at]];
    if (x === undefined || y === undefined) return x === undefined ? -1 : 1;
    if (x === y) continue;
    const [isNumberX, isNumberY] = [/^\d+$/.test(x), /^\d+$/.test(y)];
    if (isNumberX && isNumberY) return Number(x) - Number(y);
    if (isNumberX !== isNumberY) return isNumberX ? -1 : 1;
    return x < y ? -1 : 1;
  }
  return 0;
}
