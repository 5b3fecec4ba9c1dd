/** The whole way: Perl under -T, the shim, the compiled binary, a simulated array and node. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BINARY } from "../binary/program.ts";
import { Place, TRANSPORTS } from "../support/place.ts";

const HERE = new URL(".", import.meta.url).pathname;

/** One call of the plugin in a Perl process of its own. */
async function perl(
  place: Place,
  method: string,
  args: Record<string, unknown>,
): Promise<{ ok: boolean; result?: unknown; error?: string }> {
  const wrapper = `${place.directory}/tnblock`;
  // The shim hands no environment on; the root comes in by this stand-in for the installed program.
  await Deno.writeTextFile(
    wrapper,
    `#!/bin/sh\nTNBLOCK_ROOT='${place.directory}' TNBLOCK_LOGIN_BUDGET=0 exec '${BINARY}' "$@"\n`,
  );
  await Deno.chmod(wrapper, 0o755);
  const { stdout, stderr } = await new Deno.Command("/usr/bin/perl", {
    args: [
      "-T",
      "-I",
      `${HERE}lib`,
      `${HERE}drive.pl`,
      method,
      "san",
      JSON.stringify(place.config()),
      JSON.stringify(args),
      wrapper,
    ],
    clearEnv: true,
    env: { PATH: "/usr/bin:/bin" },
    stdin: "null",
  }).output();
  const text = new TextDecoder().decode(stdout);
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${method}: ${text}${new TextDecoder().decode(stderr)}`);
  }
}

for (const transport of TRANSPORTS) {
  Deno.test(`${transport}: a disk's life through the Perl shim under -T and the compiled binary`, async () => {
    await using place = await Place.start(transport);
    const must = async (method: string, args: Record<string, unknown> = {}) => {
      const reply = await perl(place, method, args);
      assertEquals([method, reply.error], [method, undefined]);
      return reply.result;
    };
    await must("activate_storage");
    const volname = String(await must("alloc_image", { vmid: 100, format: "raw", sizeKiB: 65536 }));
    assertMatch(volname, /^vol-vm-100-disk-0-/);
    await must("activate_volume", { volname });
    await Deno.stat(place.linkOf(volname));
    assertStringIncludes(
      JSON.stringify(await must("path", { volname })),
      "/dev/tnblock/san/vm-100-disk-0",
    );
    assertStringIncludes(JSON.stringify(await must("list_images", {})), volname);
    assertStringIncludes(
      JSON.stringify(await must("volume_size_info", { volname })),
      String(65536 * 1024),
    );
    await must("deactivate_volume", { volname });
    await must("free_image", { volname, isBase: 0 });
    assertEquals((await place.objects()).zvols, []);
  });

  Deno.test(`${transport}: an error of the array reaches PVE as one line`, async () => {
    await using place = await Place.start(transport);
    const reply = await perl(place, "alloc_image", { vmid: 100, format: "raw", sizeKiB: 2 ** 40 });
    assertEquals(reply.ok, false);
    assertMatch(reply.error ?? "", /^Cannot make a volume of [^\n]*\n?$/);
  });
}
