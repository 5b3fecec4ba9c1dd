/** Notes and protection of a volume, and the text that names a storage's place. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { identityOf } from "../../src/pve/methods/attributes.ts";
import { isProtected, notesOf, refuseProtected } from "../../src/volumes/attributes.ts";
import { Place, type TransportKind } from "../support/place.ts";

function everywhere(name: string, run: (place: Place) => Promise<void>): void {
  const places: [TransportKind, "25.04" | "25.10" | "26"][] = [
    ["nvme-tcp", "25.10"],
    ["iscsi", "25.10"],
    ["iscsi", "25.04"],
    ["nvme-tcp", "26"],
  ];
  for (const [transport, release] of places) {
    Deno.test(`${transport}, ${release}: ${name}`, async () => {
      await using place = await Place.start(transport, { release });
      await run(place);
    });
  }
}

const set = (place: Place, volname: string, attribute: string, value: unknown) =>
  place.ask("update_volume_attribute", { volname, attribute, value });
const get = (place: Place, volname: string, attribute: string) =>
  place.must("get_volume_attribute", { volname, attribute });
const pathOf = (place: Place) => `${place.simulator.ready.dataset}/vm-100-disk-0`;

const TEXTS = [
  "one line",
  "two\nlines\r\nwith\ttabs",
  "Größe: 5 TiB 💾",
  " blanks around ",
  "t:looks like ours",
  "-",
  "a: 'quotes' \"and\" \\ backslash",
  "\u0001 control",
];

everywhere("any text survives as notes, and an empty one removes them", async (place) => {
  const volname = await place.alloc();
  assertEquals(await get(place, volname, "notes"), "");
  for (const text of TEXTS) {
    assertEquals((await set(place, volname, "notes", text)).error, undefined);
    assertEquals(await get(place, volname, "notes"), text);
  }
  assertEquals((await set(place, volname, "notes", "")).error, undefined);
  assertEquals(await get(place, volname, "notes"), "");
  const zvol = await place.array((nas) => nas.zvols.read(pathOf(place)));
  assertEquals(zvol?.userProperties["tnblock:notes"], undefined);
});

everywhere(
  "protection is on, off, and one write each; what is so already costs none",
  async (place) => {
    const volname = await place.alloc();
    assertEquals(await get(place, volname, "protected"), 0);
    for (const [value, expected] of [[1, 1], ["0", 0], [true, 1], ["", 0]] as const) {
      place.calls.length = 0;
      assertEquals((await set(place, volname, "protected", value)).error, undefined);
      assertEquals(place.calls.filter((method) => method === "pool.dataset.update").length, 1);
      assertEquals(await get(place, volname, "protected"), expected);
      place.calls.length = 0;
      assertEquals((await set(place, volname, "protected", value)).error, undefined);
      assertEquals(place.calls.filter((method) => method === "pool.dataset.update").length, 0);
    }
  },
);

everywhere("what is neither on nor off changes no protection", async (place) => {
  const volname = await place.alloc();
  await set(place, volname, "protected", 1);
  place.calls.length = 0;
  for (const value of ["maybe", "no", "true", 2, -1, 0.5, "01", " ", [], {}]) {
    const { error } = await set(place, volname, "protected", value);
    assertEquals([value, error?.code, error?.field], [value, "invalid", "args.value"]);
  }
  assertEquals(place.calls, []);
  assertEquals(await get(place, volname, "protected"), 1);
  for (const value of [false, null]) {
    await set(place, volname, "protected", 1);
    assertEquals((await set(place, volname, "protected", value)).error, undefined);
    assertEquals(await get(place, volname, "protected"), 0);
  }
});

everywhere("what is set on the dataset is nobody's notes, and protects nothing", async (place) => {
  const volname = await place.alloc();
  await place.array((nas) =>
    nas.datasets.setUserProperties(place.simulator.ready.dataset, {
      "tnblock:notes": "1700000000:t:of the dataset",
      "tnblock:protected": "1",
    })
  );
  assertEquals(await get(place, volname, "notes"), "");
  assertEquals(await get(place, volname, "protected"), 0);
  // Nor is it any reason to write.
  assertEquals((await set(place, volname, "protected", 0)).error, undefined);
  await set(place, volname, "notes", "own");
  assertEquals(await get(place, volname, "notes"), "own");
});

everywhere(
  "notes that are too long are refused with the limit, and the old ones stay",
  async (place) => {
    const volname = await place.alloc();
    await set(place, volname, "notes", "old");
    place.calls.length = 0;
    for (const text of ["x".repeat(1100), "ä".repeat(500), "x".repeat(200_000)]) {
      const reply = await set(place, volname, "notes", text);
      assertEquals(reply.error?.code, "invalid");
      assertStringIncludes(reply.error?.message ?? "", "1024");
    }
    assertEquals(place.calls.filter((method) => method === "pool.dataset.update").length, 0);
    assertEquals(await get(place, volname, "notes"), "old");
    for (const text of ["x".repeat(1000), "ä\n".repeat(250)]) {
      assertEquals((await set(place, volname, "notes", text)).error, undefined);
      assertEquals(await get(place, volname, "notes"), text);
    }
  },
);

everywhere("a lost answer is looked up, and the value is there", async (place) => {
  const volname = await place.alloc();
  for (const [index, fault] of ["done-then-drop", "cut"].entries()) {
    await place.faults([{ method: "pool.dataset.update", nth: 1, do: fault }]);
    assertEquals((await set(place, volname, "notes", `text ${index}`)).error, undefined);
    await place.faults([]);
    assertEquals(await get(place, volname, "notes"), `text ${index}`);
  }
});

everywhere("an attribute that is none is null, and cannot be set", async (place) => {
  const volname = await place.alloc();
  assertEquals(await get(place, volname, "colour"), null);
  assertEquals((await set(place, volname, "colour", "red")).error?.code, "unsupported");
});

everywhere("a name that means another disk has no attributes", async (place) => {
  const { stale } = await place.replaced();
  for (
    const reply of [
      await set(place, stale, "protected", 1),
      await place.ask("get_volume_attribute", { volname: stale, attribute: "notes" }),
    ]
  ) assertEquals(reply.error?.code, "volume-replaced");
});

Deno.test("a value that belongs to another zvol counts for nothing", () => {
  const zvol = {
    createdMs: 1_763_798_400_000,
    userProperties: { "tnblock:notes": "1763798400:t:mine", "tnblock:protected": "1763798400:1" },
  };
  assertEquals([notesOf(zvol), isProtected(zvol)], ["mine", true]);
  const clone = { ...zvol, createdMs: 1_763_798_401_000 };
  assertEquals([notesOf(clone), isProtected(clone)], ["", false]);
  refuseProtected({ zvol: "vm-1-disk-0" }, clone);
  let refused = "";
  try {
    refuseProtected({ zvol: "vm-1-disk-0" }, zvol);
  } catch (error) {
    refused = String(error);
  }
  assert(refused.includes("it is protected"), refused);
});

Deno.test("the identity is the same for two definitions of one place, whatever their spelling", () => {
  const text = identityOf({
    "tnb-api-host": "NAS2.example, nas1.example",
    "tnb-dataset": "tank/pve",
  });
  assertEquals(text, "tnblock:/nas1.example,nas2.example/tank/pve");
  assertEquals(
    identityOf({ "tnb-api-host": "nas1.example nas2.example", "tnb-dataset": "tank/pve" }),
    text,
  );
  assertEquals(
    identityOf({ "tnb-api-host": "[fd00::1]", "tnb-dataset": "tank/pve" }),
    identityOf({ "tnb-api-host": "FD00::1", "tnb-dataset": "tank/pve" }),
  );
  assert(identityOf({ "tnb-api-host": "nas1", "tnb-dataset": "tank/other" }) !== text);
});

everywhere("the hook tells the identity of its configuration, without the array", async (place) => {
  place.calls.length = 0;
  const { ready } = place.simulator;
  assertEquals(await place.must("get_identity"), `tnblock:/${ready.host}/${ready.dataset}`);
  assertEquals(place.calls, []);
});
