/** The udev rule that keeps single commands to NVMe disks of TrueNAS at a size that its targets take. */

/**
 * TrueNAS's target announces no largest transfer, and I/O of several MiB in one command was seen to fail there
 * (truenas-proxmox-plugin issues 32, 45, 96). The limit of the multipath head counts: I/O is split there.
 * The model is "TrueNAS" and the product's name, or on certified hardware the product's name alone
 * (middleware, `plugins/nvmet/subsys.py`); the name of the subsystem is TrueNAS's own unless it was chosen.
 */
export const NVME_RULE = `# Made by tnblock install; what is changed here by hand is left alone.
ACTION!="add|change", GOTO="tnblock_end"
SUBSYSTEM!="block", GOTO="tnblock_end"
KERNEL!="nvme*n*", GOTO="tnblock_end"
ENV{DEVTYPE}!="disk", GOTO="tnblock_end"
ATTRS{subsysnqn}=="nqn.2011-06.com.truenas:*", GOTO="tnblock_limit"
ATTRS{model}!="TrueNAS*|TRUENAS*", GOTO="tnblock_end"
LABEL="tnblock_limit"
ATTR{queue/max_sectors_kb}="1024"
LABEL="tnblock_end"
`;
