#!/bin/bash
# Sourced once by init.sh: where the array lives. Its volumes are files on a reflink XFS at /data
# (clone and snapshot are `cp --reflink`), its portals are in the network namespace "tgt", reached
# over two paths: p0 (10.99.0.2) to 10.99.0.1 and p1 (10.99.1.2) to 10.99.1.1. A second machine comes
# by eth1 and eth2 from 10.99.0.3 and 10.99.1.3; its paths are lost and found apart from ours. It
# reaches the array's API at 10.98.0.2.
hostname vm
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
  # The portal has its address here, too: each way in is a wire of its own.
  wire=eth$((path + 1))
  ip link set "$wire" netns tgt
  ip -n tgt addr add "10.99.$path.1" peer "10.99.$path.3" dev "$wire"
  ip -n tgt link set "$wire" up
done
ip addr add 10.98.0.2/24 dev eth3
ip link set eth3 up
modprobe -a nvmet-tcp loop iscsi_target_mod target_core_file
