/** Unpacks a small tar.gz (ustar and pax: files, folders, symbolic links) into a folder; for fixtures only. */
import type { Buffer } from "node:buffer";
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";

const BLOCK = 512;

/** Unpacks `archive` into `folder`, in one go: a thousand tiny files wait less that way. Refuses names that leave it. */
export function untar(archive: string | URL, folder: string): void {
  const bytes = gunzipSync(readFileSync(archive));
  const made = new Set<string>();
  let longName: string | undefined;
  let longLink: string | undefined;
  for (let at = 0; at + BLOCK <= bytes.length;) {
    const header = bytes.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) break;
    const size = parseInt(text(header, 124, 12).trim() || "0", 8);
    const data = bytes.subarray(at + BLOCK, at + BLOCK + size);
    at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
    const type = text(header, 156, 1);
    if (type === "L") longName = text(data, 0, size);
    else if (type === "K") longLink = text(data, 0, size);
    else if (type === "x") {
      const records = new Map(
        [...data.toString("utf8").matchAll(/\d+ ([^=]+)=([^\n]*)\n/g)].map((match) =>
          [match[1], match[2]] as const
        ),
      );
      longName = records.get("path") ?? longName;
      longLink = records.get("linkpath") ?? longLink;
    } else {
      const prefix = text(header, 345, 155);
      const short = text(header, 0, 100);
      const name = longName ?? (prefix === "" ? short : `${prefix}/${short}`);
      const link = longLink ?? text(header, 157, 100);
      longName = longLink = undefined;
      const path = join(folder, inside(name));
      if (!made.has(dirname(path))) mkdirSync(dirname(path), { recursive: true });
      made.add(dirname(path));
      extract(path, type, data, link);
    }
  }
}

function extract(path: string, type: string, data: Buffer, link: string): void {
  if (type === "5") mkdirSync(path, { recursive: true });
  else if (type === "2") symlinkSync(link, path);
  else if (type === "0" || type === "") writeFileSync(path, data);
  else throw new Error(`${path}: tar type ${JSON.stringify(type)} is not known`);
}

function inside(name: string): string {
  if (name.startsWith("/") || name.split("/").includes("..")) throw new Error(`bad name ${name}`);
  return name;
}

function text(bytes: Buffer, from: number, length: number): string {
  const part = bytes.subarray(from, from + length);
  const end = part.indexOf(0);
  return part.subarray(0, end < 0 ? part.length : end).toString("utf8");
}
