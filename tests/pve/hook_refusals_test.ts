import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Place, type Reply, type TransportKind, TRANSPORTS } from "../support/place.ts";

const ALLOC = { vmid: 100, format: "raw", name: null, sizeKiB: 65536 };

/** Asks for a volume and checks that the refusal left array and node as they were. */
async function refusedAlloc(
  place: Place,
  options: {
    config?: Record<string, unknown>;
    args?: Record<string, unknown>;
    deadlineMs?: number;
    storage?: string;
  } = {},
): Promise<NonNullable<Reply["error"]>> {
  const before = JSON.stringify(await place.objects());
  const { args, ...rest } = options;
  const reply = await place.ask("alloc_image", { ...ALLOC, ...args }, rest);
  assertEquals(reply.ok, false, JSON.stringify(reply));
  assertEquals(JSON.stringify(await place.objects()), before);
  assert(reply.error !== undefined);
  assertMatch(reply.error.message, /^Cannot [^\n]*[^.\n]$/);
  return reply.error;
}

function both(name: string, run: (transport: TransportKind) => Promise<void>): void {
  for (const transport of TRANSPORTS) Deno.test(`${transport}: ${name}`, () => run(transport));
}

both("an unknown option is refused with the nearest name", async (transport) => {
  await using place = await Place.start(transport);
  const error = await refusedAlloc(place, { config: { "tnb-datset": "x" } });
  assertEquals([error.code, error.field], ["config", "tnb-datset"]);
  assertStringIncludes(error.hint ?? "", "tnb-dataset");
});

for (
  const [option, value] of [
    ["tnb-dataset", "tank//pve"],
    ["tnb-discovery-portal", "portal.example"],
    ["tnb-api-host", "ws://127.0.0.1"],
    ["tnb-zvol-blocksize", "3K"],
  ] as const
) {
  both(`a malformed ${option} is refused by its name`, async (transport) => {
    await using place = await Place.start(transport);
    const error = await refusedAlloc(place, { config: { [option]: value } });
    assertEquals([error.code, error.field], ["config", option]);
  });
}

Deno.test("a malformed IQN is refused by its option", async () => {
  await using place = await Place.start("iscsi");
  const error = await refusedAlloc(place, { config: { "tnb-target-iqn": "pve" } });
  assertEquals([error.code, error.field], ["config", "tnb-target-iqn"]);
});

Deno.test("a malformed NQN is refused by its option", async () => {
  await using place = await Place.start("nvme-tcp");
  const error = await refusedAlloc(place, { config: { "tnb-subsystem-nqn": "pve" } });
  assertEquals([error.code, error.field], ["config", "tnb-subsystem-nqn"]);
});

both(
  "a wrong fingerprint is refused before anything is sent, and the found one is named",
  async (transport) => {
    await using place = await Place.start(transport);
    const error = await refusedAlloc(place, { config: { "tnb-tls-fingerprint": "ab".repeat(32) } });
    assertEquals(error.code, "tls");
    const found = place.simulator.ready.fingerprint.replaceAll(":", "").toLowerCase();
    assert(`${error.message} ${error.hint}`.toLowerCase().replaceAll(":", "").includes(found));
  },
);

both(
  "a certificate that nobody vouches for is refused without a fingerprint",
  async (transport) => {
    await using place = await Place.start(transport);
    const config = place.config();
    delete config["tnb-tls-fingerprint"];
    const reply = await place.ask("status", {}, { config: { "tnb-tls-fingerprint": null } });
    assertEquals(reply.error?.code, "tls");
  },
);

both("a wrong key is refused as auth, and not repeated", async (transport) => {
  await using place = await Place.start(transport);
  const wrong = "7-" + "Z".repeat(64);
  await place.writeSecrets({ "tnb-api-key": wrong });
  const error = await refusedAlloc(place);
  assertEquals(error.code, "auth");
  assertEquals(JSON.stringify(error).includes(wrong), false);
});

both("an expired key is told from a wrong one", async (transport) => {
  await using place = await Place.start(transport);
  await place.faults([{
    method: "auth.login_ex",
    do: "result",
    result: { response_type: "EXPIRED" },
  }]);
  const error = await refusedAlloc(place);
  assertEquals(error.code, "auth");
  assertMatch(error.message, /expired|revoked/);
});

