/** The first questions: where the array is, whether it is the right one, and who we are to it. */
import { TnblockError } from "../common/error.ts";
import type { TlsTrust } from "../common/storage_settings.ts";
import type { Host } from "../host/host.ts";
import { openNodeSession } from "../pve/node_session.ts";
import { parseAddress } from "../truenas/address.ts";
import { formatFingerprint, normaliseFingerprint } from "../truenas/fingerprint.ts";
import { readCertificate, type ShownCertificate } from "../truenas/socket_certificate.ts";
import { readArrayFacts } from "./array_facts.ts";
import type { SetupQuestion, Talk } from "./conversation.ts";
import { apiOf, settled } from "./draft.ts";
import { howToMakeKey, leastRoles } from "./rights.ts";

/** Milliseconds for each connection. */
const CONNECT_MS = 10_000;

/** A wrong key is asked for this often; each try is a login, and TrueNAS counts them. */
const KEY_TRIES = 3;

/** Where a session would note the dialect; before the confirmation nothing is written. */
const DIALECT_FILE = "/run/tnblock/setup.dialect";

/** `1-` and letters, as TrueNAS shows it once. */
const KEY = /^[0-9]+-[A-Za-z0-9]{16,128}$/;

const apiPort: SetupQuestion = {
  id: "api-port",
  isSilent: true,
  ask: () => Promise.resolve("443"),
  settle: ({ draft }, answer) => {
    const port = Number(answer);
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new TnblockError("invalid", `Cannot use "${answer}" as the port: it is no port`, {
        field: "--api-port",
      });
    }
    draft.port = port;
    return Promise.resolve();
  },
};

const apiHost: SetupQuestion = {
  id: "api-host",
  checking: "Looking at its certificate",
  ask: ({ asker }, flag) =>
    asker.text({ flag, message: "Address or name of TrueNAS (two with a comma, for HA)" }),
  settle: async ({ draft, world }, answer) => {
    const parts = answer.split(/[\s,]+/).filter((part) => part !== "");
    const given = draft.port;
    const ends = parts.map((part) => parseAddress(part, given ?? 443));
    const [first, second] = ends;
    if (first === undefined || ends.length > 2 || (second?.port ?? first.port) !== first.port) {
      throw new TnblockError(
        "invalid",
        `Cannot use "${answer}": give one address, or two with the same port`,
        { field: "--api-host" },
      );
    }
    const { host: clock } = world;
    draft.certificate = await readCertificate({ endpoint: first, deadlineMs: CONNECT_MS, clock });
    draft.hosts = ends.map(({ host }) => host);
    draft.port = first.port;
  },
};

const trust: SetupQuestion = {
  id: "trust",
  ask: async ({ asker, draft, world }, flag) => {
    const certificate = settled(draft, "certificate");
    asker.tell(describeCertificate(certificate, world.host.now()));
    const choice = await asker.choose({
      flag,
      message: "Is this the right TrueNAS?",
      choices: [
        ...(certificate.isVerified
          ? [{
            value: "verified",
            label: "Yes: verified by this node's certificate authorities",
            hint: "stays right when the certificate is renewed",
          }]
          : []),
        {
          value: "pin",
          label: "Yes: this certificate only",
          hint: "compare the fingerprint in TrueNAS first; after a renewal: setup --edit",
        },
        { value: "ca", label: "By a certificate authority of our own", hint: "a PEM file" },
        { value: "no", label: "No" },
      ],
      // Trusting is never the answer of a key pressed too often, unless others vouch for it.
      initial: certificate.isVerified ? 0 : 2,
    });
    if (choice === "verified") return "verified";
    if (choice === "pin") return formatFingerprint(certificate.fingerprint);
    if (choice === "ca") {
      return await asker.text({
        flag,
        message: "PEM file of the authority (below /etc/pve all nodes see it)",
        refuse: (path) => path.startsWith("/") ? undefined : "Give an absolute path",
      });
    }
    throw new TnblockError("tls", "Cannot go on: the certificate is not the right one", {
      hint: "See System > General Settings > GUI in TrueNAS for its certificate",
    });
  },
  settle: async (talk, answer) => {
    const { draft, world } = talk;
    const { fingerprint, isVerified } = settled(draft, "certificate");
    const digits = normaliseFingerprint(answer);
    if (digits !== undefined) {
      if (digits !== fingerprint) {
        throw new TnblockError(
          "tls",
          `Cannot trust TrueNAS: its certificate has the fingerprint ${
            formatFingerprint(fingerprint)
          }, not the one that was given`,
          { field: "--trust" },
        );
      }
      draft.tls = { kind: "fingerprint", sha256: digits.toLowerCase() };
      return;
    }
    if (answer === "verified") {
      if (!isVerified) {
        throw new TnblockError(
          "tls",
          "Cannot trust TrueNAS: no certificate authority of this node vouches for it",
          { field: "--trust", hint: `Compare, then give: --trust ${fingerprint.toLowerCase()}` },
        );
      }
      draft.tls = { kind: "verified" };
      return;
    }
    await settleAuthority(talk, answer, world.host);
  },
};

