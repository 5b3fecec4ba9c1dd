/** What becomes of each option of the Perl plugin, and of each of ours on the way back. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Finding } from "../../src/migrate/findings.ts";
import { type Dialect, PERL_OPTIONS, perlName } from "../../src/migrate/perl_options.ts";
import { sectionText, sectionTexts } from "../../src/migrate/section_text.ts";
import { toPerl } from "../../src/migrate/to_perl.ts";
import { apiOf, isInsecure, toTnblock, type Trust } from "../../src/migrate/to_tnblock.ts";
import { optionSchema, SECRET_OPTIONS } from "../../src/pve/options.ts";

const VERIFIED: Trust = { kind: "verified" };
const KEY = `1-${"a".repeat(64)}`;
const SECRET = `DHHC-1:01:${"A".repeat(44)}:`;

/** The least that a storage needs, by base names. */
const ISCSI = {
  api_host: "nas.lan",
  api_key: KEY,
  dataset: "tank/pve",
  target_iqn: "iqn.2005-10.org.freenas.ctl:pve",
  discovery_portal: "10.0.0.5",
};
const NVME = {
  api_host: "nas.lan",
  api_key: KEY,
  dataset: "tank/pve",
  transport_mode: "nvme-tcp",
  subsystem_nqn: "nqn.2011-06.com.truenas:uuid:1:pve",
  discovery_portal: "10.0.0.5:4420",
};

function section(base: Readonly<Record<string, string>>, dialect: Dialect) {
  return Object.fromEntries(
    Object.entries(base).map(([name, value]) => [perlName(name, dialect), value]),
  );
}

/** An option, a value of it, and what is to become of it: name and value, or the kind of finding. */
interface Row {
  readonly value: string;
  readonly nvme?: true;
  readonly besides?: Readonly<Record<string, string>>;
  readonly becomes?: readonly [name: string, value: string];
  readonly kind: Finding["kind"];
}

const dropped = (value: string): Row => ({ value, kind: "dropped" });

