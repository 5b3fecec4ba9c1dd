# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Makes one call of the shim as PVE would make it, and prints what came of it as one line of JSON.
#
#   perl -T -I tests/pve/lib tests/pve/drive.pl METHOD STOREID SCFG ARGS [BINARY [ROOT]]
#
# SCFG is the storage's section and ARGS an object of arguments, named as in the hook protocol; each
# is JSON, or the name of a file that holds it. BINARY replaces /usr/local/bin/tnblock; below ROOT lie the
# node's disks and what the binary notes. Further arguments of some methods: timeout
# (volume_size_info), content (list_volumes), sensitive, update and delete (the on_* hooks), feature and
# opts (volume_has_feature), finish: false (free_image without its second half), file (volume_export
# and volume_import: the stream; - is STDOUT or STDIN).
# Prints {"ok":true,"result":...} and exits 0, or {"ok":false,"error":"..."} and exits 1. Warnings go
# to stderr.
use strict;
use warnings;

use JSON::PP ();
use POSIX ();

use PVE::Storage ();

# The shim of this checkout; where there is none, the installed one.
my ($home) = __FILE__ =~ m{\A(.*/)?drive\.pl\z};
my $source = ($home // '') . '../../src/pve/shim/TnblockPlugin.pm';
$source = "./$source" if $source !~ m{\A/};
-e $source ? require($source) : require PVE::Storage::Custom::TnblockPlugin;
my $SHIM = 'PVE::Storage::Custom::TnblockPlugin';
my $JSON = JSON::PP->new->utf8->canonical->allow_nonref;

# How PVE orders the arguments of each method: c is the section, s the storage's name, and the others
# are names in ARGS. A star asks for a list: the result is an array.
my %CALLS = (
    check_connection => 's c',
    activate_storage => 's c',
    deactivate_storage => 's c',
    status => '* s c',
    get_identity => 'c s',
    list_images => 's c vmid volids',
    list_volumes => 's c vmid content',
    path => '* c volname s snapshot',
    parse_volname => '* volname',
    map_volume => 's c volname snapshot',
    alloc_image => 's c vmid format name sizeKiB',
    free_image => 's c volname isBase format',
    volume_size_info => '* c s volname timeout',
    volume_resize => 'c s volname size running snapshot',
    activate_volume => 's c volname snapshot',
    deactivate_volume => 's c volname snapshot',
    qemu_blockdev_options => 'c s volname machine options',
    volume_has_feature => 'c feature s volname snapshot running opts',
    volume_export => 'c s stream volname format snapshot base withSnapshots',
    volume_import => 'c s stream volname format snapshot base withSnapshots allowRename',
    volume_export_formats => '* c s volname snapshot base withSnapshots',
    volume_import_formats => '* c s volname snapshot base withSnapshots',
    volume_snapshot => 'c s volname snapshot',
    volume_snapshot_rollback => 'c s volname snapshot',
    volume_snapshot_delete => 'c s volname snapshot running',
    volume_rollback_is_possible => 'c s volname snapshot blockers',
    rename_snapshot => 'c s volname snapshot targetSnapshot',
    volume_snapshot_info => 'c s volname',
    clone_image => 'c s volname vmid snapshot',
    create_base => 's c volname',
    rename_volume => 'c s volname targetVmid targetName',
    get_volume_attribute => 'c s volname attribute',
    update_volume_attribute => 'c s volname attribute value',
    on_delete_hook => 's c',
    api => '',
    properties => '',
    options => '',
    plugindata => '',
);

sub json {
    my ($text) = @_;
    return $JSON->decode($text) if $text =~ /\A\s*[{\[]/;
    open(my $in, '<', $text) or die "cannot read $text: $!\n";
    local $/;
    return $JSON->decode(scalar(<$in>));
}

# The handle that PVE would pass: it is neither buffered nor closed by the shim.
sub stream {
    my ($method, $file) = @_;
    return $method eq 'volume_export' ? \*STDOUT : \*STDIN if $file eq '-';
    my ($clean) = $file =~ m{\A(/[^\0]+)\z} or die "file must be an absolute path\n";
    open(my $handle, $method eq 'volume_export' ? '>:raw' : '<:raw', $clean)
        or die "cannot open $clean: $!\n";
    return $handle;
}

sub call {
    my ($method, $storeid, $scfg, $args) = @_;
    $args = { %$args, stream => stream($method, $args->{file}) } if defined($args->{file});
    if ($method eq 'on_add_hook') {
        return $SHIM->on_add_hook($storeid, $scfg, %{ $args->{sensitive} // {} });
    }
    if ($method eq 'on_update_hook_full') {
        return $SHIM->on_update_hook_full($storeid, $scfg, @{$args}{qw(update delete sensitive)});
    }
    my $order = $CALLS{$method} // die "no such method: $method\n";
    my $list = $order =~ s/\A\* ?//;
    my @given = map { $_ eq 's' ? $storeid : $_ eq 'c' ? $scfg : $args->{$_} } split(/ /, $order);
    # As in PVE, nothing is left out and booleans are 1 and 0.
    @given = map { JSON::PP::is_bool($_) ? ($_ ? 1 : 0) : $_ } @given;
    my $result = $list ? [$SHIM->$method(@given)] : $SHIM->$method(@given);
    if (ref($result) eq 'CODE') {
        return 'unfinished' if exists($args->{finish}) && !$args->{finish};
        return scalar($result->());
    }
    return $result;
}

my ($method, $storeid, $scfg, $args, $binary, $root) = @ARGV;
die "usage: drive.pl METHOD STOREID SCFG ARGS [BINARY [ROOT]]\n" if @ARGV < 4 || @ARGV > 6;
if (defined($binary)) {
    no warnings 'once';
    ($PVE::Storage::Custom::TnblockPlugin::BINARY) = $binary =~ m{\A(/[^\0]+)\z}
        or die "BINARY must be an absolute path\n";
}
if (defined($root)) {
    no warnings 'once';
    my ($clean) = $root =~ m{\A(/[^\0]+)\z} or die "ROOT must be an absolute path\n";
    $PVE::Storage::Custom::TnblockPlugin::ROOT = $clean;
    $PVE::Storage::Custom::TnblockPlugin::STATE_DIR = "$clean/run/tnblock";
    $PVE::Storage::Custom::TnblockPlugin::SOCKET = "$clean/run/tnblock/daemon.sock";
}
my $section = { %{ json($scfg) }, type => 'tnblock' };
$PVE::Storage::CONFIG = { ids => { $storeid => $section } };
$SHIM->register_for_api(PVE::Storage::APIVER());

my $result = eval { [call($method, $storeid, $section, json($args))] };
my $answer = $result ? { ok => \1, result => $result->[0] } : { ok => \0, error => $@ };
# STDOUT may be the stream.
my $is_stream = $method eq 'volume_export' && (json($args)->{file} // '') eq '-';
print { $is_stream ? \*STDERR : \*STDOUT } $JSON->encode($answer), "\n";
exit($result ? 0 : 1);
