# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A binary that misbehaves in every way: each ends in time, in one line that makes sense alone.
use strict;
use warnings;

use Test::More;
use Time::HiRes ();
use TnbTest;

no warnings 'once';
my $DISK = 'vol-vm-100-disk-0-lun5';
my $activate = sub { $SHIM->activate_volume('san', scfg(), $DISK) };

# The one-line error of an activation; what went to stderr is set aside.
sub failure {
    my ($name) = @_;
    my $error;
    warnings_of(sub { $error = error_of($name, $activate) });
    return $error;
}

subtest 'a binary that hangs is killed with all it started, just after its deadline' => sub {
    binary(qq(my \$child = fork(); open(my \$out, '>>', '$DIR/pids'); print \$out "\$\$\\n"; close(\$out); sleep(60);));
    local $PVE::Storage::Custom::TnblockPlugin::DEADLINE{activate_volume} = 0.3;
    local $PVE::Storage::Custom::TnblockPlugin::GRACE = 0.3;
    my $start = Time::HiRes::time();
    like(failure('hang'), qr/\ACannot do activate_volume on storage "san": no answer within 1 s\n\z/);
    cmp_ok(Time::HiRes::time() - $start, '<', 5, 'in time');
    is(last_request()->{deadlineMs}, 300, 'it was told its deadline');
    my @pids = split(/\n/, read_file('pids'));
    is(scalar(@pids), 2, 'two processes');
    await('the end of the binary', sub { !grep { is_running($_) } @pids });
};

subtest 'a binary that ends itself at its deadline has the last word' => sub {
    binary('select(undef, undef, undef, $request->{deadlineMs} / 1000);'
        . 'reply(ok => JSON::PP::false, error => { code => "timeout", message => "Cannot attach: the array is slow" });');
    local $PVE::Storage::Custom::TnblockPlugin::DEADLINE{activate_volume} = 0.1;
    is(failure('slow'), "Cannot attach: the array is slow\n");
};

subtest 'a binary that closes its output and stays is not waited for' => sub {
    program("#!/bin/sh\nexec >&- 2>&-\nexec sleep 60\n");
    like(failure('closed'), qr/no answer, though it closed its output/);
};

my $AGREED = qr/\ACannot use the answer of tnblock: "activate_volume" is not /;
my @ANSWERS = (
    ['garbage', 'print "Segmentation fault, sort of\n"', $AGREED],
    ['half a line', 'print q({"id":"), $request->{id}, q(","ok":true,"resu)', qr/ended with status 0 and gave no answer/],
    ['a whole answer without its line feed', 'print $json->encode({ id => $request->{id}, ok => 1 })', qr/gave no answer/],
    ['nothing', '', qr/ended with status 0 and gave no answer/],
    ['an empty line', 'print "\n"', $AGREED],
    ['a list', 'print "[]\n"', $AGREED],
    ['null', 'print "null\n"', $AGREED],
    ['the id of another request', '$request->{id} = "x"; reply(ok => JSON::PP::true, result => undef)', $AGREED],
    ['no id', 'print qq({"id":null,"ok":true,"result":null}\n)', $AGREED],
    ['a refusal without a reason', 'reply(ok => JSON::PP::false)', qr/gave no reason/],
    ['a refusal that is no object', 'reply(ok => JSON::PP::false, error => "no")', qr/gave no reason/],
    ['a status and a word', 'print STDERR "first\nlast word\n"; exit 3', qr/ended with status 3 and gave no answer: last word\n/],
    ['a signal', 'kill KILL => $$; sleep 9', qr/was killed by signal 9 and gave no answer/],
    ['an illegal instruction', 'kill ILL => $$; sleep 9', qr/this processor .* is too old: choose x86-64-v2 or host\n/],
    ['status 132', 'exit 132', qr/this processor .* is too old: choose x86-64-v2 or host\n/],
);
for my $case (@ANSWERS) {
    my ($name, $body, $expected) = @$case;
    subtest "a binary that answers with $name fails in one line" => sub {
        binary($body);
        like(failure($name), $expected);
    };
}

subtest 'an answer counts, whatever the exit status and whatever follows' => sub {
    binary('reply(ok => JSON::PP::true, result => undef); print "more\n"; exit 3;');
    ok(eval { $activate->(); 1 }) or diag($@);
};

