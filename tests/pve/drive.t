# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# The driver that other tests use to go through the shim.
use strict;
use warnings;

use Test::More;
use TnbTest;

my ($perl) = $^X =~ m{\A(/[A-Za-z0-9_./-]+)\z};
my ($home) = $TnbTest::HOME =~ m{\A([^\0]+)\z};

# Runs the driver as PVE runs the shim, under taint mode.
sub drive {
    my ($method, $args, $scfg) = @_;
    delete local @ENV{qw(IFS CDPATH ENV BASH_ENV)};
    local $ENV{PATH} = '/usr/bin:/bin';
    no warnings 'once';
    my @command = (
        $perl, '-T', "-I$home/lib", "$home/drive.pl", $method, 'san', $scfg // $JSON->encode(scfg()),
        $JSON->encode($args), $PVE::Storage::Custom::TnblockPlugin::BINARY,
    );
    open(my $out, '-|', @command) or die "cannot run the driver: $!";
    my $text = do { local $/; <$out> };
    close($out);
    return $text =~ s/\n\z//r . ' ' . ($? >> 8);
}

subtest 'a call prints its result' => sub {
    answering('{"size":3,"format":"raw","used":1}');
    is(drive('volume_size_info', { volname => 'vm-1-cloudinit' }), '{"ok":true,"result":[3,"raw",1,null,null]} 0', 'a list');
    answering('"vol-vm-100-disk-0-lun5"');
    my $args = { vmid => 100, format => 'raw', sizeKiB => 4096 };
    is(drive('alloc_image', $args), '{"ok":true,"result":"vol-vm-100-disk-0-lun5"} 0', 'a name');
    is(drive('path', { volname => 'vm-1-cloudinit' }), '{"ok":true,"result":["/dev/tnblock/san/vm-1-cloudinit",1,"images"]} 0', 'a path');
};

subtest 'the section may lie in a file' => sub {
    answering('null');
    my $file = write_file('scfg.json', $JSON->encode(scfg('tnb-debug' => 2)));
    is(drive('activate_volume', { volname => 'vm-1-cloudinit' }, $file), '{"ok":true,"result":1} 0');
    is(last_request()->{config}->{'tnb-debug'}, 2, 'it is sent');
};

subtest 'a failure prints its error' => sub {
    refusing({ code => 'in-use', message => 'Cannot free it' });
    is(drive('free_image', { volname => 'vol-vm-1-disk-0-lun1' }), '{"error":"Cannot free it\n","ok":false} 1');
    is(drive('nonsense', {}), '{"error":"no such method: nonsense\n","ok":false} 1', 'also of the driver');
};

subtest 'free_image is done to its end' => sub {
    answering('{"token":"t1"}');
    is(drive('free_image', { volname => 'vol-vm-1-disk-0-lun1', isBase => 0 }), '{"ok":true,"result":null} 0');
    is_deeply([map { $_->{method} } requests()], ['free_image', 'free_image_finish'], 'both halves');
};

done_testing();
