import { assertEquals, assertInstanceOf, assertStringIncludes, assertThrows } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { parseSettings, parseStorageId } from "../../src/pve/settings.ts";

const KEY = "1-" + "A".repeat(64);
const ISCSI = {
  type: "tnblock",
  content: "images,rootdir",
  shared: 1,
  "tnb-api-host": "truenas.example",
  "tnb-dataset": "tank/pve",
  "tnb-target-iqn": "iqn.2005-10.org.freenas.ctl:pve",
  "tnb-discovery-portal": "10.0.0.5",
};
const NVME = {
  type: "tnblock",
  "tnb-api-host": "10.0.0.5",
  "tnb-dataset": "tank/pve",
  "tnb-transport-mode": "nvme-tcp",
  "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:uuid:7b0c4d52:pve",
  "tnb-portals": "10.0.0.5,10.0.1.5:4421",
};
const SECRETS = { "tnb-api-key": KEY };

function refusal(
  config: Record<string, unknown>,
  secrets: Record<string, unknown> = SECRETS,
): TnblockError {
  const error = assertThrows(() => parseSettings("san", config, secrets));
  assertInstanceOf(error, TnblockError);
  assertEquals(error.code, "config");
  return error;
}

Deno.test("an iSCSI section with its key becomes settings with the documented defaults", () => {
  const settings = parseSettings("san", ISCSI, SECRETS);
  assertEquals(settings.api.port, 443);
  assertEquals(settings.api.tls, { kind: "verified" });
  assertEquals(settings.zvolBlockSize, 16384);
  assertEquals(settings.sparse, true);
  assertEquals(settings.transport, {
    kind: "iscsi",
    targetIqn: "iqn.2005-10.org.freenas.ctl:pve",
    portals: [{ address: "10.0.0.5", port: 3260 }],
    useMultipath: false,
    chap: undefined,
    blockSize: 512,
  });
});

Deno.test("multipath is used with more than one portal, unless the option says otherwise", () => {
  const use = (change: Record<string, unknown>) => {
    const { transport } = parseSettings("san", { ...ISCSI, ...change }, SECRETS);
    return transport.kind === "iscsi" && transport.useMultipath;
  };
  assertEquals(use({}), false);
  assertEquals(use({ "tnb-portals": "10.0.1.5" }), true);
  assertEquals(use({ "tnb-portals": "10.0.1.5", "tnb-use-multipath": 0 }), false);
  assertEquals(use({ "tnb-use-multipath": "1" }), true);
});

Deno.test("an NVMe section keeps its portals in order and never gives a controller up", () => {
  const { transport } = parseSettings("san", NVME, SECRETS);
  assertEquals(transport.portals, [{ address: "10.0.0.5", port: 4420 }, {
    address: "10.0.1.5",
    port: 4421,
  }]);
  assertEquals(transport.kind === "nvme-tcp" && transport.ctrlLossTmo, -1);
});

Deno.test("the discovery portal may be repeated among the portals", () => {
  const { transport } = parseSettings("san", {
    ...ISCSI,
    "tnb-portals": "10.0.0.5:3260, [fd00::5]",
  }, SECRETS);
  assertEquals(transport.portals, [{ address: "10.0.0.5", port: 3260 }, {
    address: "fd00::5",
    port: 3260,
  }]);
});

Deno.test("numbers and booleans mean the same as their texts", () => {
  const settings = parseSettings("san", {
    ...ISCSI,
    "tnb-api-port": 8443,
    "tnb-sparse": false,
    "tnb-use-multipath": "0",
  }, SECRETS);
  assertEquals(settings.api.port, 8443);
  assertEquals(settings.sparse, false);
  assertEquals(settings.transport.kind === "iscsi" && settings.transport.useMultipath, false);
});

Deno.test("a fingerprint is taken with colons and in capitals", () => {
  const text = "AB:".repeat(31) + "AB";
  const { api } = parseSettings("san", { ...ISCSI, "tnb-tls-fingerprint": text }, SECRETS);
  assertEquals(api.tls, { kind: "fingerprint", sha256: "ab".repeat(32) });
});

