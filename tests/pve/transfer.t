# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Export and import: every byte, no byte more, and nothing left of what failed.
use strict;
use warnings;

use Test::More;
use TnbTest;

no warnings 'once';
my $TAINT = substr($ENV{PATH} // '', 0, 0);
my $DISK = "vol-vm-100-disk-0-lun5$TAINT";
my $MIB = 1 << 20;
$PVE::Storage::Custom::TnblockPlugin::ROOT = $DIR;
mkdir("$DIR/$_") or die $! for qw(dev dev/tnblock dev/tnblock/san);
my $PLACE = 'dev/tnblock/san/vm-100-disk-0';

# A binary for both ways: it prepares and finishes, and answers import_prepare with a given text.
sub copier {
    my ($size, $prepare) = @_;
    $prepare //= 'reply(ok => JSON::PP::true, result => { volname => "vol-vm-100-disk-0-lun5", path => "/dev/tnblock/san/vm-100-disk-0" });';
    return binary(qq(
        if (\$request->{method} eq 'volume_export_prepare') {
            reply(ok => JSON::PP::true, result => { path => "/dev/tnblock/san/vm-100-disk-0", size => $size });
        } elsif (\$request->{method} eq 'volume_import_prepare') {
            $prepare
        } else {
            reply(ok => JSON::PP::true, result => undef);
        }
    ));
}

sub methods { return [map { $_->{method} } requests()] }

# A stream of raw+size from memory, by way of a file.
sub stream {
    my ($data, $size) = @_;
    write_file('stream', pack('Q<', $size // length($data)) . $data);
    open(my $in, '<:raw', "$DIR/stream") or die $!;
    return $in;
}

sub import_of {
    my ($in, %more) = @_;
    return $SHIM->volume_import(
        scfg(), 'san', $in, $more{name} // "vm-100-disk-0$TAINT", $more{format} // 'raw+size',
        @more{qw(snapname base with)}, $more{rename} // 0, 'later argument',
    );
}

sub export_to {
    my ($out, %more) = @_;
    return $SHIM->volume_export(scfg(), 'san', $out, $DISK, $more{format} // 'raw+size', @more{qw(snapname base with)});
}

# What export writes into a file.
sub exported {
    open(my $out, '>:raw', "$DIR/out") or die $!;
    export_to($out);
    close($out) or die $!;
    return read_file('out');
}

# A disk with data, holes of several sizes, and an odd end.
my $CONTENT = ('a' x 70000) . ("\0" x (3 * $MIB)) . 'b' . ("\0" x 65535) . ('c' x $MIB) . ("\0" x 200000) . 'end';
$CONTENT .= "\0" x (512 - length($CONTENT) % 512);

subtest 'the format is raw+size, and nothing where snapshots are meant' => sub {
    my $formats = sub { my $method = shift; [$SHIM->$method(scfg(), 'san', $DISK, @_)] };
    for my $method (qw(volume_export_formats volume_import_formats)) {
        is_deeply($formats->($method), ['raw+size'], "$method without further arguments");
        is_deeply($formats->($method, undef, undef, 0), ['raw+size'], "$method of a disk");
        is_deeply($formats->($method, undef, undef, 1), [], "$method with snapshots");
        is_deeply($formats->($method, 's', 'b', 0), [], "$method of a difference");
    }
    is_deeply($formats->('volume_export_formats', 's', undef, 0), [], 'no export of a snapshot');
    is_deeply($formats->('volume_import_formats', 's', undef, 0), ['raw+size'], 'but an import of what was one');
};

subtest 'an export is the size and every byte' => sub {
    copier(length($CONTENT));
    write_file($PLACE, $CONTENT);
    my $stream = exported();
    is(unpack('Q<', $stream), length($CONTENT), 'the header');
    ok(substr($stream, 8) eq $CONTENT, 'the content');
    is_deeply(methods(), [qw(volume_export_prepare volume_export_finish)], 'prepared and finished');
    is($JSON->encode(last_request()->{args}), '{"volname":"vol-vm-100-disk-0-lun5"}', 'of this volume');
};

subtest 'an export of a disk that is longer than its volume ends at the size' => sub {
    copier(1000);
    write_file($PLACE, 'x' x 5000);
    is(length(exported()), 1008);
};

subtest 'an export of a disk that ends too early fails, and is finished' => sub {
    copier(5000);
    write_file($PLACE, 'x' x 1000);
    like(error_of('short', sub { exported() }), qr/\ACannot export volume "vol-vm-100-disk-0-lun5": the data end too early/);
    is_deeply(methods(), [qw(volume_export_prepare volume_export_finish)]);
};

subtest 'an export to a reader that has gone fails instead of killing the process' => sub {
    copier(8 * $MIB);
    write_file($PLACE, 'x' x (8 * $MIB));
    pipe(my $in, my $out) or die $!;
    close($in);
    like(error_of('gone', sub { export_to($out) }), qr/the data cannot be written: Broken pipe/);
    is(methods()->[-1], 'volume_export_finish', 'finished');
};

subtest 'an export that was finished badly is whole, with a warning' => sub {
    binary('if ($request->{method} eq "volume_export_prepare") { reply(ok => JSON::PP::true, result => { path => "/dev/tnblock/san/vm-100-disk-0", size => 3 }) }'
        . ' else { reply(ok => JSON::PP::false, error => { code => "in-use", message => "Cannot let go" }) }');
    write_file($PLACE, 'abc');
    my $stream;
    my @warnings = warnings_of(sub { $stream = exported() });
    is($stream, pack('Q<', 3) . 'abc');
    is_deeply(\@warnings, ["Cannot let go\n"]);
};

subtest 'an export of what is no whole disk is refused before anything is asked' => sub {
    copier(3);
    for my $case ([format => 'qcow2+size'], [snapname => 's'], [base => 'b'], [with => 1]) {
        error_of("@$case", sub { export_to(\*STDIN, @$case) });
    }
    is_deeply(methods(), [], 'nobody is asked');
};

subtest 'an import writes every byte, skips zeros, and returns the volid' => sub {
    local @PVE::Storage::Plugin::LOCKED;
    local $PVE::Storage::CONFIG = { ids => { san => scfg() } };
    copier(0);
    # Marks that survive show where nothing was written.
    write_file($PLACE, '?' x length($CONTENT));
    my $volid = import_of(stream($CONTENT));
    is($volid, 'san:vol-vm-100-disk-0-lun5', 'the volid');
    ok(is_clean($volid), 'clean');
    my $written = read_file($PLACE);
    is(length($written), length($CONTENT), 'no byte past the end');
    my $skipped = $written =~ tr/?//;
    ok($written =~ tr/?/\0/r eq $CONTENT, 'the content');
    cmp_ok($skipped, '>', 3 * $MIB - 65536, 'the holes were skipped');
    is_deeply(methods(), [qw(volume_import_prepare volume_import_finish)], 'prepared and finished');
    is($JSON->encode((requests())[0]->{args}), '{"name":"vm-100-disk-0","size":' . length($CONTENT) . ',"vmid":100}', 'the request');
    is_deeply(\@PVE::Storage::Plugin::LOCKED, [['san', 1, 120]], 'it was made under the lock of the storage');
};

subtest 'an import writes through a pipe that gives a few bytes at a time' => sub {
    copier(0);
    write_file($PLACE, "\0" x length($CONTENT));
    stream($CONTENT);
    pipe(my $in, my $out) or die $!;
    my $pid = fork() // die $!;
    if (!$pid) {
        my $stream = read_file('stream');
        for (my $at = 0; $at < length($stream);) {
            $at += syswrite($out, $stream, $at < 100 ? 3 : 54321, $at);
        }
        POSIX::_exit(0);
    }
    close($out);
    import_of($in);
    waitpid($pid, 0);
    ok(read_file($PLACE) eq $CONTENT);
};

subtest 'an import takes the name out of a whole volume name' => sub {
    copier(0);
    write_file($PLACE, '');
    import_of(stream('x'), name => 'vol-vm-100-disk-3-lun77');
    is((requests())[0]->{args}->{name}, 'vm-100-disk-3');
};

for my $case (
    ['too short', 'x' x 5000, 6000, qr/the data end too early/],
    ['too long', 'x' x 5000, 4000, qr/the stream is longer than the 4000 bytes it announced/],
) {
    my ($name, $data, $size, $reason) = @$case;
    subtest "an import of a stream that is $name fails and leaves nothing" => sub {
        copier(0);
        write_file($PLACE, '');
        like(error_of($name, sub { import_of(stream($data, $size)) }), $reason);
        is_deeply(methods(), [qw(volume_import_prepare volume_import_abort)], 'it is taken back');
        is($JSON->encode(last_request()->{args}), '{"volname":"vol-vm-100-disk-0-lun5"}', 'what was made');
    };
}

subtest 'a stream without a sensible size makes no volume' => sub {
    copier(0);
    for my $bytes ('', 'abc', pack('Q<', 0), pack('Q<', ~0)) {
        write_file('stream', $bytes);
        open(my $in, '<:raw', "$DIR/stream") or die $!;
        error_of(unpack('H*', $bytes), sub { import_of($in) });
    }
    is_deeply(methods(), [], 'nobody is asked');
};

subtest 'an import onto a path that is no disk fails and leaves nothing' => sub {
    copier(0);
    unlink("$DIR/$PLACE");
    like(error_of('missing', sub { import_of(stream('x')) }), qr/is not a block device/);
    is(methods()->[-1], 'volume_import_abort', 'it is taken back');
    ok(!-e "$DIR/$PLACE", 'no file was made');
};

subtest 'a disk that loses what it took fails the import, long before its end' => sub {
    local $PVE::Storage::Custom::TnblockPlugin::SYNC_EVERY = $MIB;
    copier(0);
    write_file($PLACE, '');
    no warnings 'redefine';
    my $synced = 0;
    local *IO::Handle::sync = sub { $synced++; $! = 5; return undef };
    my $in = stream('x' x (4 * $MIB));
    like(error_of('lost', sub { import_of($in) }), qr/the disk did not take the data: Input\/output error/);
    is($synced, 1, 'at the first try');
    is(sysseek($in, 0, 1), $MIB + 8, 'the rest was not read');
    is(methods()->[-1], 'volume_import_abort', 'it is taken back');
};

subtest 'a disk that does not take the data fails the import' => sub {
    plan(skip_all => 'this machine has no /dev/full') if !-c '/dev/full';
    copier(0);
    no warnings 'redefine';
    local *PVE::Storage::Custom::TnblockPlugin::_block_device = sub { return '/dev/full' };
    like(error_of('full', sub { import_of(stream('x' x 5000)) }), qr/No space left on device/);
    is(methods()->[-1], 'volume_import_abort', 'it is taken back');
};

subtest "another guest's disk is neither written nor taken back" => sub {
    copier(0, 'reply(ok => JSON::PP::true, result => { volname => "vol-vm-101-disk-0-lun5", path => "/dev/tnblock/san/vm-101-disk-0" });');
    like(error_of('answer', sub { import_of(stream('x')) }), qr/Cannot use the answer of tnblock/);
    is_deeply(methods(), ['volume_import_prepare']);
};

for my $answer (
    '{ volname => "vol-vm-100-disk-0-lun5", path => "/etc/passwd" }',
    '{ volname => "vol-vm-100-disk-0-lun5" }',
) {
    subtest "an import refuses the answer $answer, and what it made is taken back" => sub {
        copier(0, "reply(ok => JSON::PP::true, result => $answer);");
        like(error_of('answer', sub { import_of(stream('x')) }), qr/Cannot use the answer of tnblock/);
        is(methods()->[-1], 'volume_import_abort');
    };
}

my $TAKEN = 'if (defined($request->{args}->{name})) { reply(ok => JSON::PP::false, error => { code => "CODE", message => "Cannot make it: it is there" }) }'
    . ' else { reply(ok => JSON::PP::true, result => { volname => "vol-vm-100-disk-7-lun5", path => "/dev/tnblock/san/vm-100-disk-7" }) }';
for my $code (qw(exists not-ours)) {
    subtest "a name that is taken ($code) is another's disk" => sub {
        copier(0, $TAKEN =~ s/CODE/$code/r);
        is(error_of('no rename', sub { import_of(stream('x')) }), "Cannot make it: it is there\n");
        is_deeply(methods(), ['volume_import_prepare'], 'nothing was made, nothing is taken back');
        copier(0, $TAKEN =~ s/CODE/$code/r);
        write_file('dev/tnblock/san/vm-100-disk-7', '');
        my $volid;
        my @warnings = warnings_of(sub { $volid = import_of(stream('x'), rename => 1) });
        is($volid, 'san:vol-vm-100-disk-7-lun5', 'where PVE allows it, it gets another name');
        is(scalar(@warnings), 1, 'with a warning');
        is(read_file('dev/tnblock/san/vm-100-disk-7'), 'x', 'and the data');
    };
}

subtest 'no other failure leads to another name' => sub {
    copier(0, $TAKEN =~ s/CODE/no-space/r);
    is(error_of('full', sub { import_of(stream('x'), rename => 1) }), "Cannot make it: it is there\n");
    is_deeply(methods(), ['volume_import_prepare']);
};

subtest 'an import that could not be taken back says so' => sub {
    binary('if ($request->{method} eq "volume_import_prepare") { reply(ok => JSON::PP::true, result => { volname => "vol-vm-100-disk-0-lun5", path => "/dev/tnblock/san/vm-100-disk-0" }) }'
        . ' else { reply(ok => JSON::PP::false, error => { code => "unreachable", message => "Cannot reach it" }) }');
    write_file($PLACE, '');
    my @warnings = warnings_of(sub { error_of('short', sub { import_of(stream('x', 9)) }) });
    is_deeply(\@warnings, ["Volume \"vol-vm-100-disk-0-lun5\" of this failed import is left: Cannot reach it\n"]);
};

subtest 'an import of what is no whole disk is refused before anything is asked' => sub {
    copier(0);
    for my $case ([format => 'tar+size'], [base => 'b'], [with => 1], [name => 'base-100-disk-0'], [name => 'nonsense']) {
        error_of("@$case", sub { import_of(\*STDIN, @$case) });
    }
    is_deeply(methods(), [], 'nobody is asked');
};

for my $signal (qw(TERM INT HUP)) {
    subtest "an import that is told to end by SIG$signal takes back what it made" => sub {
        copier(0);
        write_file($PLACE, '');
        pipe(my $in, my $out) or die $!;
        my $pid = fork() // die $!;
        if (!$pid) {
            close($out);
            local $SIG{$signal} = 'DEFAULT';
            my $text = eval { import_of($in) } // $@;
            write_file('ended', $text);
            POSIX::_exit(0);
        }
        close($in);
        syswrite($out, pack('Q<', 10 * $MIB) . 'x' x $MIB);
        await('the write', sub { -s "$DIR/$PLACE" });
        kill($signal, $pid);
        waitpid($pid, 0);
        is(read_file('ended'), "Cannot import volume \"vm-100-disk-0\": stopped by SIG$signal\n");
        is_deeply(methods(), [qw(volume_import_prepare volume_import_abort)], 'it is taken back');
        close($out);
    };
}

subtest 'a signal while the volume is being made does not lose it' => sub {
    copier(0, 'kill("TERM", getppid()); select(undef, undef, undef, 0.1);'
        . 'reply(ok => JSON::PP::true, result => { volname => "vol-vm-100-disk-0-lun5", path => "/dev/tnblock/san/vm-100-disk-0" });');
    write_file($PLACE, '');
    like(error_of('signal', sub { import_of(stream('x')) }), qr/stopped by SIGTERM/);
    is_deeply(methods(), [qw(volume_import_prepare volume_import_abort)]);
};

subtest 'the signals of the caller are as they were afterwards' => sub {
    copier(0);
    write_file($PLACE, '');
    my $own = sub { };
    local @SIG{qw(TERM INT PIPE)} = ($own, 'IGNORE', 'DEFAULT');
    import_of(stream('x'));
    is($SIG{TERM}, $own, 'a handler');
    is($SIG{INT}, 'IGNORE', 'an ignored one');
    is($SIG{PIPE}, 'DEFAULT', 'a plain one');
};

subtest 'neither way writes to standard output' => sub {
    open(my $kept, '>&', \*STDOUT) or die $!;
    open(STDOUT, '>', "$DIR/stdout") or die $!;
    copier(1);
    write_file($PLACE, 'x');
    exported();
    import_of(stream('x'));
    eval { import_of(stream('x', 2)) };
    open(STDOUT, '>&', $kept) or die $!;
    is(read_file('stdout'), '', 'nothing');
};

done_testing();
