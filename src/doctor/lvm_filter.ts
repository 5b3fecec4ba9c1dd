/** Whether LVM's filters keep it off a device: a pure reading of what `lvmconfig` prints. */

/**
 * Whether a device is left alone by LVM.
 *
 * ```text
 * global_filter=["r|/dev/zd.*|","r|/dev/rbd.*|"]
 * filter=["a|.*|"]
 * use_devicesfile=0
 * ```
 *
 * As lvm.conf(5) has it: the first pattern that matches a name decides for that name; a device is taken when any of
 * its names is taken, and left when the names that match anything are all left; without a match it is taken. Of the
 * two filters either may leave it. With a devices file only what stands in it is taken; without that file the
 * setting for it means nothing.
 *
 * @param names all paths of the device.
 */
export function rejectedByLvm(
  config: string,
  names: readonly string[],
  hasDevicesFile = false,
): boolean {
  if (hasDevicesFile && /^\s*use_devicesfile\s*=\s*1\s*$/m.test(config)) return true;
  return ["global_filter", "filter"].some((key) => isRejected(patternsOf(config, key), names));
}

/** Matches a name, and whether that takes the device. */
interface Pattern {
  readonly takes: boolean;
  readonly matches: (name: string) => boolean;
}

function patternsOf(config: string, key: string): Pattern[] {
  const list = new RegExp(`^\\s*${key}\\s*=\\s*(\\[[^\\n]*\\]|"[^\\n]*")`, "m").exec(config)?.[1];
  return [...(list ?? "").matchAll(/"((?:[^"\\]|\\.)*)"/g)].flatMap(([, text]) =>
    patternOf((text ?? "").replaceAll(/\\(["\\])/g, "$1"))
  );
}

/** What ends an expression that begins with a bracket. */
const CLOSING: Readonly<Record<string, string>> = { "(": ")", "[": "]", "{": "}" };

/** `r|/dev/zd.*|`: a letter, any delimiter, a regular expression that matches anywhere, the delimiter again. */
function patternOf(text: string): Pattern[] {
  const open = text[1];
  if (!/^[ar]/.test(text) || open === undefined || text.length < 3) return [];
  if (text.at(-1) !== (CLOSING[open] ?? open)) return [];
  try {
    const expression = new RegExp(text.slice(2, -1));
    return [{ takes: text.startsWith("a"), matches: (name) => expression.test(name) }];
  } catch {
    return [];
  }
}

function isRejected(patterns: readonly Pattern[], names: readonly string[]): boolean {
  const decided = names.flatMap((name) => {
    const first = patterns.find(({ matches }) => matches(name));
    return first === undefined ? [] : [first.takes];
  });
  return decided.length > 0 && decided.every((takes) => !takes);
}
