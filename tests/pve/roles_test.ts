/**
 * The roles in docs/truenas-roles.md: with exactly these every operation works, over both transports and
 * on every release, and with one less some operation fails and names it.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { ReleaseName } from "../../src/simulator/simulator.ts";
import { NEEDED_ROLES } from "../../src/truenas/needed_roles.ts";
import { Place, type Reply, type TransportKind } from "../support/place.ts";

const PLACES: readonly (readonly [TransportKind, ReleaseName])[] = [
  ["iscsi", "25.04"],
  ["iscsi", "25.10"],
  ["nvme-tcp", "25.10"],
  ["iscsi", "26"],
  ["nvme-tcp", "26"],
];

/** The roles that the document gives for a storage. */
async function documented(transport: TransportKind, release: ReleaseName): Promise<string[]> {
  const text = await Deno.readTextFile(new URL("../../docs/truenas-roles.md", import.meta.url));
  // | iSCSI | 25.10 and newer | `A_ROLE` `ANOTHER` |
  const rows = text.matchAll(
    /^\| (any|iSCSI|NVMe\/TCP) \| (?:any|([\d.]+) and (?:newer|([\d.]+))) \| (.*) \|$/gm,
  );
  const roles: string[] = [];
  const have = Number(release);
  for (const [, storage, since = "0", until = "99", list = ""] of rows) {
    const isOurs = storage === "any" || (storage === "iSCSI") === (transport === "iscsi");
    if (!isOurs || have < Number(since) || have > Number(until)) continue;
    roles.push(...[...list.matchAll(/`([A-Z_]+)`/g)].map(([, role]) => role ?? ""));
  }
  assert(roles.length > 5, "the document's table was not found");
  return roles;
}

/** A failed step of {@link life}. */
interface Failure {
  readonly method: string;
  readonly error: NonNullable<Reply["error"]>;
}

/** Every operation, one after another; what it stopped at. */
async function life(place: Place, release: ReleaseName): Promise<Failure | undefined> {
  let failure: Failure | undefined;
  // deno-lint-ignore no-explicit-any
  const ask = async (method: string, args: Record<string, unknown> = {}): Promise<any> => {
    const reply = await place.ask(method, args);
    if (reply.ok) return reply.result;
    failure = { method, error: reply.error ?? { code: "none", message: "" } };
    throw new Error("stopped");
  };
  const hasAll = release !== "25.04";
  try {
    for (const method of ["validate_storage", "check_connection", "activate_storage", "status"]) {
      await ask(method);
    }
    const disk = { vmid: 100, format: "raw", sizeKiB: 65536 };
    let volname = await ask("alloc_image", disk);
    await ask("list_images");
    await ask("volume_size_info", { volname });
    await ask("activate_volume", { volname });
    await ask("volume_resize", { volname, size: 128 * 1024 * 1024, running: true });
    await ask("update_volume_attribute", { volname, attribute: "notes", value: "a word" });
    await ask("get_volume_attribute", { volname, attribute: "notes" });
    await ask("volume_snapshot", { volname, snapshot: "one" });
    await ask("volume_snapshot_info", { volname });
    if (hasAll) {
      await ask("activate_volume", { volname, snapshot: "one" });
      await ask("deactivate_volume", { volname, snapshot: "one" });
    }
    await ask("deactivate_volume", { volname });
    if (hasAll) {
      await ask("volume_rollback_is_possible", { volname, snapshot: "one" });
      await ask("volume_snapshot_rollback", { volname, snapshot: "one" });
      const clone = await ask("clone_image", { volname, vmid: 101, snapshot: "one" });
      await ask("free_image", { volname: clone, finish: true });
    }
    await ask("volume_snapshot_delete", { volname, snapshot: "one" });
    await ask("volume_export_prepare", { volname });
    await ask("volume_export_finish", { volname });
    if (hasAll) {
      volname = (await ask("rename_volume", { volname, targetVmid: 102 })).replace(/^san:/, "");
      volname = await ask("create_base", { volname });
      const clone = await ask("clone_image", { volname, vmid: 103 });
      await ask("free_image", { volname: clone, finish: true });
    } else {
      await ask("volume_snapshot", { volname, snapshot: "two" });
    }
    // With a snapshot on it, that goes too.
    await ask("free_image", { volname, isBase: true, finish: true });
    const made = await ask("volume_import_prepare", { vmid: 100, size: 1024 });
    await ask("volume_import_abort", { volname: made.volname });
  } catch (error) {
    if (failure === undefined) throw error;
  }
  return failure;
}

/** All methods that were called on the array. */
async function called(place: Place): Promise<string[]> {
  const stats = await place.stats() as unknown as { calls: Record<string, number> };
  return Object.keys(stats.calls);
}

for (const [transport, release] of PLACES) {
  Deno.test(`the documented roles do for everything: ${transport}, TrueNAS ${release}`, async () => {
    const roles = await documented(transport, release);
    await using place = await Place.start(transport, { release, roles });
    assertEquals(await life(place, release), undefined);
    const unknown = (await called(place)).filter((method) =>
      !/^(auth|core|system)\./.test(method) && !Object.hasOwn(NEEDED_ROLES, method)
    );
    assertEquals(unknown, [], "methods of which nobody knows the role");
  });

  // Between them these three have every role.
  const isChosen = ["iscsi 25.04", "nvme-tcp 25.10", "iscsi 26"].includes(
    `${transport} ${release}`,
  );
  if (!isChosen) continue;
  Deno.test(`each documented role is needed, and named where it lacks: ${transport}, TrueNAS ${release}`, async () => {
    const roles = await documented(transport, release);
    for (const role of roles) {
      await using place = await Place.start(transport, {
        release,
        // In place of a role that writes the one that only reads: then it is the write that fails.
        roles: [
          ...roles.filter((other) => other !== role),
          ...(role.endsWith("_WRITE") ? [role.replace(/_WRITE$/, "_READ")] : []),
        ],
      });
      const failure = await life(place, release);
      assert(failure !== undefined, `everything works without ${role}`);
      const { method, error } = failure;
      assertEquals([role, method, error.code], [role, method, "denied"], error.message);
      assertStringIncludes(error.hint ?? "", role, `${role}: ${method}: ${error.message}`);
    }
  });
}

Deno.test("on 25.04 a denied rollback or clone says that only a full administrator may", async () => {
  const roles = await documented("iscsi", "25.04");
  await using place = await Place.start("iscsi", { release: "25.04", roles });
  const volname = await place.alloc();
  await place.must("volume_snapshot", { volname, snapshot: "one" });
  for (
    const [method, args] of [
      ["volume_snapshot_rollback", { volname, snapshot: "one" }],
      ["clone_image", { volname, snapshot: "one", vmid: 101 }],
      ["activate_volume", { volname, snapshot: "one" }],
    ] as const
  ) {
    const { error } = await place.ask(method, args);
    assertEquals([method, error?.code], [method, "denied"], error?.message);
    assertStringIncludes(error?.hint ?? "", "full administrator", method);
  }
  assertEquals((await place.objects()).zvols?.length, 1);
});