/** Every property that the plugin ever had (prior art, section 1). */
const ROWS: Readonly<Record<string, readonly Row[]>> = {
  api_host: [
    { value: "10.0.0.9", becomes: ["tnb-api-host", "10.0.0.9"], kind: "carried" },
    { value: "[fd00::9]", becomes: ["tnb-api-host", "[fd00::9]"], kind: "carried" },
    { value: "a b c", kind: "refused" },
  ],
  api_key: [
    { value: KEY, becomes: ["tnb-api-key", KEY], kind: "carried" },
    { value: "x", kind: "refused" },
  ],
  api_scheme: [
    dropped("wss"),
    dropped("https"),
    { value: "ws", kind: "changed" },
    { value: "http", kind: "changed" },
  ],
  api_port: [
    { value: "8443", becomes: ["tnb-api-port", "8443"], kind: "carried" },
    { value: "80", besides: { api_scheme: "ws" }, kind: "changed" },
    { value: "0", kind: "refused" },
  ],
  api_transport: [dropped("ws")],
  api_insecure: [dropped("0"), { value: "1", kind: "changed" }],
  prefer_ipv4: [dropped("1")],
  dataset: [
    { value: "tank/a/b", becomes: ["tnb-dataset", "tank/a/b"], kind: "carried" },
    { value: "/tank", kind: "refused" },
  ],
  zvol_blocksize: [
    { value: "64k", becomes: ["tnb-zvol-blocksize", "64k"], kind: "carried" },
    { value: "3K", kind: "refused" },
  ],
  transport_mode: [
    { value: "iscsi", becomes: ["tnb-transport-mode", "iscsi"], kind: "carried" },
  ],
  target_iqn: [
    {
      value: "iqn.2005-10.org.x:a",
      becomes: ["tnb-target-iqn", "iqn.2005-10.org.x:a"],
      kind: "carried",
    },
    { value: "short", kind: "refused" },
  ],
  discovery_portal: [
    {
      value: "[fd00::5]:3260",
      becomes: ["tnb-discovery-portal", "[fd00::5]:3260"],
      kind: "carried",
    },
    { value: "nas.lan", kind: "refused" },
  ],
  portals: [
    { value: "10.0.0.6,10.0.0.7", becomes: ["tnb-portals", "10.0.0.6,10.0.0.7"], kind: "carried" },
    { value: "10.0.00.6", kind: "refused" },
  ],
  use_multipath: [{ value: "0", becomes: ["tnb-use-multipath", "0"], kind: "carried" }],
  use_by_path: [dropped("1")],
  ipv6_by_path: [dropped("1")],
  force_delete_on_inuse: [dropped("1")],
  logout_on_free: [dropped("1")],
  chap_user: [
    {
      value: "pve",
      besides: { chap_password: "twelve-chars" },
      becomes: ["tnb-chap-user", "pve"],
      kind: "changed",
    },
    dropped("alone"),
  ],
  chap_password: [
    {
      value: "twelve-chars",
      besides: { chap_user: "pve" },
      becomes: ["tnb-chap-password", "twelve-chars"],
      kind: "carried",
    },
    { value: "short", besides: { chap_user: "pve" }, kind: "refused" },
    dropped("twelve-chars"),
  ],
  subsystem_nqn: [{
    value: "nqn.2011-06.com.truenas:x",
    nvme: true,
    becomes: ["tnb-subsystem-nqn", "nqn.2011-06.com.truenas:x"],
    kind: "carried",
  }, { value: "nqn.2011-06.com.truenas", nvme: true, kind: "refused" }],
  hostnqn: [{
    value: "nqn.2014-08.org.nvmexpress:uuid:1",
    nvme: true,
    becomes: ["tnb-hostnqn", "nqn.2014-08.org.nvmexpress:uuid:1"],
    kind: "carried",
  }],
  nvme_dhchap_secret: [
    { value: SECRET, nvme: true, becomes: ["tnb-dhchap-secret", SECRET], kind: "carried" },
    { value: "plain", nvme: true, kind: "refused" },
  ],
  nvme_dhchap_ctrl_secret: [{
    value: SECRET,
    nvme: true,
    besides: { nvme_dhchap_secret: SECRET },
    becomes: ["tnb-dhchap-ctrl-secret", SECRET],
    kind: "carried",
  }],
  nvme_allow_any_host: [dropped("1")],
  compression: [{ value: "ZSTD-3", becomes: ["tnb-compression", "ZSTD-3"], kind: "carried" }],
  sparse: [{ value: "0", becomes: ["tnb-sparse", "0"], kind: "carried" }],
  enable_live_snapshots: [dropped("1")],
  snapshot_volume_chains: [dropped("1")],
  vmstate_storage: [dropped("local")],
  enable_bulk_operations: [dropped("1")],
  api_retry_max: [{ value: "5", becomes: ["tnb-api-retry-max", "5"], kind: "carried" }],
  api_retry_delay: [{ value: "0.5", becomes: ["tnb-api-retry-delay", "0.5"], kind: "carried" }],
  storage_lock_timeout: [{ value: "90", becomes: ["tnb-lock-timeout", "90"], kind: "carried" }],
  use_cluster_lock: [dropped("0")],
  device_ready_retries: [dropped("600")],
  broker_timeout: [dropped("60")],
  nr_io_queues: [{ value: "4", nvme: true, becomes: ["tnb-nr-io-queues", "4"], kind: "carried" }],
  nvme_ctrl_loss_tmo: [
    { value: "-1", nvme: true, becomes: ["tnb-ctrl-loss-tmo", "-1"], kind: "carried" },
    { value: "0", nvme: true, kind: "refused" },
  ],
  nvme_reconnect_delay: [
    { value: "5", nvme: true, becomes: ["tnb-reconnect-delay", "5"], kind: "carried" },
  ],
  nvme_keep_alive_tmo: [
    { value: "7", nvme: true, becomes: ["tnb-keep-alive-tmo", "7"], kind: "carried" },
  ],
  debug: [{ value: "2", becomes: ["tnb-debug", "2"], kind: "carried" }],
  api_budget_s: [dropped("120")],
  status_probe_backoff_s: [dropped("30")],
  status_budget_s: [dropped("8")],
  op_budget_s: [dropped("60")],
  nvme_max_io_kb: [dropped("1024")],
};

Deno.test("every option of the Perl plugin is in the table", () => {
  assertEquals(Object.keys(ROWS).sort(), Object.keys(PERL_OPTIONS).sort());
});

for (const [base, rows] of Object.entries(ROWS)) {
  for (const dialect of ["1.x", "2.x"] as const) {
    if (dialect === "1.x" && PERL_OPTIONS[base]?.isNew === true) continue;
    const name = perlName(base, dialect);
    for (const { value, nvme, besides = {}, becomes, kind } of rows) {
      const shown = value.length > 20 ? `${value.slice(0, 20)}…` : value;
      Deno.test(`${dialect}: ${name} ${shown} is ${kind}`, () => {
        const all = section(
          { ...(nvme === true ? NVME : ISCSI), ...besides, [base]: value },
          dialect,
        );
        const { config, secrets, findings } = toTnblock("san", all, VERIFIED);
        const own = findings.filter(({ option }) => option === name);
        assert(own.some((one) => one.kind === kind), JSON.stringify(findings));
        if (kind !== "refused") {
          assertEquals(findings.filter((one) => one.kind === "refused"), []);
          assertEquals(own.length, 1);
        }
        for (const { words, kind } of own) assert(kind === "carried" || (words ?? "") !== "");
        if (becomes === undefined) return;
        const [ours, wanted] = becomes;
        const place = SECRET_OPTIONS.includes(ours) ? secrets : config;
        assertEquals(place[ours], wanted);
        // No secret is ever in the section, nor in what is told.
        assert(!SECRET_OPTIONS.some((secret) => secret in config));
        assert(!JSON.stringify(findings).includes(KEY));
      });
    }
  }
}

