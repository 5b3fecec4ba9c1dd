#!/bin/bash
# The rest of PID 1 in the test VM, started by /sbin/vm-boot: udev, the network, the array's network
# namespace or the way to that of another machine, and the agent that obeys the test runner. No
# systemd unless it is asked for: this is ready in half the time.
here=/checkout/scripts/vm/guest
exec </dev/console >/dev/console 2>&1

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mkdir -p /run/lock /run/udev
ip link set lo up

# As systemd sets them on a Proxmox VE node.
sysctl -q -w fs.protected_symlinks=1 fs.protected_hardlinks=1 fs.protected_regular=2 fs.protected_fifos=1

/usr/lib/systemd/systemd-udevd --daemon
udevadm trigger --type=subsystems --action=add
udevadm trigger --type=devices --action=add
modprobe -a virtio_net configfs
mountpoint -q /sys/kernel/config || mount -t configfs configfs /sys/kernel/config
udevadm settle -t 60
ip link set eth0 up
# No default route: what looks for a portal that is away must not ask the machine outside for it.
ip addr add 10.0.2.15/24 dev eth0

if grep -qw vm.node=2 /proc/cmdline; then . "$here/prepare_second_node.sh"; else . "$here/prepare_array.sh"; fi
modprobe -a nvme-tcp iscsi_tcp dm-multipath
echo "InitiatorName=iqn.1993-08.org.debian:01:$(hostname)" >/etc/iscsi/initiatorname.iscsi
socat TCP-LISTEN:7000,reuseaddr,fork EXEC:"/bin/bash $here/agent.sh" &
echo "vm: ready at $(cut -d' ' -f1 /proc/uptime) s"
! grep -qw vm.systemd /proc/cmdline || . "$here/become_systemd.sh"
# PID 1 must stay, and reap what it inherits.
while :; do wait -n || sleep 1; done