async function settleAuthority({ draft }: Talk, path: string, host: Host): Promise<void> {
  const refuse = (why: string) =>
    new TnblockError("config", `Cannot use "${path}" for --trust: ${why}`, {
      field: "--trust",
      hint: "Give verified, a SHA-256 fingerprint, or the path of a PEM file",
    });
  if (!path.startsWith("/")) throw refuse("it is neither a fingerprint nor a path");
  const pem = await host.files.readText(path);
  if (pem === undefined) throw refuse("there is no such file");
  if (!pem.includes("-----BEGIN CERTIFICATE-----")) throw refuse("it holds no PEM certificate");
  const tls: TlsTrust = { kind: "ca", file: path };
  draft.tls = tls;
}

const apiUser: SetupQuestion = {
  id: "api-user",
  ask: ({ asker }, flag) =>
    asker.text({ flag, message: "User that the API key belongs to", initial: "tnblock" }),
  settle: ({ draft }, answer) => {
    if (!/^[A-Za-z0-9_.@\\-]{1,64}$/.test(answer)) {
      throw new TnblockError("invalid", `Cannot use "${answer}": it is no user name`, {
        field: "--api-user",
      });
    }
    draft.user = answer;
    return Promise.resolve();
  },
};

const apiKey: SetupQuestion = {
  id: "api-key-file",
  tries: KEY_TRIES,
  checking: "Logging in, and looking at what is there",
  isSecret: true,
  ask: ({ asker }, flag) =>
    asker.secret({
      flag,
      message: "API key (not shown)",
      refuse: (typed) => KEY.test(typed) ? undefined : "A key is a number, a dash and letters",
    }),
  settle: async (talk, answer) => {
    const { draft, world, asker, isTerminal } = talk;
    const isTyped = KEY.test(answer);
    const key = isTyped ? answer : await readKey(talk, answer);
    // A wrong key before left its session open nowhere: each try has its own.
    draft.key = key;
    draft.keyFile = isTyped || answer === "-" ? undefined : answer;
    const session = await openNodeSession(
      {
        host: withoutNotes(world.host),
        limitLogins: world.limitLogins,
        dialectFile: DIALECT_FILE,
      },
      apiOf(draft),
      { deadlineMs: 4 * CONNECT_MS, ...(world.signal ? { signal: world.signal } : {}) },
    ).catch((error: unknown) => {
      throw error instanceof TnblockError && error.code === "auth" ? withKeyHint(error) : error;
    });
    try {
      draft.array = await readArrayFacts(session);
    } catch (error) {
      session.close();
      throw error;
    }
    draft.session?.close();
    draft.session = session;
    const { privileges, release } = draft.array;
    if (!isTerminal) return;
    const { nvmet } = release.can;
    asker.tell(
      [
        `TrueNAS ${release.text}`,
        ...(privileges.isFullAdmin
          ? [
            "This key is a full administrator's, and can do more than it should. With less:",
            ...wrapped(howToMakeKey(leastRoles(nvmet ? "nvme-tcp" : "iscsi", release))),
          ]
          : ["The key's user has:", ...wrapped([...privileges.roles].sort().join(" "))]),
      ].join("\n"),
    );
  },
};