subtest 'an error is one line of ASCII with its hint, and of bounded length' => sub {
    refusing({ code => 'in-use', message => "Cannot free \"x\":\r\n it\x{2019}s open\n", hint => "Stop it\n", steps => ['a'] });
    is(failure('lines'), "Cannot free \"x\": it?s open (Stop it)\n");
    refusing({ code => 'internal', message => 'x' x 100_000 });
    cmp_ok(length(failure('long')), '<', 2100, 'bounded');
};

subtest 'a missing binary says so' => sub {
    local $PVE::Storage::Custom::TnblockPlugin::BINARY = "$DIR/nothing";
    like(failure('missing'), qr{"\Q$DIR\E/nothing" is missing or may not be run});
    local $PVE::Storage::Custom::TnblockPlugin::BINARY = $DIR;
    like(failure('folder'), qr/is missing or may not be run/);
    local $PVE::Storage::Custom::TnblockPlugin::BINARY = write_file('plain', 'text', 0644);
    like(failure('not executable'), qr/is missing or may not be run/) if $> != 0;
};

subtest 'a binary that the kernel refuses to run says so' => sub {
    program("#!/nonexistent/interpreter\n");
    like(failure('exec'), qr/ended with status 126 and gave no answer: cannot run .*: No such file/);
};

subtest 'an old processor is named before anything is run' => sub {
    answering('null');
    local $PVE::Storage::Custom::TnblockPlugin::CPUINFO = write_file('cpuinfo', '');
    my %flags = ('sse4_1 sse4_2 popcnt aes' => 1, 'sse4_2 popcnt' => 1, 'sse4_1 popcnt' => 0, 'sse4_2 abm' => 0);
    for my $flags (sort keys %flags) {
        write_file('cpuinfo', "processor\t: 0\nmodel name\t: popcnt sse4_2\nflags\t\t: fpu sse2 $flags\nbugs\t: \n");
        unlink("$DIR/requests");
        if ($flags{$flags}) {
            ok(eval { $activate->(); 1 }, "$flags: works") or diag($@);
        } else {
            like(failure($flags), qr/this processor .* is too old: choose x86-64-v2 or host\n/);
            is(scalar(requests()), 0, "$flags: nothing was run");
        }
    }
    write_file('cpuinfo', "processor\t: 0\nFeatures\t: fp asimd\n");
    ok(eval { $activate->(); 1 }, 'a processor of another kind works');
};

subtest 'an answer of 10 MB is read' => sub {
    binary('print qq({"id":"$request->{id}","ok":true,"result":[), join(",", map { qq({"volid":"san:vol-vm-100-disk-$_-lun1","size":1073741824,"format":"raw","vmid":100,"ctime":1700000000}) } 1 .. 99999), "]}\n"');
    is(scalar(@{ $SHIM->list_images('san', scfg()) }), 99999);
};

subtest 'an answer without end is cut off' => sub {
    local $PVE::Storage::Custom::TnblockPlugin::MAX_REPLY = 1 << 20;
    program("#!/bin/sh\nexec yes | tr -d '\\n'\n");
    like(failure('endless'), qr/the answer is longer than 1048576 bytes/);
};

subtest 'a binary that does not read its request is no SIGPIPE' => sub {
    program("#!/bin/sh\nexit 5\n");
    my $call = sub { $SHIM->activate_volume('san', scfg('tnb-portals' => 'x' x 500_000), $DISK) };
    like(error_of('call', $call), qr/ended with status 5 and gave no answer/);
};

subtest 'a request of 900 kB arrives whole' => sub {
    answering('null');
    $SHIM->activate_volume('san', scfg('tnb-portals' => 'x' x 900_000), $DISK);
    is(length(last_request()->{config}->{'tnb-portals'}), 900_000);
};

subtest 'what the binary says on stderr is relayed line by line, and bounded' => sub {
    binary('print STDERR "one\n\x1b[31mtwo\r\n\nlast without end"; reply(ok => JSON::PP::true, result => undef);');
    my @warnings = warnings_of($activate);
    is_deeply(\@warnings, ["tnblock: one\n", "tnblock: ?[31mtwo\n", "tnblock: last without end\n"], 'the lines');
    binary('print STDERR "line $_\n" for 1 .. 5000; print STDERR "x" x 200_000; reply(ok => JSON::PP::true, result => undef);');
    @warnings = warnings_of($activate);
    is(scalar(@warnings), 101, 'a hundred lines and a last word');
    is($warnings[-1], "tnblock: further lines are left out\n", 'which says so');
};

done_testing();
