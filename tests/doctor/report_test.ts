import { assert, assertEquals } from "@std/assert";
import { type DoctorCommand, runDoctor } from "../../src/cli/doctor.ts";
import { createMask, maskDocument } from "../../src/doctor/report.ts";
import { TRANSPORTS } from "../support/place.ts";
import { Healthy, VERSION } from "./healthy.ts";

const KEY = `7-${"aB3".repeat(21)}x`;
const DHCHAP = "DHHC-1:01:Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v:";

const mask = () =>
  createMask({
    secrets: [KEY, "s3cret.of-chap"],
    hosts: ["pve1", "pve10", "nas", "nas.lan.example"],
    users: ["svc-pve"],
  });

const cases: readonly (readonly [text: string, masked: string])[] = [
  [`the key ${KEY}!`, "the key <secret-1>!"],
  [`key=${"9-" + "Zz9".repeat(21) + "y"}`, "key=<secret-1>"],
  [`${DHCHAP} and ${DHCHAP}`, "<secret-1> and <secret-1>"],
  ["node pve1, not pve10, again PVE1", "node <host-1>, not <host-2>, again <host-1>"],
  ["https://nas.lan.example:443 and nas", "https://<host-1>:443 and <host-2>"],
  ["10.0.20.11:4420 [fd00::11]:4420 fd00:0::11", "<address-2>:4420 [<address-1>]:4420 <address-1>"],
  ["10.0.20.11 10.0.20.1", "<address-1> <address-2>"],
  [
    "iqn.2005-10.org.freenas.ctl:pve1, iqn.1993-08.org.debian:01:ab12 (iqn.2005-10.org.freenas.ctl:pve1)",
    "<iqn-1>, <iqn-2> (<iqn-1>)",
  ],
  ['"nqn.2014-08.org.nvmexpress:uuid:3f2b"', '"<nqn-1>"'],
  [
    "nvme-uuid.8b6c7f1e-4f57-4f0e-a8a5-5a2f6a1b7f10, vol-vm-1-ns8b6c7f1e-4f57-4f0e-a8a5-5a2f6a1b7f10",
    "nvme-uuid.<uuid-1>, vol-vm-1-ns<uuid-1>",
  ],
  [
    "wwn-0x6589cfc0000006b5d1f3a6f0c9d2e4b7 mpath-36589cfc0000006b5d1f3a6f0c9d2e4b7",
    "wwn-0x<serial-1> mpath-3<serial-1>",
  ],
  [`${"AB:".repeat(31)}AB`, "<fingerprint-1>"],
  ["other.lan.example and a.b.LAN.example", "<host-1> and <host-2>"],
  ["02:00:5e:10:00:01", "<mac-1>"],
  ["nvme-TrueNAS_0c3a9d52b1aa77f0e1d2_1", "nvme-TrueNAS_<serial-1>_1"],
  ["109951162777600 bytes", ""],
  ["the user svc-pve", "the user <user-1>"],
  ["version 1.2.3, release 25.10.6, 13:05:09, vm-100-disk-0 in tank", ""],
];

for (const [text, masked] of cases) {
  Deno.test(`"${text.slice(0, 50)}" is masked`, () => {
    assertEquals(mask()(text), masked === "" ? text : masked);
  });
}

Deno.test("equal things stay equal over a whole document, names of fields too", () => {
  const document: unknown = { a: ["10.0.0.1", { "10.0.0.1": "pve1" }], b: 7, c: null, d: "pve1" };
  assertEquals(maskDocument(document, mask()), {
    a: ["<address-1>", { "<address-1>": "<host-1>" }],
    b: 7,
    c: null,
    d: "<host-1>",
  });
});

const COMMAND: DoctorCommand = {
  ids: [],
  json: false,
  list: false,
  report: true,
  cluster: false,
  nodeFacts: false,
  strict: false,
  quiet: false,
  version: VERSION,
  limitLogins: false,
  columns: undefined,
  asker: undefined,
};

for (const transport of TRANSPORTS) {
  Deno.test(`nothing that is planted is in a report, over ${transport}`, async () => {
    await using healthy = await Healthy.start(transport);
    const { ready } = healthy.place.simulator;
    const secrets = {
      "tnb-api-key": ready.apiKey,
      ...(transport === "iscsi"
        ? { "tnb-chap-password": "chapsecret123" }
        : { "tnb-dhchap-secret": DHCHAP }),
    };
    await healthy.place.writeSecrets(secrets);
    await healthy.writeCfg({
      "tnb-api-host": `nas.internal.example ${ready.host}`,
      ...(transport === "iscsi" ? { "tnb-chap-user": "chapuser7" } : {}),
      "tnb-portals": "192.0.2.77:4420,[2001:db8::77]:4420",
    });
    const cfg = await healthy.read("/etc/pve/storage.cfg");
    await healthy.write(
      "/etc/pve/storage.cfg",
      `${cfg}\ncifs: share\n\tserver filer.internal.example\n\tshare x\n\ntnblock: bad\n` +
        `\ttnb-api-host odd.internal.example\n\ttnb-datset x\n`,
    );
    await healthy.write("/etc/pve/priv/storage/share.pw", "password=cifs-secret-9\n");
    await healthy.place.writeSecrets({ "tnb-chap-password": "of-a-former-one" }, "gone");
    await healthy.write(
      "/etc/hosts",
      "127.0.0.1 localhost\n192.0.2.5 pve1.internal.example pve1\n",
    );
    const uuid = "8b6c7f1e-4f57-4f0e-a8a5-5a2f6a1b7f10";
    const naa = "6589cfc0000006b5d1f3a6f0c9d2e4b7";
    healthy.daemonState.journal.open.push({
      id: uuid,
      op: "rename",
      storage: "san",
      zvol: "vm-1-disk-0 of-a-former-one at peer.internal.example",
      startedAt: "2026-03-01T11:00:00.000Z",
      failures: 9,
      isGivenUp: true,
      why: `0x${naa} at nas.internal.example (192.0.2.77) says ${ready.apiKey}`,
    });
    const planted = [
      ...Object.values(secrets),
      ...[
        "nas.internal.example",
        "filer.internal.example",
        "odd.internal.example",
        "internal.example",
      ],
      ...[
        "192.0.2.77",
        "2001:db8::77",
        "192.0.2.5",
        "cifs-secret-9",
        "chapuser7",
        "of-a-former-one",
        "peer.internal.example",
        uuid,
        naa,
      ],
      ...[ready.targetIqn, ready.subsystemNqn, await healthy.hostNqn(), await healthy.initiator()],
      ...[ready.fingerprint.replaceAll(":", "").toLowerCase(), "127.0.0.1"],
      (await healthy.read("/etc/pve/priv/tnblock/cluster-id")).trim(),
    ];
    let text = "";
    await runDoctor(healthy.host, COMMAND, (part) => text += part);
    const low = text.toLowerCase();
    assertEquals(planted.filter((value) => low.includes(value.toLowerCase())), []);
    assertEquals(/\bpve1\b/.test(text), false, text.slice(0, 500));
    const report = JSON.parse(text);
    assertEquals(report.findings.some((one: { check: string }) => one.check === "options"), true);
    assert(text.includes("<host-1>") && text.includes("<address-1>"));
  });
}
