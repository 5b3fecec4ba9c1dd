/** Freeing: what refuses it, what it costs, and that what stopped half-way is gone on with, on any node. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Place, TRANSPORTS } from "../support/place.ts";

const WRITE = /\.(create|update|delete|destroy|bulk)$/;

for (const transport of TRANSPORTS) {
  for (const release of ["25.04", "25.10", "26"] as const) {
    if (transport === "nvme-tcp" && release === "25.04") continue;
    const test = (name: string, run: (place: Place) => Promise<void>, nodes?: readonly string[]) =>
      Deno.test(`${transport} ${release}: ${name}`, async () => {
        await using place = await Place.start(transport, {
          release,
          ...(nodes === undefined ? {} : { nodes }),
        });
        await place.must("validate_storage");
        await run(place);
      });
    const destroys = release === "26" ? "zfs.resource.destroy" : "pool.dataset.delete";
    const free = (place: Place, volname: string, node?: string) =>
      place.ask(
        "free_image",
        { volname, isBase: 0, finish: true },
        node === undefined ? {} : { node },
      );
    const zvolOf = (place: Place) => `${place.simulator.ready.dataset}/vm-100-disk-0`;
    const nothingLeft = async (place: Place) => {
      const { zvols, snapshots, extents, mappings, namespaces } = await place.objects();
      assertEquals({ zvols, snapshots, extents, mappings, namespaces }, {
        zvols: [],
        snapshots: [],
        extents: [],
        mappings: [],
        namespaces: [],
      });
    };

    for (const count of [0, 1, 40]) {
      test(`freeing a volume with ${count} snapshots costs the same writes`, async (place) => {
        const volname = await place.alloc();
        await place.array(async (nas) => {
          for (let n = 0; n < count; n++) await nas.snapshots.create(zvolOf(place), `auto-${n}`);
        });
        place.calls.length = 0;
        assertEquals((await free(place, volname)).error, undefined);
        const writes = place.calls.filter((method) => WRITE.test(method));
        const most = (transport === "iscsi" ? 3 : 2) + (release === "26" && count > 0 ? 1 : 0);
        assertEquals(writes.length, most, writes.join(", "));
        await nothingLeft(place);
      });
    }

    test("a zvol that is busy for a while is destroyed in the end", async (place) => {
      const volname = await place.alloc();
      await place.faults(
        [1, 2, 3].map((nth) => ({ method: destroys, nth, do: "error", errno: 16 })),
      );
      assertEquals((await free(place, volname)).error, undefined);
      await nothingLeft(place);
    });

    test("while it is busy nobody is told that it is done, and it is done later", async (place) => {
      const volname = await place.alloc();
      const { token } = await place.must("free_image", { volname, isBase: 0 });
      await place.faults([{ method: destroys, do: "error", errno: 16 }]);
      place.calls.length = 0;
      const asked = place.ask("free_image_finish", { token }, { deadlineMs: 400 });
      while (place.calls.filter((method) => method === destroys).length < 4) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      await place.faults([]);
      const { error } = await asked;
      assertEquals(error?.code, "timeout");
      assertStringIncludes(error?.message ?? "", `nothing exports "vm-100-disk-0"`);
      assertStringIncludes(error?.hint ?? "", "Free it again");
      await nothingLeft(place);
    });

    for (const what of ["done-then-drop", "cut"]) {
      test(`a lost answer to the destruction (${what}) is looked up`, async (place) => {
        const volname = await place.alloc();
        await place.faults([{ method: destroys, nth: 1, do: what }]);
        assertEquals((await free(place, volname)).error, undefined);
        await nothingLeft(place);
      });
    }

    test(
      "a free that stopped goes on, on another node than the one that began it",
      async (place) => {
        const volname = await place.alloc();
        await place.faults([{ method: destroys, do: "error", errno: 5 }]);
        assertEquals((await free(place, volname)).ok, false);
        await place.faults([]);
        assertEquals((await place.objects()).zvols?.length, 1);
        await sharePmxcfs(place, "pve1", "pve2");
        assertEquals((await free(place, volname, "pve2")).error, undefined);
        await nothingLeft(place);
      },
      ["pve1", "pve2"],
    );

    test("what nothing exports is not listed, and the warning names the way on", async (place) => {
      const volname = await place.alloc();
      await place.faults([{ method: destroys, do: "error", errno: 5 }]);
      await free(place, volname);
      await place.faults([]);
      const warned = async () => {
        place.log.length = 0;
        assertEquals(await place.must("list_images"), []);
        return place.log.filter((line) => line.startsWith("warning: not listed"));
      };
      const [begun, ...more] = await warned();
      assertEquals(more, []);
      assertStringIncludes(
        begun ?? "",
        `"${zvolOf(place)}" (being freed; if that has stopped: pvesm free san:${volname})`,
      );
      assertEquals((await free(place, volname)).error, undefined);
      assertEquals(await warned(), []);
      // Another of that name, whose export was deleted by hand: no free has begun.
      await place.alloc();
      await place.array(async (nas) => {
        for (const one of await nas.extents.all()) {
          if (one.zvol === zvolOf(place)) await nas.extents.remove(one.id, { force: true });
        }
        for (const one of transport === "iscsi" ? [] : await nas.namespaces.all()) {
          await nas.namespaces.remove(one.id);
        }
      });
      const [lost] = await warned();
      assertStringIncludes(lost ?? "", `"${zvolOf(place)}"; look at`);
    });

    test("what a stopped free left is not freed by another name, nor a later volume by the old one", async (place) => {
      const volname = await place.alloc();
      await place.faults([{ method: destroys, do: "error", errno: 5 }]);
      await free(place, volname);
      await place.faults([]);
      const other = transport === "iscsi"
        ? "vol-vm-100-disk-0-lun15999"
        : `vol-vm-100-disk-0-ns${crypto.randomUUID()}`;
      assertEquals((await free(place, other)).error?.code, "volume-replaced");
      // Somebody cleans up by hand, and a new disk gets the name, whose export is lost in turn.
      await place.array((nas) => nas.zvols.destroy(zvolOf(place)));
      let today = await place.alloc(100, 1024, "vm-100-disk-0");
      // The old number may have been picked again: then the name is right.
      if (today === volname) return;
      assertEquals((await free(place, volname)).error?.code, "volume-replaced");
      today = String((await place.must("list_images"))[0]?.volid);
      assertStringIncludes(today, "vm-100-disk-0");
    });

    test("a disk that came under the name while the array was busy is not destroyed", async (place) => {
      // 25.04 has no call that would free the name meanwhile.
      if (release === "25.04") return;
      const volname = await place.alloc();
      const { token } = await place.must("free_image", { volname, isBase: 0 });
      await place.faults([{ method: destroys, do: "error", errno: 16 }]);
      place.calls.length = 0;
      const asked = place.ask("free_image_finish", { token });
      while (!place.calls.includes(destroys)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      await place.array(async (nas) => {
        await nas.zvols.rename(zvolOf(place), `${zvolOf(place)}-kept`);
        await nas.zvols.create({
          name: zvolOf(place),
          volsize: 1 << 20,
          volblocksize: "16K",
          sparse: true,
        });
      });
      await place.faults([]);
      await asked;
      assertEquals((await place.objects()).zvols?.length, 2);
    });

    test("an export of the other protocol refuses it before the first write", async () => {
      if (release === "25.04") return;
      // The made-up volumes are exported by both protocols.
      await using place = await Place.start(transport, { release, volumes: 1 });
      const volname = String((await place.must("list_images"))[0].volid).slice("san:".length);
      await place.must("activate_volume", { volname });
      place.calls.length = 0;
      assertEquals((await free(place, volname)).error?.code, "in-use");
      assertEquals(place.calls.filter((method) => WRITE.test(method)), []);
      await Deno.stat(place.linkOf(volname));
    });

    test("clones of a base stand in the way by their names, and it is attached as before", async (place) => {
      const volname = await place.alloc();
      const { dataset } = place.simulator.ready;
      await place.array(async (nas) => {
        await nas.snapshots.create(zvolOf(place), "__base__");
        for (const guest of [201, 202]) {
          await nas.snapshots.clone(`${zvolOf(place)}@__base__`, `${dataset}/vm-${guest}-disk-0`);
        }
      });
      await place.must("activate_volume", { volname });
      place.calls.length = 0;
      const { error } = await free(place, volname);
      assertEquals(error?.code, "has-dependents");
      for (const guest of [201, 202]) {
        assertStringIncludes(error?.message ?? "", `vm-${guest}-disk-0`);
      }
      assertEquals(place.calls.filter((method) => WRITE.test(method)), []);
      await Deno.stat(place.linkOf(volname));
    });

    test("this node's idle clone for reading a snapshot goes with the volume", async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "vzdump" });
      await place.must("activate_volume", { volname, snapshot: "vzdump" });
      assertEquals((await place.objects()).zvols?.length, 2);
      assertEquals((await free(place, volname)).error, undefined);
      await nothingLeft(place);
    });

    test("another node's clone for reading refuses it and names the node", async (place) => {
      const volname = await place.alloc();
      await place.must("volume_snapshot", { volname, snapshot: "vzdump" });
      await place.must("activate_volume", { volname, snapshot: "vzdump" }, { node: "pve2" });
      const { error } = await free(place, volname);
      assertEquals(error?.code, "has-dependents");
      assertStringIncludes(error?.message ?? "", "pve2");
      assertEquals((await place.objects()).zvols?.length, 2);
      assert((await place.must("list_images")).length === 1);
    }, ["pve1", "pve2"]);

    test("a protected volume is not freed, in neither step", async (place) => {
      const volname = await place.alloc();
      const protect = (value: number) =>
        place.must("update_volume_attribute", { volname, attribute: "protected", value });
      const { token } = await place.must("free_image", { volname, isBase: 0 });
      await protect(1);
      place.calls.length = 0;
      assertEquals((await free(place, volname)).error?.code, "denied");
      assertEquals((await place.ask("free_image_finish", { token })).error?.code, "denied");
      assertEquals(place.calls.filter((method) => WRITE.test(method)), []);
      await protect(0);
      assertEquals((await free(place, volname)).error, undefined);
    });

    test("no token frees the weight", async (place) => {
      if (transport !== "iscsi") return;
      const path = String((await place.objects({ weight: true })).zvols?.[0]?.name);
      const weight = await place.array((nas) => nas.zvols.read(path));
      const token = JSON.stringify({
        v: 1,
        storage: "san",
        zvol: path.slice(place.simulator.ready.dataset.length + 1),
        made: { guid: weight?.guid ?? null, createdMs: weight?.createdMs },
        rows: [],
      });
      const reply = await place.ask("free_image_finish", { token: btoa(token) });
      assertEquals(reply.error?.code, "not-ours");
      assertEquals((await place.objects({ weight: true })).extents?.length, 1);
    });
  }
}

/** All nodes of a real cluster see one /etc/pve. */
async function sharePmxcfs(place: Place, from: string, to: string): Promise<void> {
  const folder = "etc/pve/priv/tnblock/freeing/san";
  const target = `${place.node(to).directory}/${folder}`;
  await Deno.mkdir(target, { recursive: true });
  for await (const entry of Deno.readDir(`${place.node(from).directory}/${folder}`)) {
    await Deno.copyFile(
      `${place.node(from).directory}/${folder}/${entry.name}`,
      `${target}/${entry.name}`,
    );
  }
}
