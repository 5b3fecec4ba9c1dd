# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::Cluster: its lock is a folder below the node's root, as in pmxcfs; nobody waits for it long.
package PVE::Cluster;

use strict;
use warnings;

sub cfs_lock_file {
    my ($file, $timeout, $code) = @_;
    (my $id = "file-$file") =~ s/[.\/]/_/g;
    my ($root) = $ENV{TNBLOCK_TEST_ROOT} =~ /\A(.*)\z/s;
    my $lock = "$root/etc/pve/priv/lock";
    mkdir $lock;
    if (!mkdir "$lock/$id") {
        $@ = "cfs-lock '$id' error: got lock request timeout\n";
        return;
    }
    eval { $code->() };
    my $failure = $@;
    rmdir "$lock/$id";
    $@ = $failure;
    return;
}

1;
