/**
 * LUNs as the kernel writes them and as arrays count them.
 *
 * Linux takes the first two bytes of a LUN as they are on the wire (`scsilun_to_int` in
 * drivers/scsi/scsi_common.c): with peripheral addressing (00b in the upper two bits) the number is
 * the LUN, with flat space addressing (01b) it is 16384 + LUN. Written to a `scan` file a number
 * goes out the same way. SCST, which TrueNAS uses, takes both for 14-bit numbers alike
 * (`scst_unpack_lun` in scst/src/scst_lib.c) and reports with the target's method, by default
 * peripheral; LIO knows the plain number only. So we always scan the plain number, and understand both.
 */

/** One more than the largest LUN that one level of addressing can carry (14 bits). */
export const LUN_LIMIT = 16_384;

const FLAT_SPACE = 0x4000;

/** The array's LUN for the kernel's number. */
export function lunOfKernel(number: number): number {
  return number >= FLAT_SPACE && number < FLAT_SPACE + LUN_LIMIT ? number - FLAT_SPACE : number;
}

/** A SCSI address `host:channel:target:lun`, or undefined. */
export function parseHctl(text: string): { target: string; lun: number } | undefined {
  const match = /^(\d+:\d+:\d+):(\d+)$/.exec(text);
  if (match === null) return undefined;
  return { target: match[1] ?? "", lun: lunOfKernel(Number(match[2])) };
}
