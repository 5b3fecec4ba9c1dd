/**
 * The systemd units of the daemon. The socket is a unit of its own: it stays while the service is replaced by
 * that of a newer version, and keeps what comes meanwhile.
 *
 * The daemon works in the node's own mount namespace: it makes the mounts behind `/dev/tnblock`, sees every
 * disk, and who has one open. So nothing stands here that gives a service a namespace of its own
 * (`PrivateTmp=`, `PrivateDevices=`, `ProtectSystem=`, `ProtectProc=`, `ProtectKernelLogs=` and the like), nor
 * what closes devices (`ProtectClock=`, `DevicePolicy=`).
 */
import { DAEMON_SOCKET } from "./serve.ts";

/** Where the installed program is; the shim (`src/pve/shim/TnblockPlugin.pm`) runs it from there too. */
export const PROGRAM = "/usr/local/bin/tnblock";

/** What uses storages, and is started after us and stopped before us. */
const USERS = [
  "pve-guests.service",
  "pvedaemon.service",
  "pvestatd.service",
  "pvescheduler.service",
  "pve-ha-lrm.service",
].join(" ");

const SOCKET = `# Made by tnblock
[Unit]
Description=Requests to the tnblock daemon
Before=${USERS}

[Socket]
ListenStream=${DAEMON_SOCKET}
SocketMode=0600
DirectoryMode=0755
Backlog=1024
# Without it the shim does what it can by itself, at once.
RemoveOnStop=yes
# However often the daemon ends: it is started again.
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
`;

const SERVICE = `# Made by tnblock
[Unit]
Description=Block storage on TrueNAS for Proxmox VE
Requires=tnblock.socket
Wants=network-online.target pve-cluster.service
After=tnblock.socket network-online.target pve-cluster.service iscsid.service multipathd.service
Before=${USERS}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=all
ExecStart=${PROGRAM} daemon
UnsetEnvironment=BUN_OPTIONS BUN_BE_BUN BUN_INSPECT NODE_OPTIONS TNBLOCK_ROOT
Restart=always
RestartSec=1
TimeoutStartSec=60
# What is under way comes to its end: a reload of the array takes 120 s at most.
TimeoutStopSec=180
# A program that works for a request is not told to end with us.
KillMode=mixed
WatchdogSec=60
WatchdogSignal=SIGKILL
OOMScoreAdjust=-900
OOMPolicy=continue
MemoryHigh=512M
MemoryMax=1G
# It serves the disks that a page might be read from.
MemorySwapMax=0
TasksMax=512
LimitNOFILE=16384
LimitCORE=0
UMask=0022
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=~CAP_AUDIT_CONTROL CAP_AUDIT_READ CAP_AUDIT_WRITE CAP_BLOCK_SUSPEND CAP_BPF CAP_LINUX_IMMUTABLE CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_SYS_BOOT CAP_SYS_PACCT CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_WAKE_ALARM

[Install]
WantedBy=multi-user.target
Also=tnblock.socket
`;

/** The units' texts by their names. */
export const UNITS: Readonly<Record<string, string>> = {
  "tnblock.socket": SOCKET,
  "tnblock.service": SERVICE,
};
