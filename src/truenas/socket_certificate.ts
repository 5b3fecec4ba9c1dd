/**
 * The certificate that a server shows, without trusting it: what a person compares before it is trusted. A
 * connection of its own, over which nothing is sent.
 */
import { createHash } from "node:crypto";
import { isIP } from "node:net";
import { connect, type PeerCertificate, type TLSSocket } from "node:tls";
import type { Endpoint } from "./address.ts";
import { after, type WaitingClock } from "./clock.ts";
import { ArrayError } from "./errors.ts";
import { dial } from "./socket.ts";
import { connectError, unreachable } from "./socket_errors.ts";

/** A certificate as people compare it. */
export interface ShownCertificate {
  /** SHA-256, 64 hex digits in upper case. */
  readonly fingerprint: string;
  /** Common name, e.g. `localhost` for the one that TrueNAS comes with. */
  readonly name: string | undefined;
  /** Common name or organization of who signed it. */
  readonly issuer: string | undefined;
  /** E.g. `DNS:nas.lan, IP Address:10.0.0.5`. */
  readonly names: string | undefined;
  /** As the certificate says it, e.g. `Nov 22 16:00:00 2026 GMT`. */
  readonly validFrom: string | undefined;
  readonly validTo: string | undefined;
  /** Whether the system's authorities vouch for it under the name that was connected to. */
  readonly isVerified: boolean;
}

/** Where to look. */
export interface CertificateOptions {
  readonly endpoint: Endpoint;
  /** Milliseconds for each of two connections. */
  readonly deadlineMs: number;
  readonly clock: WaitingClock;
}

/**
 * Looks.
 *
 * @throws ArrayError `unreachable`, or `tls` when there is no certificate.
 */
export async function readCertificate(options: CertificateOptions): Promise<ShownCertificate> {
  const certificate = await shown(options);
  const isVerified = await dial(
    { ...options, path: "", trust: { kind: "verified" } },
    options.deadlineMs,
  )
    .then((tls) => {
      tls.destroy();
      return true;
    }, () => false);
  return { ...certificate, isVerified };
}

function shown(
  { endpoint, deadlineMs, clock }: CertificateOptions,
): Promise<Omit<ShownCertificate, "isVerified">> {
  return new Promise((resolve, reject) => {
    const tls: TLSSocket = connect({
      host: endpoint.host,
      port: endpoint.port,
      ALPNProtocols: ["http/1.1"],
      // Looked at, not trusted: nothing is sent.
      rejectUnauthorized: false,
      ...(isIP(endpoint.host) === 0 ? { servername: endpoint.host } : {}),
    });
    const end = (act: () => void) => {
      stop();
      tls.on("error", () => {});
      tls.destroy();
      act();
    };
    const stop = after(
      clock,
      deadlineMs,
      () => end(() => reject(unreachable(endpoint, `no answer within ${deadlineMs} ms`))),
    );
    tls.once("error", (error: unknown) => end(() => reject(connectError(endpoint, error))));
    tls.once(
      "close",
      () =>
        end(() =>
          reject(unreachable(endpoint, "the connection was closed during the TLS handshake"))
        ),
    );
    tls.once("secureConnect", () => {
      const certificate = tls.getPeerCertificate();
      end(() => {
        try {
          resolve(described(endpoint, certificate));
        } catch (error) {
          reject(error);
        }
      });
    });
  });
}

function described(
  endpoint: Endpoint,
  certificate: PeerCertificate,
): Omit<ShownCertificate, "isVerified"> {
  if (!(certificate?.raw instanceof Uint8Array)) {
    throw new ArrayError("tls", `Cannot connect to "${endpoint.text}": it shows no certificate`, {
      outcome: "not-sent",
    });
  }
  const text = (value: unknown) => typeof value === "string" && value !== "" ? value : undefined;
  return {
    fingerprint: createHash("sha256").update(certificate.raw).digest("hex").toUpperCase(),
    name: text(certificate.subject?.CN),
    issuer: text(certificate.issuer?.CN) ?? text(certificate.issuer?.O),
    names: text(certificate.subjectaltname),
    validFrom: text(certificate.valid_from),
    validTo: text(certificate.valid_to),
  };
}