/** In lines of at most 76 characters, a bit to the right. */
function wrapped(text: string): string[] {
  const lines: string[] = [];
  for (const word of text.split(" ")) {
    const last = lines.at(-1);
    if (last === undefined || last.length + word.length > 75) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

/** The error of a wrong key, with the way to a right one that has no more rights than needed. */
function withKeyHint(error: TnblockError): TnblockError {
  return new TnblockError(error.code, error.message, {
    cause: error,
    field: "--api-key-file",
    hint:
      howToMakeKey(["DATASET_WRITE", "SNAPSHOT_WRITE", "SNAPSHOT_DELETE", "SERVICE_READ", "…"]) +
      " (all roles: docs/truenas-roles.md)",
  });
}

/** From a file that holds the key alone, or a secrets file; `-` is standard input. */
async function readKey({ world }: Talk, path: string): Promise<string> {
  const refuse = (why: string) =>
    new TnblockError("config", `Cannot read the API key from ${path}: ${why}`, {
      field: "--api-key-file",
      hint: "Give a file of root's alone that holds the key, or - for standard input",
    });
  if (path !== "-" && !path.startsWith("/")) throw refuse("it is not an absolute path");
  if (path !== "-") {
    const status = await world.host.files.status(path);
    if (status === undefined) throw refuse("there is no such file");
    if ((status.mode & 0o077) !== 0) {
      throw refuse("others than its owner can read it; chmod 600 it");
    }
  }
  const text = path === "-" ? await world.input() : await world.host.files.readText(path) ?? "";
  const found = keyIn(text.trim());
  if (found === undefined || !KEY.test(found)) throw refuse("it holds no API key");
  return found;
}

function keyIn(text: string): string | undefined {
  if (!text.startsWith("{")) return text;
  try {
    const key: unknown = (JSON.parse(text) as Record<string, unknown>)["tnb-api-key"];
    return typeof key === "string" ? key : undefined;
  } catch {
    return undefined;
  }
}

/** A session notes its dialect for the next one; that can wait until there is a storage. */
function withoutNotes(host: Host): Host {
  const { files } = host;
  const replaceText: typeof files.replaceText = (path, ...rest) =>
    path === DIALECT_FILE ? Promise.resolve() : files.replaceText(path, ...rest);
  return { ...host, files: { ...files, replaceText } };
}

/** What a person compares. */
export function describeCertificate(certificate: ShownCertificate, nowMs: number): string {
  const { fingerprint, name, issuer, names, validFrom, validTo, isVerified } = certificate;
  const digits = formatFingerprint(fingerprint);
  const isOver = validTo !== undefined && Date.parse(validTo) < nowMs;
  return [
    "The certificate that this address shows:",
    `  for          ${name ?? "-"}${names === undefined ? "" : ` (${names})`}`,
    `  issued by    ${issuer ?? "-"}`,
    `  valid        ${validFrom ?? "-"} to ${validTo ?? "-"}${isOver ? " (OVER)" : ""}`,
    `  verified     ${isVerified ? "yes, by this node's authorities" : "no"}`,
    `  fingerprint  ${digits.slice(0, 47)}`,
    `  (SHA-256)    ${digits.slice(48)}`,
  ].join("\n");
}

export const ACCESS_QUESTIONS: readonly SetupQuestion[] = [
  apiPort,
  apiHost,
  trust,
  apiUser,
  apiKey,
];
