import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { TnblockError, withContext } from "../../src/common/error.ts";
import { fromFailedJob, fromRpcError } from "../../src/truenas/error_mapping.ts";
import {
  ArrayError,
  hasDependents,
  isBusy,
  isDeviceMissing,
  isExists,
  isInUse,
  isNotFound,
  isReloadFailed,
  isUnknownOutcome,
  isUnsupported,
  outcomeOf,
} from "../../src/truenas/errors.ts";

interface Recorded {
  readonly seq: number;
  readonly method?: string;
  readonly response: { readonly error?: unknown } | null;
}

/** Real answers of the server code of two releases; by number of the record. */
async function recordings(release: string): Promise<Map<number, Recorded>> {
  const url = new URL(`../fixtures/truenas/transcripts/${release}.jsonl`, import.meta.url);
  const lines = (await Deno.readTextFile(url)).split("\n").filter((line) => line !== "");
  return new Map(lines.map((line) => JSON.parse(line) as Recorded).map((row) => [row.seq, row]));
}

const R2510 = await recordings("25.10.6");
const R2504 = await recordings("25.04.2.6");

function recorded(from: Map<number, Recorded>, seq: number): ArrayError {
  const row = from.get(seq);
  assert(row?.response?.error !== undefined, `record ${seq} is no error`);
  return fromRpcError(row.response.error, { method: row.method ?? "frame" });
}

function callError(errno: number, reason: string): ArrayError {
  return fromRpcError(
    { code: -32001, message: "Method call error", data: { error: errno, reason, extra: null } },
    { method: "m" },
  );
}

function invalid(field: string | null, text: string, errno = 22): ArrayError {
  const data = { error: 22, reason: "[EINVAL] x", extra: [[field, text, errno]] };
  return fromRpcError({ code: -32602, message: "Invalid params", data }, { method: "m" });
}

Deno.test("recorded errors get the code that says what they mean", () => {
  const table: readonly (readonly [Map<number, Recorded>, number, string, number | undefined])[] = [
    [R2510, 2, "auth", 207],
    [R2510, 3, "unsupported", undefined],
    [R2510, 13, "array-fault", 22],
    [R2510, 40, "not-found", 2],
    [R2510, 56, "not-found", 22],
    [R2510, 68, "exists", 14],
    [R2510, 75, "no-space", 22],
    [R2510, 79, "not-found", 22],
    [R2510, 133, "not-found", 2],
    [R2510, 142, "invalid", 22],
    [R2510, 160, "array-fault", 22],
    [R2510, 164, "exists", 17],
    [R2510, 193, "exists", 14],
    [R2510, 199, "has-dependents", 14],
    [R2510, 218, "not-found", 2],
    [R2510, 295, "exists", 22],
    [R2510, 296, "in-use", 22],
    [R2510, 472, "in-use", 22],
    [R2510, 490, "exists", 22],
    [R2510, 519, "has-dependents", 14],
    [R2510, 522, "has-dependents", 39],
    [R2510, 530, "busy", 16],
    [R2510, 541, "unsupported", 201],
    [R2510, 587, "denied", 13],
    [R2510, 600, "busy", undefined],
    [R2510, 603, "rate-limited", 16],
    [R2504, 78, "no-space", 14],
    [R2504, 131, "unsupported", undefined],
    [R2504, 207, "busy", 14],
    [R2504, 210, "has-dependents", 22],
    [R2504, 369, "in-use", 14],
    [R2504, 379, "not-found", 2],
  ];
  for (const [from, seq, code, errno] of table) {
    const error = recorded(from, seq);
    assertEquals([seq, error.code, error.errno], [seq, code, errno]);
  }
});

Deno.test("every recorded error is answered, on one line, without a full stop or a trace", () => {
  let count = 0;
  for (const from of [R2510, R2504]) {
    for (const row of from.values()) {
      if (row.response?.error === undefined) continue;
      const error = recorded(from, row.seq);
      count++;
      assertEquals(error.outcome, "answered");
      assertMatch(error.message, /^Cannot call "[^"]+": [^\n]+[^.\n]$/);
      assert(error.message.length < 700);
      const kept = JSON.stringify({ ...error, cause: error.cause });
      assert(!kept.includes("frames") && !kept.includes("formatted"), kept);
    }
  }
  assert(count > 200, `${count} errors`);
});

Deno.test("a validation error keeps the field, the number and every finding", () => {
  const error = recorded(R2510, 76);
  assertEquals(error.field, "pool_dataset_create.volsize");
  assertEquals(error.findings.map((finding) => finding.errno), [22, 22]);
  assertEquals(error.rpcCode, -32602);
});

Deno.test("the message begins with what was being done", () => {
  const row = R2510.get(68);
  const error = fromRpcError(row?.response?.error, {
    method: "pool.dataset.create",
    doing: 'Cannot create zvol "tank/vm-1"',
  });
  assertEquals(
    error.message,
    `Cannot create zvol "tank/vm-1": Failed to create dataset: cannot create 'tank/vm-1': dataset already exists`,
  );
  assertEquals(
    error.reason,
    "Failed to create dataset: cannot create 'tank/vm-1': dataset already exists",
  );
});

