/** The storage as it comes to be, answer by answer; each value is checked before it is in here. */
import { TnblockError } from "../common/error.ts";
import type { ApiSettings, Portal, TlsTrust } from "../common/storage_settings.ts";
import type { Session } from "../truenas/session.ts";
import type { ShownCertificate } from "../truenas/socket_certificate.ts";
import type { ArrayFacts } from "./array_facts.ts";

/** How hosts prove who they are. */
export type Proof = "none" | "one-way" | "mutual";

/** Everything that is settled when all questions are answered. */
export interface Draft {
  readonly hosts: readonly string[];
  readonly port: number;
  readonly certificate: ShownCertificate;
  readonly tls: TlsTrust;
  readonly user: string | undefined;
  readonly key: string;
  /** Where the key came from, for an answers file; never the key itself. */
  readonly keyFile: string | undefined;
  readonly session: Session;
  readonly array: ArrayFacts;
  readonly dataset: { readonly name: string; readonly isNew: boolean };
  readonly transport: "iscsi" | "nvme-tcp";
  readonly portals: readonly Portal[];
  /** The target or subsystem: one that is there, or a new one's short name. */
  readonly target: { readonly isNew: boolean; readonly name: string };
  readonly allowHosts: boolean;
  readonly proof: Proof;
  /** Secrets that were given for a target or host that has some already, by option. */
  readonly givenSecrets: Readonly<Record<string, string>>;
  readonly extentBlockSize: "512" | "4096";
  readonly zvolBlockSize: string;
  readonly isThin: boolean;
  /** Undefined: all nodes, those to come too. */
  readonly nodes: readonly string[] | undefined;
  readonly content: string;
  readonly id: string;
}

/** What is not answered yet is missing. */
export type PartialDraft = { -readonly [K in keyof Draft]?: Draft[K] };

/** A value that an earlier question has settled. */
export function settled<K extends keyof Draft>(draft: PartialDraft, key: K): Draft[K] {
  if (!(key in draft)) throw new TnblockError("internal", `Cannot go on: ${key} is not settled`);
  return draft[key] as Draft[K];
}

/** All of it. */
export function complete(draft: PartialDraft): Draft {
  return draft as Draft;
}

/** As the array is reached while setup asks, and as the storage will reach it. */
export function apiOf(draft: PartialDraft): ApiSettings {
  return {
    transport: "ws",
    hosts: settled(draft, "hosts"),
    port: settled(draft, "port"),
    user: draft.user,
    key: settled(draft, "key"),
    tls: settled(draft, "tls"),
    retryMax: 0,
    retryDelayMs: 1000,
  };
}
