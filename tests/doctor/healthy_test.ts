import { assert, assertEquals } from "@std/assert";
import { connect } from "node:tls";
import { daemonIn } from "../daemon/state_support.ts";
import { TRANSPORTS } from "../support/place.ts";
import { meWithout } from "./array_plants.ts";
import { Healthy, VERSION } from "./healthy.ts";

for (const transport of TRANSPORTS) {
  for (const release of ["25.10", "26"] as const) {
    Deno.test(`nothing is found where all is well, over ${transport} on ${release}`, async () => {
      await using healthy = await Healthy.start(transport, { release });
      const { results } = await healthy.look();
      assertEquals(results.flatMap(({ findings }) => findings), []);
      assertEquals(
        results.filter(({ outcome }) => outcome !== "ok").map(({ id, note }) => [id, note]),
        [],
      );
    });
  }
}

for (const transport of TRANSPORTS) {
  Deno.test(`nothing is found with a daemon that works, over ${transport}`, async () => {
    await using healthy = await Healthy.start(transport);
    await healthy.stopDaemon();
    await using running = await daemonIn(healthy.directory, {
      version: VERSION,
      keeperPeriodMs: 50,
      metricsPeriodMs: 60_000,
    });
    // Until it has read the array and looked at the node some checks have nothing to go by.
    const end = Date.now() + 20_000;
    for (;;) {
      const { results } = await healthy.look();
      const others = results.filter(({ outcome }) => outcome !== "ok");
      if (others.length === 0) break;
      const found = others.map(({ id, note, findings }) => [id, note, findings[0]?.text]);
      assert(Date.now() < end, JSON.stringify(found));
    }
    assert(running.daemon !== undefined);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`nothing is found with a key of the least rights, over ${transport}`, async () => {
    await using healthy = await Healthy.start(transport);
    // Those that docs/truenas-roles.md gives for the other transport, and what no volume needs.
    const others = transport === "iscsi"
      ? ["SHARING_NVME_TARGET_WRITE"]
      : ["EXTENT_WRITE", "TARGETEXTENT_WRITE", "TARGETEXTENT_READ", "TARGET_READ", "PORTAL_READ"]
        .map((role) => `SHARING_ISCSI_${role}`);
    const me = await meWithout(healthy, ["POOL_READ", ...others]);
    const refused = ["pool.query", "iscsi.initiator.query"].map((method) => ({
      ...{ method, do: "error", errno: 13, message: "Not authorized" },
    }));
    await healthy.place.faults([{ method: "auth.me", do: "result", result: me }, ...refused]);
    const { results } = await healthy.look();
    const found = results.flatMap(({ findings }) =>
      findings.map(({ check, text }) => [check, text])
    );
    assertEquals(found, []);
    const skipped = results.filter(({ outcome }) => outcome !== "ok");
    assertEquals(skipped.map(({ id, note }) => [id, note]), [
      ["pool", "the API key may not read pools, which no volume needs"],
    ]);
  });
}

Deno.test("nothing is found where all is well over REST", async () => {
  await using healthy = await Healthy.start("iscsi", { release: "25.04" });
  await healthy.writeCfg({ "tnb-api-transport": "rest" });
  const { results } = await healthy.look();
  const others = results.filter(({ outcome }) => outcome !== "ok");
  assertEquals(others.map(({ id, outcome }) => [id, outcome]), [["api-rights", "skipped"]]);
});

/** The certificate that a server shows, as PEM. */
async function pemOf(host: string, port: number): Promise<string> {
  const raw = await new Promise<Uint8Array>((resolve, reject) => {
    const tls = connect({ host, port, rejectUnauthorized: false }, () => {
      resolve(tls.getPeerCertificate().raw);
      tls.destroy();
    });
    tls.on("error", reject);
  });
  const text = btoa(String.fromCharCode(...raw)).replaceAll(/(.{64})/g, "$1\n");
  return `-----BEGIN CERTIFICATE-----\n${text.trim()}\n-----END CERTIFICATE-----\n`;
}

Deno.test("a verified certificate is told before it runs out", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const { host, port } = healthy.place.simulator.ready;
  await healthy.write("/etc/ssl/nas.pem", await pemOf(host, port));
  const cfg = await healthy.read("/etc/pve/storage.cfg");
  const verified = cfg.replace(/tnb-tls-fingerprint .*/, "tnb-tls-ca /etc/ssl/nas.pem");
  await healthy.write("/etc/pve/storage.cfg", verified);
  const look = async (days: number) => {
    const { host } = healthy;
    const later = { ...host, now: () => host.now() + days * 86_400_000 };
    const { results } = await healthy.look({ ids: ["certificate"] }, { host: later });
    return results.flatMap(({ findings }) => findings.map(({ text }) => text));
  };
  assertEquals(await look(0), []);
  const [text] = await look(365_000);
  assert(text?.includes("runs out"), text);
});