Deno.test("an unknown option of ours is refused with the nearest name", () => {
  const error = refusal({ ...ISCSI, "tnb-datset": "tank/pve" });
  assertEquals(error.field, "tnb-datset");
  assertStringIncludes(error.hint ?? "", "tnb-dataset");
});

Deno.test("options of PVE are never looked at", () => {
  parseSettings(
    "san",
    { ...ISCSI, bwlimit: "clone=5", nodes: { pve1: 1 }, "future-option": [] },
    SECRETS,
  );
});

Deno.test("a secret in the section is refused, and not repeated in the message", () => {
  const error = refusal({ ...ISCSI, "tnb-api-key": KEY });
  assertEquals(error.message.includes(KEY), false);
});

for (
  const [what, change, field] of [
    ["plain ws", { "tnb-api-host": "ws://10.0.0.5" }, "tnb-api-host"],
    ["three API addresses", { "tnb-api-host": "a,b,c" }, "tnb-api-host"],
    ["an address with leading zeros", { "tnb-api-host": "10.0.0.05" }, "tnb-api-host"],
    ["a malformed dataset", { "tnb-dataset": "/tank//pve" }, "tnb-dataset"],
    ["a dataset that climbs", { "tnb-dataset": "tank/../pve" }, "tnb-dataset"],
    ["a malformed IQN", { "tnb-target-iqn": "iqn.pve" }, "tnb-target-iqn"],
    [
      "a portal by name",
      { "tnb-discovery-portal": "truenas.example:3260" },
      "tnb-discovery-portal",
    ],
    ["a portal with an octal octet", { "tnb-portals": "10.0.0.010" }, "tnb-portals"],
    ["a port out of range", { "tnb-api-port": 70000 }, "tnb-api-port"],
    ["a block size that is none", { "tnb-zvol-blocksize": "24K" }, "tnb-zvol-blocksize"],
    ["a short fingerprint", { "tnb-tls-fingerprint": "abcd" }, "tnb-tls-fingerprint"],
    ["a list where a value belongs", { "tnb-dataset": ["tank/pve"] }, "tnb-dataset"],
    ["CHAP without a secret", { "tnb-chap-user": "pve" }, "tnb-chap-password"],
    ["both a fingerprint and a CA", {
      "tnb-tls-fingerprint": "a".repeat(64),
      "tnb-tls-ca": "/x.pem",
    }, "tnb-tls-ca"],
  ] as const
) {
  Deno.test(`a configuration with ${what} is refused by name`, () => {
    assertEquals(refusal({ ...ISCSI, ...change }).field, field);
  });
}

for (
  const [what, change, field] of [
    ["a malformed NQN", { "tnb-subsystem-nqn": "nqn.pve" }, "tnb-subsystem-nqn"],
    [
      "an NQN with a comma",
      { "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:a,b" },
      "tnb-subsystem-nqn",
    ],
    ["no portal", { "tnb-portals": undefined }, "tnb-portals"],
    ["a controller loss time of 0", { "tnb-ctrl-loss-tmo": "0" }, "tnb-ctrl-loss-tmo"],
  ] as const
) {
  Deno.test(`an NVMe configuration with ${what} is refused by name`, () => {
    const config: Record<string, unknown> = { ...NVME, ...change };
    for (const key of Object.keys(config)) if (config[key] === undefined) delete config[key];
    assertEquals(refusal(config).field, field);
  });
}

Deno.test("a missing key names the file that it belongs in", () => {
  assertStringIncludes(refusal(ISCSI, {}).message, "/etc/pve/priv/storage/san.tnblock");
});

Deno.test("a malformed key is refused without being repeated", () => {
  const error = refusal(ISCSI, { "tnb-api-key": "not a key at all" });
  assertEquals(error.message.includes("not a key at all"), false);
});

Deno.test("a storage id that could leave its folder is refused", () => {
  for (const id of ["../x", "a/b", "", "a", ".a", undefined]) {
    assertThrows(() => parseStorageId(id), "storage id");
  }
});