both("no key at all names the secrets file", async (transport) => {
  await using place = await Place.start(transport);
  await place.writeSecrets({});
  assertStringIncludes((await refusedAlloc(place)).message, "/etc/pve/priv/storage/san.tnblock");
});

both("a zvol of the same name without our mark is left alone and named", async (transport) => {
  await using place = await Place.start(transport);
  await makeForeignZvol(place, "vm-100-disk-0");
  const error = await refusedAlloc(place, { args: { name: "vm-100-disk-0" } });
  assertEquals(error.code, "not-ours");
});

both(
  "a foreign zvol is passed over when the name is ours to choose, and is never listed",
  async (transport) => {
    await using place = await Place.start(transport);
    await makeForeignZvol(place, "vm-100-disk-0");
    assertMatch(await place.alloc(), /vm-100-disk-1-/);
    assertEquals((await place.must("list_images", { vmid: 100 })).length, 1);
  },
);

both("no room is refused with the figures", async (transport) => {
  await using place = await Place.start(transport);
  const error = await refusedAlloc(place, { args: { sizeKiB: 2 ** 40 } });
  assertEquals(error.code, "no-space");
  assertStringIncludes(error.message, "20 %");
});

both(
  "a missing target or subsystem is named with those that are there and how to make one",
  async (transport) => {
    await using place = await Place.start(transport);
    const { ready } = place.simulator;
    const [config, there] = transport === "iscsi"
      ? [{ "tnb-target-iqn": "iqn.2005-10.org.freenas.ctl:other" }, ready.targetIqn]
      : [{ "tnb-subsystem-nqn": "nqn.2011-06.com.truenas:other" }, ready.subsystemNqn];
    const error = await refusedAlloc(place, { config });
    assertEquals(error.code, "config");
    assertStringIncludes(error.message, there);
    assertStringIncludes(error.hint ?? "", "Make it in TrueNAS");
  },
);

both(
  "a portal that the array does not offer is named; all of them wrong is an error",
  async (transport) => {
    await using place = await Place.start(transport);
    const error = await refusedAlloc(place, {
      config: { "tnb-discovery-portal": "127.0.0.9:9", "tnb-portals": "127.0.0.9:9" },
    });
    assertEquals([error.code, error.field], ["config", "tnb-portals"]);
  },
);

both("a dataset that belongs to another storage is refused", async (transport) => {
  await using place = await Place.start(transport);
  await place.must("validate_storage");
  await Deno.copyFile(
    `${place.directory}/etc/pve/priv/storage/san.tnblock`,
    `${place.directory}/etc/pve/priv/storage/other.tnblock`,
  );
  assertEquals((await refusedAlloc(place, { storage: "other" })).code, "not-ours");
});

both("a dataset that does not exist is refused", async (transport) => {
  await using place = await Place.start(transport);
  assertEquals(
    (await refusedAlloc(place, { config: { "tnb-dataset": "tank/none" } })).code,
    "not-found",
  );
});

both("a name of another guest, a path, or a wrong format is refused", async (transport) => {
  await using place = await Place.start(transport);
  for (
    const args of [
      { name: "vm-200-disk-0" },
      { name: "vm-100-../x" },
      { name: "photos" },
      { name: "tnb-weight-3ff7c74c" },
      { name: `vm-100-${"a".repeat(62)}` },
    ]
  ) {
    assertEquals((await refusedAlloc(place, { args })).code, "invalid");
  }
  assertEquals((await refusedAlloc(place, { args: { format: "qcow2" } })).code, "unsupported");
});

