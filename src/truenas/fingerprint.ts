/** SHA-256 fingerprints of certificates: one spelling to compare, one for people. */

/** A fingerprint in one spelling: 64 hex digits in upper case; undefined when it is none. */
export function normaliseFingerprint(text: string): string | undefined {
  const digits = text.replaceAll(":", "").trim().toUpperCase();
  return /^[0-9A-F]{64}$/.test(digits) ? digits : undefined;
}

/** As people and `openssl x509 -fingerprint -sha256` write it. */
export function formatFingerprint(digits: string): string {
  return (digits.match(/../g) ?? []).join(":");
}
