# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Volume names, paths and promises: pure functions, which never run the binary.
use strict;
use warnings;

use Test::More;
use TnbTest;

$PVE::Storage::Custom::TnblockPlugin::BINARY = '/nonexistent';
my $UUID = '3f0e9c1a-5b7d-4e2f-8a6b-0c1d2e3f4a5b';

my @GOOD = (
    ['vol-vm-100-disk-0-lun5', 'vm-100-disk-0', 100, undef, undef, 0],
    ['vol-vm-100-disk-0-lun0', 'vm-100-disk-0', 100, undef, undef, 0],
    ['vol-vm-100-lun7-lun12', 'vm-100-lun7', 100, undef, undef, 0],
    ["vol-vm-100-disk-0-ns$UUID", 'vm-100-disk-0', 100, undef, undef, 0],
    ['vol-base-101-disk-1-lun3', 'base-101-disk-1', 101, undef, undef, 1],
    ['vol-base-101-disk-1-lun3/vol-vm-102-disk-0-lun4', 'vm-102-disk-0', 102, 'base-101-disk-1', 101, 0],
    ["vol-base-101-disk-1-ns$UUID/vol-base-103-disk-0-ns$UUID", 'base-103-disk-0', 103, 'base-101-disk-1', 101, 1],
    ['vol-vm-9-state-a.b:c_d-lun1', 'vm-9-state-a.b:c_d', 9, undef, undef, 0],
    ['vol-vm-9-disk-0-lun16382', 'vm-9-disk-0', 9, undef, undef, 0],
    ['vol-base-1-disk-0-lun1/vm-2-cloudinit', 'vm-2-cloudinit', 2, 'base-1-disk-0', 1, 0],
    ['vm-100-cloudinit', 'vm-100-cloudinit', 100, undef, undef, 0],
    ['vm-100-disk-0', 'vm-100-disk-0', 100, undef, undef, 0],
    ['base-100-disk-12.raw', 'base-100-disk-12', 100, undef, undef, 1],
    ['vm-100-state-suspend-2026-01-02', 'vm-100-state-suspend-2026-01-02', 100, undef, undef, 0],
    ['vm-100-state-before.raw', 'vm-100-state-before', 100, undef, undef, 0],
);
for my $case (@GOOD) {
    my ($volname, @parts) = @$case;
    subtest "parse_volname() takes $volname apart" => sub {
        my @found = $SHIM->parse_volname($volname . substr($ENV{PATH} // '', 0, 0));
        is_deeply(\@found, ['images', @parts, 'raw'], 'seven elements');
        ok(is_clean(\@found), 'a tainted name comes back clean');
    };
}

for my $volname (
    '', 'vol-', 'vm-100-disk-0-lun5', 'vol-vm-100-disk-0', 'vol-vm-100-disk-0-lun', 'vol-vm-1-lun05',
    'vol-../x-lun1', 'vol-vm-1-../x-lun1', 'vol-vm-1-..-lun1', 'vol-vm-1--x-lun1', 'vol-vm-0-a-lun1', 'vol-vm-1-a b-lun1', "vol-vm-1-a-lun1\n", 'vol-vm-1-a-lun123456',
    "vol-vm-1-a-ns\U$UUID", 'vol-vm-1-a-ns1234', 'vol-vm-1-disk-0-lun1/vol-vm-2-disk-0-lun2',
    'vol-archive-lun1', 'vol-vm-9-disk-0-lun16383', 'vm-2-cloudinit/vm-2-cloudinit', 'vm-100-cloudinit.raw', 'vm-100-state-', 'base-100-state-x', 'base-100-cloudinit',
    'vm-100-disk-0.qcow2', 'vol-vm-1-a-lun1/vol-vm-2-b-lun1/vol-vm-3-c-lun1', "vol-vm-1-\x{e4}-lun1", 'vm-x-disk-0',
) {
    my $shown = $volname =~ s/\n/\\n/r =~ s/[^\x20-\x7e]/?/gr;
    subtest "parse_volname() refuses \"$shown\"" => sub {
        like(error_of('parse', sub { $SHIM->parse_volname($volname) }), qr/Cannot parse volume name/);
    };
}

subtest 'parse_volname() refuses no name at all' => sub {
    like(error_of('parse', sub { $SHIM->parse_volname(undef) }), qr/Cannot parse volume name ""/);
};

subtest 'path() is a pure function of storage, zvol and snapshot' => sub {
    is_deeply(
        [$SHIM->path(scfg(), 'vol-vm-100-disk-0-lun5', 'san')],
        ['/dev/tnblock/san/vm-100-disk-0', 100, 'images'], 'in list context',
    );
    my $path = $SHIM->path(scfg(), "vol-vm-100-disk-0-ns$UUID", 'san', 'before.update');
    is($path, '/dev/tnblock/san/vm-100-disk-0@before.update', 'a snapshot, in scalar context');
    $path = $SHIM->path(scfg(), 'vol-base-1-disk-0-lun1/vol-vm-2-disk-0-lun2', 'san');
    is($path, '/dev/tnblock/san/vm-2-disk-0', 'a linked clone');
    $path = $SHIM->path(scfg(), 'vm-2-cloudinit', 'san');
    is($path, '/dev/tnblock/san/vm-2-cloudinit', 'cloud-init');
};

subtest 'path() is clean, and nothing in it leads elsewhere' => sub {
    my $taint = substr($ENV{PATH} // '', 0, 0);
    ok(is_clean([$SHIM->path(scfg(), "vol-vm-1-disk-0-lun1$taint", "san$taint", "s$taint")]), 'clean');
    like(error_of('storage', sub { $SHIM->path(scfg(), 'vol-vm-1-a-lun1', '../x') }), qr/no storage name/);
    like(error_of('snapshot', sub { $SHIM->path(scfg(), 'vol-vm-1-a-lun1', 'san', '../x') }), qr/no snapshot name/);
};

subtest 'path() refuses the name of an import stream, which says nothing of the export' => sub {
    like(error_of('path', sub { $SHIM->path(scfg(), 'vm-100-disk-0', 'san') }), qr/does not say how/);
};

subtest 'filesystem_path() finds the storage by its section' => sub {
    my $scfg = scfg();
    local $PVE::Storage::CONFIG = { ids => { other => scfg('tnb-dataset' => 'tank/b'), san => $scfg, bad => undef } };
    is($SHIM->filesystem_path($scfg, 'vol-vm-1-disk-0-lun1') . '', '/dev/tnblock/san/vm-1-disk-0', 'the very hash');
    is($SHIM->filesystem_path({%$scfg}, 'vol-vm-1-disk-0-lun1', 's'), '/dev/tnblock/san/vm-1-disk-0@s', 'a copy of it');
};

subtest 'filesystem_path() fails rather than guess' => sub {
    local $PVE::Storage::CONFIG = { ids => { a => scfg(), b => scfg() } };
    like(error_of('two alike', sub { $SHIM->filesystem_path(scfg(), 'vol-vm-1-a-lun1') }), qr/of which storage/);
    local $PVE::Storage::CONFIG = undef;
    like(error_of('no configuration', sub { $SHIM->filesystem_path(scfg(), 'vol-vm-1-a-lun1') }), qr/of which storage/);
};

subtest 'a path that is no block device is refused, and never made' => sub {
    my @calls = (
        sub { $SHIM->map_volume('san', scfg(), 'vol-vm-1-disk-0-lun1', undef, {}) },
        sub { $SHIM->qemu_blockdev_options(scfg(), 'san', 'vol-vm-1-disk-0-lun1', '9.2', {}) },
        sub { $SHIM->qemu_blockdev_options(scfg(), 'san', 'vol-vm-1-disk-0-lun1', '9.2', { 'snapshot-name' => 's' }) },
    );
    like(error_of('call', $_), qr/is not a block device/) for @calls;
    ok(!-e '/dev/tnblock/san/vm-1-disk-0', 'nothing is there');

    # A regular file is no block device either.
    my $plain = write_file('plain', 'data');
    no warnings 'redefine';
    local *PVE::Storage::Custom::TnblockPlugin::path = sub { return $plain };
    like(error_of('plain file', $_), qr/is not a block device/) for @calls;
};

subtest 'a block device is handed on' => sub {
    my ($device) = grep { -b } glob('/dev/loop* /dev/vd? /dev/sd? /dev/nvme?n? /dev/ram?');
    plan(skip_all => 'this machine shows no block device') if !$device;
    no warnings 'redefine';
    local *PVE::Storage::Custom::TnblockPlugin::path = sub { return $device };
    is($SHIM->map_volume('san', scfg(), 'vol-vm-1-disk-0-lun1'), $device, 'map_volume');
    is_deeply(
        $SHIM->qemu_blockdev_options(scfg(), 'san', 'vol-vm-1-disk-0-lun1', '9.2', {}),
        { driver => 'host_device', filename => $device }, 'qemu_blockdev_options',
    );
};

subtest 'formats, methods and constants' => sub {
    is_deeply($SHIM->get_formats(scfg(), 'san'), { default => 'raw', valid => { raw => 1 } }, 'get_formats');
    is_deeply([$SHIM->default_format(scfg())], ['raw', ['raw']], 'default_format, list');
    is(scalar($SHIM->default_format(scfg())), 'raw', 'default_format, scalar');
    is($SHIM->volume_qemu_snapshot_method('san', scfg(), 'vol-vm-1-a-lun1'), 'storage', 'snapshot method');
    is(PVE::Storage::Custom::TnblockPlugin::volume_snapshot_needs_fsfreeze(), 1, 'fsfreeze, without a class');
    is($SHIM->storage_can_replicate(scfg(), 'san', 'raw'), 0, 'replication');
    like(error_of('rename', sub { $SHIM->rename_snapshot(scfg(), 'san', 'vol-vm-1-a-lun1', 'a', 'b') }), qr/does not support/);
};

subtest 'attributes that PVE has and the binary does not keep' => sub {
    is($SHIM->get_volume_attribute(scfg(), 'san', 'vol-vm-1-a-lun1', 'comment'), undef, 'read');
    my $set = sub { $SHIM->update_volume_attribute(scfg(), 'san', 'vol-vm-1-a-lun1', 'comment', 1) };
    like(error_of('set', $set), qr/does not keep it/);
};

subtest 'get_identity() says the same of the same place' => sub {
    my $identity = $SHIM->get_identity(scfg('tnb-api-host' => 'NAS-B, nas-a'), 'san');
    is($identity, $SHIM->get_identity(scfg('tnb-api-host' => 'nas-a,nas-b'), 'other'), 'order and case');
    isnt($identity, $SHIM->get_identity(scfg('tnb-api-host' => 'nas-a,nas-b', 'tnb-dataset' => 'x'), 'san'), 'dataset');
    ok(length($SHIM->get_identity({ type => 'tnblock' }, 'san')), 'an empty section');
};

done_testing();
