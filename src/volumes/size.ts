/** How large a volume becomes on the array, and with which block size. */
import { TnblockError } from "../common/error.ts";

/** Size and block size of a new zvol, in bytes. */
export interface VolumeSize {
  readonly size: number;
  readonly blockSize: number;
  /** What differs from what was asked for, in words; undefined when nothing does. */
  readonly note: string | undefined;
}

/**
 * Up to this size a volume keeps its exact size and the block size gives way: EFI variables, TPM
 * state and cloud-init are compared by size, and at a few MiB small blocks cost nothing. Above it
 * the size gives way: small blocks would slow every write of the guest.
 */
const EXACT_UP_TO = 16 * 1024 * 1024;

/** Largest volume: what a double holds exactly, rounded down to whole 128 KiB blocks. */
const LARGEST = Math.floor(Number.MAX_SAFE_INTEGER / 131072) * 131072;

/**
 * Decides size and block size.
 *
 * @param sizeKiB what PVE asks for; may be fractional.
 * @param blockSize the storage's block size in bytes.
 * @param sector logical block size of the export in bytes: the size is a multiple of it.
 * @throws TnblockError `invalid` for a size that is none.
 */
export function planSize(sizeKiB: number, blockSize: number, sector: number): VolumeSize {
  const asked = Math.ceil(sizeKiB * 1024);
  if (!Number.isFinite(asked) || asked < 1 || asked > LARGEST) {
    throw new TnblockError(
      "invalid",
      `Cannot make a volume of ${sizeKiB} KiB: the size must be above 0 and below 8 PiB`,
      { field: "args.sizeKiB" },
    );
  }
  const whole = roundUp(asked, sector);
  if (whole % blockSize === 0) {
    return { size: whole, blockSize, note: sizeNote(asked, whole, `blocks of ${sector} bytes`) };
  }
  if (whole > EXACT_UP_TO) {
    const size = roundUp(whole, blockSize);
    return { size, blockSize, note: sizeNote(asked, size, `the block size of ${blockSize} bytes`) };
  }
  let smaller = blockSize;
  while (smaller > sector && whole % smaller !== 0) smaller /= 2;
  const change =
    `block size ${smaller} instead of ${blockSize}, so that the size stays exactly ${whole} bytes`;
  const rounded = sizeNote(asked, whole, `blocks of ${sector} bytes`);
  return {
    size: whole,
    blockSize: smaller,
    note: rounded === undefined ? change : `${rounded}; ${change}`,
  };
}

/** What a volume is now. */
export interface GrowingVolume {
  /** Last component of its path. */
  readonly zvol: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes. */
  readonly blockSize: number;
  /** Logical block size of its export in bytes. */
  readonly sector: number;
}

/**
 * Decides the size in bytes that a volume grows to: the next multiple of its own block size and of its
 * export's, whatever the storage is set to by now. Undefined when it has it already.
 *
 * @throws TnblockError `invalid` for a size that is none, or below the present one.
 */
export function planGrowth(volume: GrowingVolume, bytes: number): number | undefined {
  const { zvol, size } = volume;
  if (!Number.isInteger(bytes) || bytes < 1 || bytes > LARGEST) {
    throw new TnblockError(
      "invalid",
      `Cannot resize the volume "${zvol}" to ${bytes} bytes: the size must be whole, above 0 and below 8 PiB`,
      { field: "args.size" },
    );
  }
  const wanted = roundUp(bytes, Math.max(volume.blockSize, volume.sector));
  // The old size need not be a multiple of anything.
  if (bytes <= size && wanted >= size) return undefined;
  if (wanted > size) return wanted;
  throw new TnblockError(
    "invalid",
    `Cannot shrink the volume "${zvol}" to ${bytes} bytes: it has ${size}, and what lies beyond would be lost`,
    { field: "args.size", hint: "Copy the data to a smaller volume instead" },
  );
}

/** The next multiple of `unit`. */
export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

function sizeNote(asked: number, size: number, because: string): string | undefined {
  return asked === size
    ? undefined
    : `size ${size} instead of ${asked} bytes, because of ${because}`;
}
