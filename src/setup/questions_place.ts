/** Where the volumes will be, and how the nodes get there: dataset, transport, portals. */
import { TnblockError } from "../common/error.ts";
import { formatPortal, parsePortals, samePortal } from "../common/portal.ts";
import { nvmeMultipath } from "../host/scan/nvme.ts";
import type { SetupQuestion, Talk } from "./conversation.ts";
import { settled } from "./draft.ts";
import { datasetTaken, formerOwner } from "./free_targets.ts";
import { describePortal, NVME_PORT, possiblePortals, tryPortals } from "./portal_choice.ts";
import { checkRights } from "./rights.ts";

const MULTIPATHD = "/usr/sbin/multipathd";

/** ZFS's own rule; the length is that of tnb-dataset. */
const DATASET = /^[A-Za-z][A-Za-z0-9_.:-]*(\/(?!\.{1,2}(\/|$))[A-Za-z0-9_.:-]+)*$/;

const dataset: SetupQuestion = {
  id: "dataset",
  ask: async (talk, flag) => {
    const { asker, draft } = talk;
    const all = settled(draft, "array").filesystems;
    const free = all.filter((one) => datasetTaken(talk, one) === undefined);
    const taken = all.length - free.length;
    const chosen = await asker.choose({
      flag,
      message: "Dataset for the volumes, for this storage alone",
      choices: [
        { value: "", label: "A new one", hint: "made at the end" },
        ...free.filter(({ name }) => name.includes("/")).map((one) => ({
          value: one.name,
          label: one.name,
          hint: hintOf(one.available, formerOwner(talk, one)),
        })),
      ],
    });
    if (taken > 0 && chosen === "") asker.tell(`${taken} datasets are other storages' already.`);
    if (chosen !== "") return chosen;
    const pool = free.find(({ name }) => !name.includes("/"))?.name ?? "tank";
    return await asker.text({
      flag,
      message: "Name of the new dataset",
      initial: `${pool}/pve`,
      refuse: (name) =>
        DATASET.test(name) && name.includes("/") ? undefined : "Give POOL/NAME, e.g. tank/pve",
    });
  },
  settle: (talk, answer) => {
    const { draft } = talk;
    const { filesystems } = settled(draft, "array");
    const refuse = (code: "invalid" | "not-ours" | "not-found", why: string) =>
      new TnblockError(code, `Cannot use dataset "${answer}": ${why}`, { field: "--dataset" });
    if (answer.length > 140 || !DATASET.test(answer) || !answer.includes("/")) {
      throw refuse("invalid", "it is not a dataset below a pool, such as tank/pve");
    }
    const found = filesystems.find(({ name }) => name === answer);
    const reason = datasetTaken(talk, found ?? { name: answer, userProperties: {} });
    if (reason !== undefined) throw refuse("not-ours", reason);
    if (found === undefined) {
      const parent = answer.slice(0, answer.lastIndexOf("/"));
      if (!filesystems.some(({ name }) => name === parent)) {
        throw refuse("not-found", `there is no "${parent}" to make it in`);
      }
    }
    draft.dataset = { name: answer, isNew: found === undefined };
    return Promise.resolve();
  },
};

function hintOf(available: number, former: string | undefined): string {
  const gib = available / 1024 ** 3;
  const free = gib >= 1024 ? `${(gib / 1024).toFixed(1)} TiB free` : `${gib.toFixed(1)} GiB free`;
  return former === undefined ? free : `${free}, was storage "${former}"`;
}

const transport: SetupQuestion = {
  id: "transport",
  ask: async (talk, flag) => {
    const { asker, draft } = talk;
    const nvme = await whyNotNvme(talk);
    const iscsi = await whyNotIscsi(talk);
    const { release } = settled(draft, "array");
    const nvmeHint = nvme ??
      `TrueNAS ${release.text} and this node's kernel can; fewer layers, native paths`;
    const choices = [
      { value: "nvme-tcp", label: "NVMe/TCP", hint: nvmeHint },
      {
        value: "iscsi",
        label: "iSCSI",
        hint: iscsi ?? "works everywhere; several paths need multipath-tools",
      },
    ];
    return await asker.choose({
      flag,
      message: "Transport",
      choices,
      initial: nvme === undefined ? 0 : 1,
    });
  },
  settle: async (talk, answer) => {
    if (answer !== "iscsi" && answer !== "nvme-tcp") {
      throw new TnblockError("invalid", `Cannot use "${answer}": give iscsi or nvme-tcp`, {
        field: "--transport",
      });
    }
    const reason = await (answer === "iscsi" ? whyNotIscsi(talk) : whyNotNvme(talk));
    if (reason !== undefined) {
      throw new TnblockError("unsupported", `Cannot use ${answer}: ${reason}`, {
        field: "--transport",
      });
    }
    const { privileges, release } = settled(talk.draft, "array");
    checkRights(privileges, answer, release);
    talk.draft.transport = answer;
  },
};

