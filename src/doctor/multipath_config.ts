/** What in multipathd's configuration stands against disks of TrueNAS: a pure reading of `multipathd show config`. */

/** A section of the configuration with its values and sections. */
interface Section {
  readonly name: string;
  readonly values: readonly (readonly [key: string, value: string])[];
  readonly sections: readonly Section[];
}

/** What TrueNAS says of its iSCSI disks (SCST's vendor, and the product that extents have unless changed). */
const VENDOR = "TrueNAS";
const PRODUCT = "iSCSI Disk";

/** What stands against them, in words; empty when nothing does. */
export function multipathFaults(text: string): string[] {
  const root = parseConfig(text);
  const faults: string[] = [];
  const isIn = (name: string) => named(root, name).some(isListed);
  if (isIn("blacklist") && !isIn("blacklist_exceptions")) {
    faults.push("multipathd leaves the disks of TrueNAS alone: its blacklist names them");
  }
  const retry = setting(root, "no_path_retry");
  if (retry !== undefined && retry !== "queue") {
    faults.push(
      `multipathd lets disks of TrueNAS fail when no path is there (no_path_retry ${retry}): guests would see errors ` +
        `instead of waiting`,
    );
  }
  return faults;
}

/** Whether a blacklist, or its exceptions, names the disks: by vendor and product, or all wwids of TrueNAS. */
function isListed(section: Section): boolean {
  const byWwid = section.values.some(([key, value]) =>
    key === "wwid" && matches(value, "36589cfc000000000000000000000000")
  );
  return byWwid || named(section, "device").some((device) => {
    const vendor = valueOf(device, "vendor");
    return vendor !== undefined && matches(vendor, VENDOR) &&
      matches(valueOf(device, "product") ?? ".*", PRODUCT);
  });
}

/** What is in force for the disks: overrides, then the last device section that fits, then the defaults. */
function setting(root: Section, key: string): string | undefined {
  const devices = named(root, "devices").flatMap((section) => named(section, "device"));
  const fitting = devices.filter((device) =>
    matches(valueOf(device, "vendor") ?? "$^", VENDOR) &&
    matches(valueOf(device, "product") ?? ".*", PRODUCT)
  );
  const order = [
    ...named(root, "overrides"),
    ...fitting.reverse(),
    ...named(root, "defaults"),
  ];
  return order.map((section) => valueOf(section, key)).find((value) => value !== undefined);
}

function named(section: Section, name: string): Section[] {
  return section.sections.filter((one) => one.name === name);
}

function valueOf(section: Section, key: string): string | undefined {
  return section.values.findLast(([name]) => name === key)?.[1];
}

/** Its patterns are POSIX's extended ones; `!` before one turns it round. */
function matches(pattern: string, text: string): boolean {
  const isNot = pattern.startsWith("!");
  try {
    return new RegExp(isNot ? pattern.slice(1) : pattern).test(text) !== isNot;
  } catch {
    return false;
  }
}

/**
 * Reads the text:
 *
 * ```text
 * defaults {
 * 	find_multipaths "no"
 * }
 * devices {
 * 	device {
 * 		vendor "TrueNAS"
 * 	}
 * }
 * ```
 */
function parseConfig(text: string): Section {
  interface Open {
    readonly name: string;
    readonly values: (readonly [string, string])[];
    readonly sections: Section[];
  }
  const root: Open = { name: "", values: [], sections: [] };
  const stack: Open[] = [root];
  for (const line of text.split("\n").map((one) => one.replace(/^\s*[#!].*$/, "").trim())) {
    const current = stack.at(-1) ?? root;
    const opens = /^([a-z_]+)\s*\{$/.exec(line)?.[1];
    if (opens !== undefined) {
      const section: Open = { name: opens, values: [], sections: [] };
      current.sections.push(section);
      stack.push(section);
    } else if (line === "}") {
      if (stack.length > 1) stack.pop();
    } else {
      const [, key, value] = /^([a-z_]+)\s+(.+)$/.exec(line) ?? [];
      if (key !== undefined && value !== undefined) {
        current.values.push([key, value.replace(/^"(.*)"$/, "$1")]);
      }
    }
  }
  return root;
}