both("what is no size or no guest's number is refused by its field", async (transport) => {
  await using place = await Place.start(transport);
  const volname = await place.alloc();
  for (const vmid of [0, -1, 1.5, 1e9, 1e300, null, "x", "-1", true, [100]]) {
    const error = await refusedAlloc(place, { args: { vmid } });
    assertEquals([vmid, error.code, error.field], [vmid, "invalid", "args.vmid"]);
  }
  for (const sizeKiB of [0, -1, 1e300, null, "many", "10", true, [10]]) {
    const error = await refusedAlloc(place, { args: { sizeKiB } });
    assertEquals([sizeKiB, error.code, error.field], [sizeKiB, "invalid", "args.sizeKiB"]);
  }
  const before = JSON.stringify(await place.objects());
  for (const size of [0, -1, 2 ** 27 + 0.5, 2 ** 53, 1e300, null, "134217728", true]) {
    const { error } = await place.ask("volume_resize", { volname, size, running: 0 });
    assertEquals([size, error?.code, error?.field], [size, "invalid", "args.size"]);
  }
  assertEquals(JSON.stringify(await place.objects()), before);
});

both("an array that does not answer is given up within the deadline", async (transport) => {
  await using place = await Place.start(transport);
  await place.faults([{ method: "zfs.resource.query", do: "drop-reply" }]);
  const start = performance.now();
  const reply = await place.ask("status", {}, { deadlineMs: 400 });
  assertEquals(reply.error?.code, "timeout");
  assert(performance.now() - start < 5000);
});

both("an unknown method is unsupported", async (transport) => {
  await using place = await Place.start(transport);
  for (const method of ["make_coffee", "constructor", "__proto__"]) {
    assertEquals((await place.ask(method)).error?.code, "unsupported");
  }
});

both("a service that does not run is named with where to start it", async (transport) => {
  await using place = await Place.start(transport);
  await place.stopService(transport === "iscsi" ? "iscsitarget" : "nvmet");
  const error = await refusedAlloc(place);
  assertEquals(error.code, "config");
  assertStringIncludes(error.hint ?? "", "System > Services");
});

both("a failed export takes the new zvol back", async (transport) => {
  await using place = await Place.start(transport);
  const method = transport === "iscsi" ? "iscsi.targetextent.create" : "nvmet.namespace.create";
  await place.faults([{ method, do: "error", errno: 5 }]);
  await refusedAlloc(place);
});

both(
  "a lost answer to the last write is looked up: the volume is used, not made twice",
  async (transport) => {
    await using place = await Place.start(transport);
    const method = transport === "iscsi" ? "iscsi.targetextent.create" : "nvmet.namespace.create";
    await place.faults([{ method, nth: 1, do: "done-then-drop" }]);
    await place.must("alloc_image", ALLOC);
    const objects = await place.objects();
    assertEquals([
      objects.zvols?.length,
      (objects.namespaces?.length ?? 0) + (objects.mappings?.length ?? 0),
    ], [1, 1]);
  },
);

both("a lost answer to the zvol's creation leaves no orphan", async (transport) => {
  await using place = await Place.start(transport);
  await place.faults([{ method: "pool.dataset.create", nth: 1, do: "done-then-drop" }]);
  const volname = await place.must("alloc_image", ALLOC);
  assertEquals((await place.objects()).zvols?.length, 1);
  await place.must("activate_volume", { volname });
});

both("a caller that is gone when the array is done gets its volume undone", async (transport) => {
  await using place = await Place.start(transport);
  const method = transport === "iscsi" ? "iscsi.targetextent.create" : "nvmet.namespace.create";
  await place.faults([{ method, nth: 1, do: "delay", ms: 600 }]);
  assertEquals((await refusedAlloc(place, { deadlineMs: 500 })).code, "timeout");
});

/** A zvol that somebody made by hand. */
async function makeForeignZvol(place: Place, name: string): Promise<void> {
  await place.array(async (nas) => {
    await nas.zvols.create({
      name: `${place.simulator.ready.dataset}/${name}`,
      volsize: 1 << 20,
      volblocksize: "16K",
      sparse: true,
    });
  });
}

both(
  "what the array finds wrong with our own request is not called the user's input",
  async (transport) => {
    await using place = await Place.start(transport);
    const exported = transport === "iscsi" ? "iscsi.extent.create" : "nvmet.namespace.create";
    for (const method of ["pool.dataset.create", exported]) {
      await place.faults([{ method, do: "error", errno: 22 }]);
      const error = await refusedAlloc(place);
      await place.faults([]);
      assertEquals([method, error.code, (error as { errno?: number }).errno], [
        method,
        "array-fault",
        22,
      ]);
    }
  },
);
