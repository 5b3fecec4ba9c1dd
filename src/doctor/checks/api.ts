/** Checks of the way to the array's API: address, certificate, key, session, clock. */
import { TnblockError } from "../../common/error.ts";
import { parseAddress } from "../../truenas/address.ts";
import { readCertificate } from "../../truenas/socket_certificate.ts";
import { check, type Problem, Skipped } from "../check.ts";
import { editStorage, tryPort } from "../commands.ts";
import { guide, menusOf } from "../guide.ts";
import type { StorageContext } from "../storage_context.ts";

/** Menus for an array that cannot be asked: those of the release that it had when the daemon last spoke with it. */
async function lastMenus(storage: StorageContext) {
  const release = (await storage.state())?.array?.release ?? "";
  const numbers = /\d+(?:\.\d+)+/.exec(release)?.[0]?.split(".").map(Number);
  return menusOf(numbers === undefined ? undefined : { numbers });
}

/** Why the array cannot be asked; undefined when it can. */
async function failure(storage: StorageContext): Promise<TnblockError | undefined> {
  const array = await storage.array();
  return array instanceof TnblockError ? array : undefined;
}

/** Failures that are about the certificate, and about the key; all others are about the way there. */
const OF_CERTIFICATE = ["tls"];
const OF_KEY = ["auth", "denied", "rate-limited"];
const OF_RELEASE = ["unsupported"];

const apiReach = check({
  id: "api-reach",
  title: "the array's API answers",
  needs: "storage",
  run: async (storage) => {
    const error = await failure(storage);
    if (
      error === undefined ||
      [...OF_CERTIFICATE, ...OF_KEY, ...OF_RELEASE].includes(error.code)
    ) return [];
    const { hosts, port } = storage.settings.api;
    return [{
      severity: "error",
      text: error.message,
      guide: guide(
        storage.again("api-reach"),
        `See whether the name leads to the array: getent ahosts ${hosts[0]}`,
        `See whether the port answers from this node: ${tryPort(hosts[0] ?? "", port)}`,
        `Open its web interface: https://${hosts[0]}${
          port === 443 ? "" : `:${port}`
        }; where it does not answer either, start the array or look at its network (${
          (await lastMenus(storage)).network
        })`,
        `Correct the address where it has changed: pvesm set ${storage.id} --tnb-api-host ADDRESS --tnb-api-port ${port}`,
      ),
    }];
  },
});

const certificate = check({
  id: "certificate",
  title: "the array's certificate is the one that is trusted",
  needs: "storage",
  run: async (storage) => {
    const error = await failure(storage);
    if (error === undefined) return await runningOut(storage);
    if (!OF_CERTIFICATE.includes(error.code)) return [];
    const { hosts, port, tls } = storage.settings.api;
    const show = `openssl s_client -connect ${
      hosts[0]
    }:${port} </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256 -subject -dates`;
    return [{
      severity: "error",
      text: error.message,
      guide: guide(
        storage.again("certificate"),
        `See which certificate is presented here: ${show}`,
        `See in TrueNAS which one it should be, on a way that is safe: ${
          (await lastMenus(storage)).certificates
        }; if the two differ, somebody stands in between: stop here and find out who`,
        tls.kind === "ca"
          ? `See that the authority is the one that signed it: openssl x509 -noout -subject -in ${tls.file}`
          : "See whether it was renewed on purpose, or has run out, or the node's clock is wrong: date",
        `Trust the one that is right: pvesm set ${storage.id} --tnb-tls-fingerprint SHA256-FINGERPRINT`,
      ),
    }];
  },
});

/** Days before its end from which on a certificate is told. */
const RUNNING_OUT_DAYS = 14;

/** A certificate that is verified is refused from its last day on; one that is known by its fingerprint is not. */
async function runningOut(storage: StorageContext): Promise<Problem[]> {
  const array = await storage.array();
  const { api } = storage.settings;
  if (array instanceof TnblockError || api.tls.kind === "fingerprint") return [];
  const { host } = storage.node;
  const endpoint = parseAddress(array.address, api.port);
  const { validTo } = await readCertificate({ endpoint, deadlineMs: 5_000, clock: host });
  const days = Math.floor((Date.parse(validTo ?? "") - host.now()) / 86_400_000);
  if (Number.isNaN(days) || days >= RUNNING_OUT_DAYS) return [];
  return [{
    severity: "warning",
    text: `the array's certificate runs out in ${days} days: no node can use the API after that`,
    guide: guide(
      storage.again("certificate"),
      `See until when it is valid: openssl s_client -connect ${array.address} </dev/null 2>/dev/null | openssl x509 -noout -dates`,
      `Renew it in TrueNAS: Credentials > Certificates`,
      `Let the web interface use the new one: ${array.menus.certificates}`,
      api.tls.kind === "ca"
        ? `Where another authority signed it, put that into ${api.tls.file} on every node`
        : "See that the system's authorities know who signed it: update-ca-certificates",
    ),
  }];
}

