# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# What the shim promises, and what it takes back where the array or the key cannot do it.
use strict;
use warnings;

use Test::More;
use TnbTest;

$PVE::Storage::Custom::TnblockPlugin::BINARY = '/nonexistent';
my ($DISK, $BASE) = ('vol-vm-1-disk-0-lun1', 'vol-base-1-disk-0-lun1');
my %ABOUT = (current => [$DISK], base => [$BASE], snap => [$DISK, 's'], 'snap of a base' => [$BASE, 's']);

sub has {
    my ($feature, $about, $opts) = @_;
    my ($volname, $snapname) = @{ $ABOUT{$about} };
    return $SHIM->volume_has_feature(scfg(), $feature, 'san', $volname, $snapname, 0, $opts);
}

sub promised {
    return [grep { has(split(/-/, $_)) } map { my $f = $_; map { "$f-$_" } qw(base current snap) }
            qw(clone copy nonsense rename replicate snapshot sparseinit template)];
}

my @ALL = qw(
    clone-base clone-snap copy-base copy-current copy-snap rename-current snapshot-current
    snapshot-snap sparseinit-base sparseinit-current template-current
);

for my $version (11, 13 .. 16) {
    subtest "on storage API $version all is promised that raw volumes can do" => sub {
        local $PVE::Storage::VERSION_OF_TEST = $version;
        is_deeply(promised(), \@ALL, 'without a note of the binary');
        is(has('copy', 'snap of a base'), 1, 'a snapshot of a base is a snapshot');
        is(has('snapshot', 'base'), undef, 'what is not promised is undef');
    };
}

subtest 'a target that cannot be raw is refused where PVE names the possible ones' => sub {
    for my $feature (qw(clone copy)) {
        is(has($feature, 'base', { valid_target_formats => ['raw', 'subvol'] }), 1, "$feature to raw");
        is(has($feature, 'base', { valid_target_formats => ['qcow2'] }), 0, "$feature to qcow2");
    }
    is(has('snapshot', 'current', { valid_target_formats => ['qcow2'] }), 1, 'it says nothing of others');
};

subtest 'what the binary noted as impossible is not promised' => sub {
    my @without = qw(clone-base clone-snap copy-snap rename-current template-current);
    write_file('san.features', $JSON->encode({ v => 1, checked => 1, without => \@without }) . "\n");
    my %gone = map { $_ => 1 } @without;
    is_deeply(promised(), [grep { !$gone{$_} } @ALL]);
    is($SHIM->volume_has_feature(scfg(), 'clone', 'other', $BASE), 1, 'another storage has notes of its own');
    unlink("$DIR/san.features");
};

for my $text ('', 'nonsense', '[]', '{}', '{"without":"clone-base"}', '{"without":[null,{},["clone-base"]]}', "\xff" x 100000) {
    subtest 'a note that is none takes nothing back: ' . substr($text, 0, 40) =~ s/[^\x20-\x7e]/?/gr => sub {
        write_file('san.features', $text);
        my @warnings = warnings_of(sub { is_deeply(promised(), \@ALL) });
        is_deeply(\@warnings, [], 'silently');
        unlink("$DIR/san.features");
    };
}

done_testing();