Deno.test("REST is carried from 1.x, where it was heeded, and not from 2.x, where it was not", () => {
  for (const [dialect, wanted] of [["1.x", "rest"], ["2.x", undefined]] as const) {
    const { config } = toTnblock(
      "san",
      section({ ...ISCSI, api_transport: "rest" }, dialect),
      VERIFIED,
    );
    assertEquals(config["tnb-api-transport"], wanted);
  }
});

Deno.test("any certificate becomes the one that was seen", () => {
  const all = section({ ...ISCSI, api_insecure: "1", api_scheme: "ws" }, "2.x");
  assert(isInsecure(all));
  assertEquals(apiOf(all), { host: "nas.lan", port: 443 });
  const sha256 = "ab".repeat(32);
  const { config, findings } = toTnblock("san", all, { kind: "pin", sha256 });
  assertEquals(config["tnb-tls-fingerprint"], sha256);
  const [pinned] = findings.filter(({ option }) => option === "tn_api_insecure");
  assertEquals(pinned?.kind, "changed");
  assertStringIncludes(pinned?.words ?? "", sha256);
});

Deno.test("Proxmox VE's own options stay, and an unknown one is told", () => {
  const own = { nodes: "pve1,pve2", content: "images,rootdir", shared: "1", disable: "1" };
  const { config, findings } = toTnblock("san", {
    ...section(ISCSI, "2.x"),
    ...own,
    tn_api_key_file: "/x",
  }, VERIFIED);
  for (const [name, value] of Object.entries(own)) assertEquals(config[name], value);
  const [unknown] = findings.filter(({ option }) => option === "tn_api_key_file");
  assertEquals(unknown?.kind, "dropped");
});

Deno.test("of an option that is there under both names that of 2.x counts", () => {
  const both = { ...section(ISCSI, "2.x"), debug: "1", tn_debug: "2" };
  for (const all of [both, Object.fromEntries(Object.entries(both).reverse())]) {
    assertEquals(toTnblock("san", all, VERIFIED).config["tnb-debug"], "2");
  }
});

for (const [what, base] of [["iSCSI", ISCSI], ["NVMe/TCP", NVME]] as const) {
  for (const dialect of ["1.x", "2.x"] as const) {
    Deno.test(`${dialect}: what is carried over comes back the same over ${what}`, () => {
      const before = {
        ...section({
          ...base,
          ...(what === "iSCSI"
            ? { chap_user: "pve", chap_password: "twelve-chars" }
            : { nvme_dhchap_secret: SECRET }),
          ...{ api_port: "8443", sparse: "0", debug: "1", use_multipath: "1", prefer_ipv4: "0" },
        }, dialect),
        ...{ shared: "1", content: "images" },
      };
      const { config, secrets } = toTnblock("san", before, VERIFIED);
      assertEquals(toPerl(config, secrets, dialect, before).config, before);
    });
  }
}

Deno.test("every option of ours has a way back, or words why not", () => {
  for (const name of Object.keys(optionSchema.entries)) {
    for (const dialect of ["1.x", "2.x"] as const) {
      const { findings } = toPerl({ type: "tnblock", [name]: "1" }, {}, dialect);
      const own = findings.filter(({ option }) => option === name);
      assertEquals(own.length, 1, name);
      assert(own[0]?.kind === "carried" || (own[0]?.words ?? "") !== "", name);
    }
  }
});

Deno.test("a pin becomes any certificate, and a certificate authority is refused", () => {
  const kindOf = (name: string) =>
    toPerl({ [name]: "x" }, {}, "2.x").findings.find(({ option }) => option === name)?.kind;
  assertEquals(kindOf("tnb-tls-fingerprint"), "changed");
  assertEquals(kindOf("tnb-tls-ca"), "refused");
  assertEquals(kindOf("tnb-chap-peer-password"), "refused");
});

Deno.test("sections are found as they stand in the file, to the byte", () => {
  const own = "truenasplugin: san\n\ttn_dataset tank/pve\n    shared\n\t# a word\n\tnodes a,b\n";
  const text = `dir: local\n\tpath /x\n\n${own}\nlvm: z\n\tvgname y`;
  const found = sectionTexts(text);
  assertEquals(found.map(({ type, id }) => `${type} ${id}`), [
    "dir local",
    "truenasplugin san",
    "lvm z",
  ]);
  assertEquals(found[1]?.text, own);
  assertEquals(found[1]?.options, { tn_dataset: "tank/pve", shared: "1", nodes: "a,b" });
  assertEquals(
    sectionTexts(sectionText("tnblock", "san", { "tnb-debug": "1" }))[0]?.options,
    { "tnb-debug": "1" },
  );
});
