#!/bin/bash
# Sourced once by init.sh in the second machine: a node that has the array at the other end of its
# wires, over two paths and to its API.
hostname vm2
ip addr add 10.99.0.3/24 dev eth1
ip addr add 10.99.1.3/24 dev eth2
ip addr add 10.98.0.3/24 dev eth3
for wire in eth1 eth2 eth3; do ip link set "$wire" up; done
