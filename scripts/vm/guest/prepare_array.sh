#!/bin/bash
# Sourced once by init.sh: where the array lives. Its volumes are files on a reflink XFS at /data
# (clone and snapshot are `cp --reflink`), its portals are in the network namespace "tgt", reached
# over two paths: p0 (10.99.0.2) to 10.99.0.1 and p1 (10.99.1.2) to 10.99.1.1.
disk=/dev/vdb
mkfs.xfs -q -f -m reflink=1 "$disk"
mount -o discard "$disk" /data

ip netns add tgt
ip -n tgt link set lo up
for path in 0 1; do
  ip link add "p$path" type veth peer name "t$path" netns tgt
  ip addr add "10.99.$path.2/24" dev "p$path"
  ip link set "p$path" up
  ip -n tgt addr add "10.99.$path.1/24" dev "t$path"
  ip -n tgt link set "t$path" up
done
modprobe -a nvmet-tcp nvme-tcp loop iscsi_target_mod target_core_file iscsi_tcp dm-multipath
echo "InitiatorName=iqn.1993-08.org.debian:01:vm" >/etc/iscsi/initiatorname.iscsi