async function whyNotNvme({ draft, world }: Talk): Promise<string | undefined> {
  const { release, nvme } = settled(draft, "array");
  if (!release.can.nvmet) return `TrueNAS ${release.text} has no NVMe-oF; 25.10 or newer has`;
  if (nvme === undefined) return "the key may not use it: it lacks SHARING_NVME_TARGET_WRITE";
  if (!nvme.isRunning) return "its service does not run: System > Services > NVMe-oF in TrueNAS";
  const { host } = world;
  const hasModule = await host.fabricsOptions() !== undefined ||
    await host.files.status("/usr/sbin/modprobe") !== undefined;
  if (!hasModule) return "this node has no kernel module nvme-tcp";
  if (await nvmeMultipath(host.files) === false) {
    return "native multipath is off on this node (nvme_core.multipath=N)";
  }
  return undefined;
}

async function whyNotIscsi({ draft, world }: Talk): Promise<string | undefined> {
  const { iscsi } = settled(draft, "array");
  if (iscsi === undefined) return "the key may not use it: it lacks the SHARING_ISCSI roles";
  if (!iscsi.isRunning) return "its service does not run: System > Services > iSCSI in TrueNAS";
  return await world.host.files.status("/usr/sbin/iscsiadm") === undefined
    ? "this node has no open-iscsi: apt install open-iscsi"
    : undefined;
}

const portals: SetupQuestion = {
  id: "portals",
  ask: async (talk, flag) => {
    const { asker, draft, world } = talk;
    const possible = possiblePortals(settled(draft, "array"), settled(draft, "transport"));
    const tried = await asker.working(
      "Trying the array's addresses from this node",
      () => tryPortals(world, possible),
    );
    const usable = tried.filter(({ failure }) => failure === undefined);
    const dead = tried.filter(({ failure }) => failure !== undefined);
    if (dead.length > 0) {
      asker.tell(dead.map(describePortal).join("\n"));
    }
    if (usable.length === 0) {
      return await asker.text({
        flag,
        message: "No address of TrueNAS answers here. Portals, ADDR[:PORT] with commas",
      });
    }
    const chosen = await asker.chooseSome({
      flag,
      message: "Portals: one for each network of its own",
      choices: usable.map((one) => ({
        value: formatPortal(one.portal),
        label: describePortal(one),
      })),
    });
    return chosen.join(",");
  },
  settle: async ({ draft, world }, answer) => {
    const kind = settled(draft, "transport");
    const possible = possiblePortals(settled(draft, "array"), kind);
    const port = kind === "iscsi" ? settled(draft, "array").iscsi?.port ?? 3260 : NVME_PORT;
    const wanted = parsePortals([answer], port, "--portals");
    if (wanted.length === 0) {
      throw new TnblockError("invalid", "Cannot go on without a portal", { field: "--portals" });
    }
    const known = wanted.map((portal) => {
      const found = possible.find((one) => samePortal(one.portal, portal));
      if (found !== undefined) return found;
      throw new TnblockError(
        "not-found",
        `Cannot use portal ${formatPortal(portal)}: TrueNAS has ${
          possible.map((one) => formatPortal(one.portal)).join(", ") || "none"
        }`,
        { field: "--portals" },
      );
    });
    const failed = (await tryPortals(world, known)).find(({ failure }) => failure !== undefined);
    if (failed !== undefined) {
      throw new TnblockError(
        "unreachable",
        `Cannot reach portal ${formatPortal(failed.portal)} from this node: ${failed.failure}`,
        { field: "--portals", hint: "See the network between this node and TrueNAS" },
      );
    }
    const { files } = world.host;
    if (kind === "iscsi" && wanted.length > 1 && !await files.status(MULTIPATHD)) {
      throw new TnblockError(
        "config",
        "Cannot use more than one iSCSI portal: this node has no multipathd",
        { field: "--portals", hint: "apt install multipath-tools, on every node; or take one" },
      );
    }
    draft.portals = wanted;
  },
};

export const PLACE_QUESTIONS: readonly SetupQuestion[] = [
  dataset,
  transport,
  portals,
];
