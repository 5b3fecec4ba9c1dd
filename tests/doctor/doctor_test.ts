import { assert, assertEquals, assertRejects } from "@std/assert";
import { TnblockError } from "../../src/common/error.ts";
import { check, type CheckOf, type Problem } from "../../src/doctor/check.ts";
import { CHECKS } from "../../src/doctor/checks/all.ts";
import { guide } from "../../src/doctor/guide.ts";
import { readOnlyHost } from "../../src/doctor/read_only_host.ts";
import { TRANSPORTS } from "../support/place.ts";
import { ARRAY_PLANTS } from "./array_plants.ts";
import { CLUSTER_CHECKS } from "../../src/doctor/checks/cluster.ts";
import { Healthy } from "./healthy.ts";
import { NODE_PLANTS } from "./node_plants.ts";
import { NODE_SIDE_PLANTS } from "./node_side_plants.ts";

Deno.test("every check has a fault planted for it, and an id of its own", () => {
  const planted = [...NODE_PLANTS, ...ARRAY_PLANTS, ...NODE_SIDE_PLANTS].map((one) => one.check);
  // Those that compare nodes have a cluster of their own: cluster_test.ts.
  const all = [...planted, ...CLUSTER_CHECKS.map(({ id }) => id)];
  assertEquals([...new Set(all)].sort(), CHECKS.map(({ id }) => id).sort());
  assertEquals(new Set(CHECKS.map(({ id }) => id)).size, CHECKS.length);
});

const problem: Problem = {
  severity: "warning",
  text: "it is so",
  guide: guide("tnblock doctor fine", "one", "two", "three", "four"),
};

const fine: CheckOf<"node"> = check({
  id: "fine",
  title: "fine",
  needs: "node",
  run: () => Promise.resolve([problem]),
});

Deno.test("a check that throws is a finding, and the others go on", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const thrower = check({
    id: "thrower",
    title: "throws",
    needs: "storage",
    run: () => {
      throw new TypeError("x is not a function");
    },
  });
  const rejecter = check({
    id: "rejecter",
    title: "rejects",
    needs: "array",
    run: () => Promise.reject(new Error("no such thing")),
  });
  const { results } = await healthy.look({}, { checks: [thrower, rejecter, fine] });
  assertEquals(
    results.map(({ id, outcome, findings }) => [id, outcome, findings.length]),
    [["thrower", "broken", 1], ["rejecter", "broken", 1], ["fine", "found", 1]],
  );
  const [broken] = results[0]?.findings ?? [];
  assertEquals(broken?.guide.length, 5);
  assert(broken?.text.includes("x is not a function"), broken?.text);
});

Deno.test("a check that hangs is given up after its time, and is a finding", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const hanging = check({
    id: "hanging",
    title: "hangs",
    needs: "node",
    run: () => new Promise<never>(() => {}),
  });
  const { results } = await healthy.look({}, { checks: [hanging, fine], patienceMs: 50 });
  assertEquals(results.map(({ id, outcome }) => [id, outcome]), [
    ["hanging", "broken"],
    ["fine", "found"],
  ]);
});

Deno.test("one check runs by itself, and one that there is not is refused", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const { results } = await healthy.look({ ids: ["binary", "pool"] });
  assertEquals(results.map(({ id }) => id), ["binary", "pool"]);
  const error = await assertRejects(() => healthy.look({ ids: ["pools"] }));
  assert(error instanceof TnblockError && error.code === "invalid", String(error));
  const other = await assertRejects(() => healthy.look({ storage: "nas" }));
  assert(other instanceof TnblockError && other.code === "not-found", String(other));
});

/** All files below a folder with what they hold; sockets and what a program writes about its own run left out. */
async function picture(folder: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  const walk = async (path: string) => {
    for await (const entry of Deno.readDir(path)) {
      const below = `${path}/${entry.name}`;
      if (/\/run\/(simulator|udev)\b|\.array\/|lock-token$/.test(below)) continue;
      if (entry.isDirectory) await walk(below);
      else if (entry.isSymlink) found.set(below, `-> ${await Deno.readLink(below)}`);
      else if (entry.isFile) {
        const { size, mtime } = await Deno.stat(below);
        found.set(below, `${size} ${mtime?.getTime()}`);
      }
    }
  };
  await walk(folder);
  return found;
}

