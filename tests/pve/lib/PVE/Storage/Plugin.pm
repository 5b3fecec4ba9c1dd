# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE's base class, written from its contract. It knows the property names of the
# core, refuses what the real registry refuses, and records what the storage lock was asked for.
package PVE::Storage::Plugin;

use strict;
use warnings;

our @SHARED_STORAGE = qw(iscsi nfs cifs rbd cephfs iscsidirect zfs drbd pbs);

my @CORE = qw(
    authsupported base blocksize bwlimit comstar_hg comstar_tg content content-dirs create-base-path
    create-subdirs data-pool datastore disable domain encryption-key export fingerprint format fs-name
    fuse is_mountpoint iscsiprovider keyring krbd lio_tpg master-pubkey max-protected-backups mkdir
    monhost mountpoint namespace nocow nodes nowritecache options password path pool port portal
    preallocation prune-backups saferemove saferemove_throughput server share shared
    skip-cert-verification smbversion sparse storage subdir tagged_only target thinpool type username
    vgname zfs-base-path
);
my @ONLY_8 = qw(maxfiles server2 transport volume);
my @ONLY_9 = qw(saferemove-stepsize snapshot-as-volume-chain);

my $data = { propertyList => {} };

sub private { return $data }

# Registers one plugin with the property names that PVE of that storage API has; dies as PVE does.
sub register_for_api {
    my ($class, $version) = @_;
    my @names = (@CORE, $version < 12 ? @ONLY_8 : @ONLY_9);
    my $known = $data->{propertyList} = { map { $_ => { type => 'string' } } @names };
    my $own = $class->properties();
    for my $name (sort keys %$own) {
        die "duplicate property '$name'\n" if $known->{$name};
        $known->{$name} = $own->{$name};
    }
    my $options = $class->options();
    for my $name (sort keys %$options) {
        die "undefined property '$name'\n" if !$known->{$name};
    }
    return $options;
}

our @LOCKED;

sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $func, @param) = @_;
    push @LOCKED, [$storeid, $shared, $timeout];
    # PVE calls it for one value.
    my $result = $func->(@param);
    return $result;
}

1;