const apiKey = check({
  id: "api-key",
  title: "the array accepts the API key",
  needs: "storage",
  run: async (storage) => {
    const error = await failure(storage);
    if (error === undefined || !OF_KEY.includes(error.code)) return [];
    const menus = await lastMenus(storage);
    const user = storage.settings.api.user ?? "the user of the key";
    if (error.code === "rate-limited") {
      return [{
        severity: "warning",
        text: error.message,
        guide: guide(
          storage.again("api-key"),
          "Wait for a minute: every try counts",
          "See that the daemon runs, which needs one login for everything: systemctl status tnblock",
          "See who else on this node logs in: ss -tnp | grep -v tnblock | grep -E ':(443|80) '",
          "Give scripts of your own a session that lasts, or a longer pause",
        ),
      }];
    }
    return [{
      severity: "error",
      text: error.message,
      guide: guide(
        storage.again("api-key"),
        `See in TrueNAS whether the key is there, has not run out and was not revoked: ${menus.apiKeys}`,
        `See that the key is the user "${user}"'s, and where not, name the right one: pvesm set ${storage.id} --tnb-api-user USER`,
        "Make a new key there if in doubt; TrueNAS shows it once, and revokes it for good when it is used over plain http",
        `Set it, which shows it to nobody: ${editStorage(storage.id)}`,
      ),
    }];
  },
});

/** Days after which TrueNAS ends a session without closing its connection. */
const SESSION_DAYS = 30;

const session = check({
  id: "session",
  title: "the daemon's session with the array is up",
  needs: "array",
  run: async ({ storage }) => {
    const link = (await storage.state())?.array;
    if (link === undefined || link === null) return [];
    const now = storage.node.host.now();
    const days = (now - Date.parse(link.since)) / 86_400_000;
    const isOld = link.state === "up" && days > SESSION_DAYS;
    // It may have been lost a moment ago.
    const isDown = link.state === "down" && now - Date.parse(link.since) > 60_000;
    if (!isOld && !isDown) return [];
    return [{
      severity: isDown ? "error" : "warning",
      text: isDown
        ? `the array answers, and the daemon has no session with it${
          link.error === null ? "" : `: ${link.error.message}`
        }`
        : `the daemon's session is ${
          Math.floor(days)
        } days old, and TrueNAS ends one after ${SESSION_DAYS} without a word`,
      guide: guide(
        storage.again("session"),
        "See how the session is: tnblock status",
        "Read what the daemon says of it: journalctl -u tnblock -g session -e",
        "Let it log in anew, which stops no guest: systemctl restart tnblock",
        "See that it is up: tnblock status",
      ),
    }];
  },
});

/** Milliseconds by which clocks may differ. */
const SKEW_MS = 10_000;
const FAR_SKEW_MS = 300_000;

const clock = check({
  id: "clock",
  title: "the array's clock and the node's agree",
  needs: "array",
  run: async ({ storage, menus, clockAheadMs }) => {
    const ahead = await clockAheadMs();
    if (ahead === undefined) throw new Skipped("the array's web server does not tell the time");
    if (Math.abs(ahead) <= SKEW_MS) return [];
    const seconds = Math.round(Math.abs(ahead) / 1000);
    return [{
      severity: Math.abs(ahead) > FAR_SKEW_MS ? "error" : "warning",
      text: `the array's clock is ${seconds} s ${ahead > 0 ? "ahead of" : "behind"} the node's`,
      guide: guide(
        storage.again("clock"),
        "See how the node's clock is kept: timedatectl; chronyc tracking",
        "Set the node's right where it is wrong: systemctl restart chrony, then chronyc makestep",
        `See the array's time servers: ${menus.time}`,
        "Give both the same time servers, those of the cluster's nodes",
      ),
    }];
  },
});

/** All of them. */
export const API_CHECKS = [apiReach, certificate, apiKey, session, clock] as const;
