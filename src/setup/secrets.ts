/** Secrets that are made here: drawn by the node, told to the array and the secrets file, and to nobody else. */
import { Buffer } from "node:buffer";
import { crc32 } from "../host/dhchap_secret.ts";
import type { Host } from "../host/host.ts";

/** Without those that look alike, and without `#`, which TrueNAS does not take. */
const LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789";

/** A CHAP secret of the 16 characters that TrueNAS takes at most: 92 bits. */
export function makeChapSecret(host: Pick<Host, "randomInteger">): string {
  return Array.from({ length: 16 }, () => LETTERS[host.randomInteger(LETTERS.length)]).join("");
}

/** A DH-HMAC-CHAP secret for SHA-256: 32 random bytes and their CRC-32, little endian (NVMe base specification, 8.13.5.8). */
export function makeDhchapSecret(host: Pick<Host, "randomInteger">): string {
  const key = Buffer.from(Array.from({ length: 32 }, () => host.randomInteger(256)));
  const sum = Buffer.alloc(4);
  sum.writeUInt32LE(crc32(key));
  return `DHHC-1:01:${Buffer.concat([key, sum]).toString("base64")}:`;
}
