/** The shape of an NVMe DH-HMAC-CHAP secret, checked before the kernel sees it. */
import { Buffer } from "node:buffer";
import { TnblockError } from "../common/error.ts";

/** Key lengths in bytes by the hash in the secret: 00 none, 01 SHA-256, 02 SHA-384, 03 SHA-512. */
const LENGTHS: Readonly<Record<string, readonly number[]>> = {
  "00": [32, 48, 64],
  "01": [32],
  "02": [48],
  "03": [64],
};

/**
 * Refuses what is not `DHHC-1:<hash>:<base64 of key and its CRC-32, little endian>:`. The kernel
 * prints a secret of another shape into its log, and answers a wrong checksum like a wrong secret.
 *
 * @param option the option's name, for the message; the secret itself is never in it.
 * @throws TnblockError `config`.
 */
export function checkDhchapSecret(text: string, option = "tnb-dhchap-secret"): void {
  const refuse = (what: string): never => {
    throw new TnblockError("config", `Cannot use the secret in ${option}: ${what}`, {
      field: option,
      hint: "Copy the whole key as TrueNAS shows it for the host, from DHHC-1: to the last colon",
    });
  };
  const match = /^DHHC-1:(\d\d):([A-Za-z0-9+/]+={0,2}):$/.exec(text);
  const base64 = match?.[2] ?? "";
  const lengths = LENGTHS[match?.[1] ?? ""];
  if (lengths === undefined || base64.length % 4 !== 0) {
    return refuse("it has not the form DHHC-1:<hash>:<base64>:");
  }
  const bytes = Buffer.from(base64, "base64");
  const key = bytes.subarray(0, -4);
  if (!lengths.includes(key.length)) {
    return refuse(`its key has ${Math.max(0, bytes.length - 4)} bytes`);
  }
  if (crc32(key) !== bytes.readUInt32LE(key.length)) return refuse("its checksum does not fit");
}

/** CRC-32 as in zlib and IEEE 802.3. */
export function crc32(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
