/**
 * What multipathd is told about disks of TrueNAS, as a file beside the administrator's own: settings of the
 * device, which no other disk is touched by, and one default where nobody has chosen.
 */

const DEVICE = `    vendor "TrueNAS"
    product "iSCSI Disk"`;

/**
 * The text of our file.
 *
 * @param others what stands in multipath.conf and in the other files of its folder.
 */
export function multipathSettings(others: readonly string[]): string {
  const isChosen = others.some((text) => /^\s*find_multipaths\s/m.test(text));
  // A directive a line, and no brace beside one: multipathd's parser wants it so.
  return `# Made by tnblock install; what is changed here by hand is left alone.
${
    isChosen
      ? ""
      : `# The default, "strict", takes no disk before it is told to, which delays a guest's start by 1.5 s for each new
# disk. With "yes" a disk with two paths is taken by itself; one with a single path still is not.
defaults {
    find_multipaths yes
}

`
  }devices {
  device {
${DEVICE}
    # All paths of one controller at once, and back to the better ones as soon as they return.
    path_grouping_policy group_by_prio
    failback immediate
    # A guest rather waits for its array than gets errors.
    no_path_retry queue
  }
}

# Where other disks are kept from multipathd by a wide blacklist, these still are not.
blacklist_exceptions {
  wwid "^36589cfc"
  device {
${DEVICE}
  }
}
`;
}
