/** A volume's whole life on the new storage, as Proxmox VE would lead it: made, attached, written, read, freed. */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import { answer, type HookWorld } from "../pve/hook.ts";
import { parseVolumeName } from "../pve/volume_name.ts";
import type { SetupWorld } from "./world.ts";

/** Milliseconds for each step. */
const STEP_MS = 120_000;

/** A guest's number that nobody has: the highest that Proxmox VE gives out. */
const NOBODY = 999_999_999;

const SIZE_KIB = 64 * 1024;
/** Pieces of 512 KiB that are written, at the beginning, in the middle and at the end of the disk. */
const PIECE = 512 * 1024;
const PLACES = [0, 1, 63, 64, 126, 127];

/** What asks the storage's methods. */
export interface TestedStorage {
  readonly id: string;
  /** The section, as storage.cfg has it. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly sessions: NonNullable<HookWorld["sessions"]>;
}

/** @throws TnblockError that says which step failed; the volume is gone then, or the message names it. */
export async function tryVolume(world: SetupWorld, storage: TestedStorage): Promise<void> {
  const { tell } = world;
  const ask = (method: string, args: Readonly<Record<string, unknown>>) =>
    request(world, storage, method, args);
  const volname = String(
    await ask("alloc_image", { vmid: NOBODY, format: "raw", name: null, sizeKiB: SIZE_KIB }),
  );
  tell(`  made ${volname}`);
  try {
    await ask("activate_volume", { volname });
    const path = `/dev/tnblock/${storage.id}/${zvolOf(volname)}`;
    tell(`  attached as ${path}`);
    await writeAndRead(world, path);
    tell(`  written and read back: ${PLACES.length * PIECE / 1024} KiB`);
  } catch (error) {
    await ask("deactivate_volume", { volname }).catch(() => {});
    await ask("free_image", { volname, isBase: 0, finish: true }).catch((left: unknown) => {
      const why = left instanceof Error ? left.message : String(left);
      throw new TnblockError("host-fault", `Cannot free the test volume ${volname}: ${why}`, {
        cause: error,
      });
    });
    throw error;
  }
  await ask("deactivate_volume", { volname });
  await ask("free_image", { volname, isBase: 0, finish: true });
  tell("  freed");
}

function zvolOf(volname: string): string {
  return parseVolumeName(volname).zvol;
}

async function request(
  { host, log, limitLogins }: SetupWorld,
  { id, config, sessions }: TestedStorage,
  method: string,
  args: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  const line = JSON.stringify({
    ...{ protocol: 1, id: "setup", method, storage: id, config, args },
    ...{ deadlineMs: STEP_MS, node: host.nodeName },
  });
  const { reply, delivered, settled } = answer(line, {
    ...{ host, log, limitLogins, sessions },
    setDebugLevel: () => {},
  });
  const { text, ok } = await reply;
  await delivered();
  await settled;
  const { result, error } = JSON.parse(text);
  if (ok) return result;
  throw new TnblockError(error.code, `Cannot ${DOING[method] ?? method}: ${error.message}`, {
    ...(error.hint === undefined ? {} : { hint: error.hint }),
  });
}

const DOING: Readonly<Record<string, string>> = {
  alloc_image: "make the test volume",
  activate_volume: "attach the test volume",
  deactivate_volume: "detach the test volume",
  free_image: "free the test volume",
};

/** Past the page cache both ways: what comes back has been on the array. */
async function writeAndRead({ host }: SetupWorld, path: string): Promise<void> {
  const dd = async (doing: string, args: readonly string[], input = "") => {
    const { status, stdout, stderr } = await attempt(
      doing,
      () =>
        host.run("/usr/bin/dd", ["bs=512K", "count=1", "status=none", ...args], {
          deadlineMs: STEP_MS,
          input,
        }),
    );
    if (status === 0) return stdout;
    throw new TnblockError("host-fault", `${doing}: ${stderr.trim().split("\n").at(-1)}`);
  };
  const contents = PLACES.map((place) => {
    const word = `tnblock ${place} ${host.randomUuid()}\n`;
    return word.repeat(Math.ceil(PIECE / word.length)).slice(0, PIECE);
  });
  for (const [index, place] of PLACES.entries()) {
    await dd(
      "Cannot write the test volume",
      [
        `of=${path}`,
        `seek=${place}`,
        "iflag=fullblock",
        "oflag=direct",
        "conv=nocreat,notrunc,fsync",
      ],
      contents[index],
    );
  }
  for (const [index, place] of PLACES.entries()) {
    const found = await dd("Cannot read the test volume", [
      `if=${path}`,
      `skip=${place}`,
      "iflag=direct",
    ]);
    if (found === contents[index]) continue;
    throw new TnblockError(
      "array-fault",
      "Cannot trust the test volume: it reads back something else than was written",
      { hint: "Use nothing of it before the reason is known: tnblock doctor" },
    );
  }
}