Deno.test("numbers of 26 and of TrueNAS itself are understood", () => {
  const clones = "Snapshot 'a@b' has the following clones: tank/c";
  assertEquals(
    invalid("zfs.resource.destroy", "'tank/x' has snapshots", 39).code,
    "has-dependents",
  );
  assertEquals(invalid("pool.snapshot.delete", clones, 16).code, "has-dependents");
  assertEquals(invalid("pool.snapshot.create", "NAME already exists.", 17).code, "exists");
  assertEquals(callError(2007, "[EZFS_BUSY] pool or dataset is busy").code, "busy");
  assertEquals(callError(22, "[EINVAL] 'tank/x' already exists").code, "exists");
  assertEquals(callError(13, "[EACCES] Session is expired").code, "auth");
  const failed = callError(202, "[ESERVICESTARTFAILURE] The nvmet service failed to start");
  assert(isReloadFailed(failed));
  assertStringIncludes(failed.hint ?? "", "saved");
});

Deno.test("EINVAL is the user's only where the field carries a value of his", () => {
  const table: readonly (readonly [Map<number, Recorded>, number, string, string | undefined])[] = [
    [R2510, 74, "invalid", "pool_dataset_create.volsize"],
    [R2510, 85, "invalid", "data.PoolDatasetCreateVolume.name"],
    [R2510, 166, "invalid", "snapshot_create.name"],
    [R2504, 97, "config", "pool_dataset_create.volblocksize"],
    [R2504, 100, "config", "pool_dataset_create.compression"],
    [R2510, 100, "config", "data.PoolDatasetCreateVolume.compression"],
    [R2504, 314, "config", "iscsi_extent_create.blocksize"],
    // Ours: a type, a field that is too many or missing, a number that we picked, a name that we made.
    [R2504, 92, "array-fault", "pool_dataset_create.volsize"],
    [R2510, 93, "array-fault", "data.PoolDatasetCreateFilesystem.type"],
    [R2504, 95, "array-fault", "pool_dataset_create.volsize"],
    [R2504, 150, "array-fault", "pool_dataset_update.user_properties_update.0.value"],
    [R2504, 302, "array-fault", "iscsi_extent_create.name"],
    [R2504, 350, "array-fault", "iscsi_targetextent_create.lunid"],
    [R2510, 465, "array-fault", "nvmet_namespace_create.nsid"],
    [R2510, 494, "array-fault", "nvmet_namespace_update"],
    [R2510, 226, "array-fault", "pool.dataset.rename.force"],
  ];
  for (const [from, seq, code, field] of table) {
    const error = recorded(from, seq);
    assertEquals([seq, error.code, error.errno, error.field], [seq, code, 22, field]);
  }
  assertStringIncludes(recorded(R2510, 100).hint ?? "", "tnb-compression");
  assertEquals([callError(22, "[EINVAL] no way").code, callError(74, "[EBADMSG] no").code], [
    "array-fault",
    "array-fault",
  ]);
});

Deno.test("whatever a server may send as an error, an error of ours comes out", () => {
  for (
    const odd of [null, 7, "x", {}, { code: -32602 }, { code: -32001, data: { extra: 3 } }, {
      code: -32602,
      data: { extra: [[1, 2], 3, []] },
    }]
  ) {
    assert(fromRpcError(odd, { method: "m" }) instanceof ArrayError);
  }
});

Deno.test("a result that was lost on its way out has an unknown outcome", () => {
  const error = fromRpcError({ code: -32603, message: "Failed to JSON serialize" }, {
    method: "m",
  });
  assert(isUnknownOutcome(error));
});

Deno.test("predicates see through the context that was put around an error", () => {
  const inner = recorded(R2510, 68);
  const outer = withContext(withContext(inner, "Cannot allocate"), "Cannot do more");
  assert(isExists(outer) && !isNotFound(outer) && !isBusy(outer) && !isInUse(outer));
  assertEquals(outcomeOf(outer), "answered");
  assert(!isExists(new TnblockError("exists", "Cannot x: it is not from the array")));
  assert(isUnsupported(recorded(R2510, 3)) && hasDependents(recorded(R2510, 519)));
});

Deno.test("a device node that is not there yet is told from a missing object", () => {
  assert(isDeviceMissing(recorded(R2504, 294)));
  assert(isDeviceMissing(recorded(R2510, 461)));
  assert(!isDeviceMissing(recorded(R2510, 40)));
  assert(!isDeviceMissing(recorded(R2510, 296)));
});

Deno.test("a failed job is an error with the number of what failed in it", () => {
  const error = fromFailedJob({
    state: "FAILED",
    error: "[ENOENT] Dataset 'x' not found",
    exc_info: { type: "CallError", errno: 2, extra: null },
  }, { method: "core.bulk" });
  assertEquals([error.code, error.errno, error.outcome], ["not-found", 2, "answered"]);
  assertEquals(fromFailedJob({ state: "ABORTED" }, { method: "m" }).code, "array-fault");
});
