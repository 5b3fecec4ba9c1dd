/** Sizes as text: the short form of the ZFS tools and the long one of newer releases. */

const UNITS = ["", "K", "M", "G", "T", "P", "E"];

function scaled(bytes: number): { value: number; unit: string } {
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < UNITS.length - 1) {
    value /= 1024;
    index += 1;
  }
  return { value, unit: UNITS[index] ?? "" };
}

/** `0B`, `56K`, `1.00G`. */
export function nicenum(bytes: number): string {
  if (bytes < 1024) return bytes === 0 ? "0B" : String(bytes);
  const { value, unit } = scaled(bytes);
  if (Number.isInteger(value)) return `${value}${unit}`;
  return `${value.toPrecision(3)}${unit}`;
}

/** `0 bytes`, `56 KiB`, `4.01 GiB`. */
export function sizeText(bytes: number): string {
  const { value, unit } = scaled(bytes);
  return unit === "" ? `${bytes} bytes` : `${Math.round(value * 100) / 100} ${unit}iB`;
}