for (const transport of TRANSPORTS) {
  Deno.test(`looking changes nothing on node and array, and logs in once, over ${transport}`, async () => {
    await using healthy = await Healthy.start(transport);
    const before = await picture(healthy.directory);
    const objects = await healthy.place.objects({ weight: true });
    const { logins } = await healthy.place.stats();
    const doctor = healthy.openDoctor();
    await doctor.look();
    await doctor.look({ ids: ["pool"] });
    await doctor.close();
    assertEquals((await healthy.place.stats()).logins - logins, 1);
    assertEquals(await healthy.place.objects({ weight: true }), objects);
    const after = await picture(healthy.directory);
    // What sysfs says of time is the kernel's own.
    const changed = [...new Set([...before.keys(), ...after.keys()])]
      .filter((path) => before.get(path) !== after.get(path));
    assertEquals(changed, []);
  });
}

for (const transport of TRANSPORTS) {
  Deno.test(`each table of the array is read once, whatever the number of checks, over ${transport}`, async () => {
    await using healthy = await Healthy.start(transport);
    const { control } = healthy.place.simulator.ready;
    const reset = await fetch(new URL("/reset", control), { method: "POST" });
    await reset.body?.cancel();
    await healthy.look();
    const { calls } = await (await fetch(new URL("/stats", control))).json();
    // The dataset with its children, and whether it is locked.
    const often = Object.entries(calls).filter(([method, count]) =>
      Number(count) > (method === "zfs.resource.query" ? 2 : 1)
    );
    assertEquals(often, []);
    assert(Object.keys(calls).length <= 16, JSON.stringify(calls));
  });
}

Deno.test("the doctor's node refuses whatever would change it", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const host = readOnlyHost(healthy.host);
  const bounds = { deadlineMs: 5_000 };
  const attempts: readonly (() => Promise<unknown>)[] = [
    () => host.files.replaceText("/etc/hostname", "x", 0o644),
    () => host.files.replaceText("/run/tnblock/x.json", "x", 0o644),
    () => host.files.replaceLink("/dev/tnblock/san/x", "/dev/null"),
    () => host.files.remove("/etc/hostname"),
    () => host.files.makeDirectory("/etc/x", 0o755),
    () => host.files.writeControl("/sys/class/nvme/nvme0/delete_controller", "1", bounds),
    () => host.run("/usr/bin/systemctl", ["restart", "tnblock"], bounds),
    () => host.run("/usr/sbin/pvesm", ["set", "san"], bounds),
    () => host.run("/usr/sbin/iscsiadm", ["-m", "session"], bounds),
    () => host.run("/usr/bin/ssh", ["root@pve2", "--", "reboot"], bounds),
    () => host.connectFabrics("transport=tcp", bounds),
    () => host.prepareLinks(),
  ];
  for (const attempt of attempts) await assertRejects(attempt);
});

Deno.test("two storages of one array are asked over one session", async () => {
  await using healthy = await Healthy.start("nvme-tcp");
  const text = await healthy.read("/etc/pve/storage.cfg");
  const second = text.replace("tnblock: san", "tnblock: san2");
  await healthy.write("/etc/pve/storage.cfg", `${text}\n${second}`);
  const { apiKey } = healthy.place.simulator.ready;
  await healthy.place.writeSecrets({ "tnb-api-key": apiKey }, "san2");
  const { logins } = await healthy.place.stats();
  const { results, storages } = await healthy.look();
  assertEquals(storages, ["san", "san2"]);
  assertEquals((await healthy.place.stats()).logins - logins, 1);
  const found = results.flatMap(({ findings }) => findings.map(({ check }) => check));
  assertEquals([...new Set(found)].sort(), ["dataset", "shared-target"]);
});
