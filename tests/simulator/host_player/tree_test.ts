import { assertEquals } from "@std/assert";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CONTROL_FILE, relativeLink, Tree } from "../../../src/simulator/host_player/tree.ts";

function withTree(use: (tree: Tree) => void): void {
  const root = mkdtempSync(join(tmpdir(), "tnblock-tree-"));
  try {
    use(new Tree(root));
  } finally {
    rmSync(root, { recursive: true, force: true });
  }
}

const CTL = "/sys/devices/virtual/nvme-fabrics/ctl";

for (
  const [path, target, text] of [
    ["/sys/class/nvme/nvme0", `${CTL}/nvme0`, "../../devices/virtual/nvme-fabrics/ctl/nvme0"],
    // sysfs climbs to where the target's own name is still to be given.
    [`${CTL}/nvme0/nvme0c0n1/device`, `${CTL}/nvme0`, "../../nvme0"],
    ["/sys/x/generic", "/sys/x/scsi_generic/sg0", "scsi_generic/sg0"],
    ["/dev/disk/by-id/nvme-uuid.1", "/dev/nvme0n1", "../../nvme0n1"],
  ] as const
) {
  Deno.test(`the link from ${path} to ${target} is ${text}`, () => {
    assertEquals(relativeLink(path, target), text);
  });
}

Deno.test("what a program writes into one control file shows in no other file", () =>
  withTree((tree) => {
    tree.plant("/sys/a", { scan: CONTROL_FILE, rescan: CONTROL_FILE, uevent: "" });
    writeFileSync(tree.at("/sys/a/scan"), "1");
    const sizes = ["scan", "rescan", "uevent"].map((name) =>
      statSync(tree.at(`/sys/a/${name}`)).size
    );
    assertEquals(sizes, [1, 0, 0]);
  }));

Deno.test("replacing one attribute leaves those of the same value alone", () =>
  withTree((tree) => {
    tree.plant("/sys/a", { size: "8", nuse: "8" });
    tree.attribute("/sys/a/size", "16");
    assertEquals(readFileSync(tree.at("/sys/a/nuse"), "utf8"), "8\n");
  }));

Deno.test("repeating a link or a node leaves nothing behind", () =>
  withTree((tree) => {
    tree.plant("/dev", {});
    tree.text("/content", "");
    tree.link("/dev/link", "/dev/node");
    tree.hardLink("/dev/node", tree.at("/content"));
    const staged = () => readdirSync(tree.at("/.array/staging"));
    const before = staged();
    tree.link("/dev/link", "/dev/node");
    tree.hardLink("/dev/node", tree.at("/content"));
    assertEquals(staged(), before);
  }));
