# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Each verb: the request it sends, and the shape of what it makes of the answer.
use strict;
use warnings;

use Test::More;
use TnbTest;

my $TAINT = substr($ENV{PATH} // '', 0, 0);
my $DISK = "vol-vm-100-disk-0-lun5$TAINT";
my $UUID = '3f0e9c1a-5b7d-4e2f-8a6b-0c1d2e3f4a5b';

sub request_is {
    my ($method, $args) = @_;
    my $request = last_request();
    is($request->{method}, $method, "$method is sent");
    is($JSON->encode($request->{args}), $args, 'with these arguments, numbers as numbers');
}

subtest 'a request carries what the protocol names, and no secret' => sub {
    forwarding_daemon();
    answering('true');
    local $PVE::Storage::VERSION_OF_TEST = 13;
    my $scfg = scfg('tnb-api-key' => 'hush-1', 'tnb-chap-password' => 'hush-2', disable => 0);
    $SHIM->check_connection('san', $scfg);
    my $request = last_request();
    is_deeply([sort keys %$request], [qw(args config deadlineMs id method node protocol pveApi storage)]);
    is($request->{protocol}, 1, 'protocol');
    is($request->{storage}, 'san', 'storage');
    is($request->{node}, 'pve1', 'node');
    is($request->{pveApi}, 13, 'pveApi');
    ok(number_in_json($request->{$_}), "$_ is a number") for qw(protocol deadlineMs pveApi);
    is_deeply($request->{config}, scfg(disable => 0), 'the section, with its type');
    is($scfg->{'tnb-api-key'}, 'hush-1', 'the section of PVE is not touched');
    unlike(read_file('requests'), qr/hush/, 'no secret');
};

subtest 'two requests have two ids' => sub {
    forwarding_daemon();
    answering('true');
    $SHIM->check_connection('san', scfg()) for 1, 2;
    my ($one, $two) = requests();
    isnt($one->{id}, $two->{id});
};

subtest 'check_connection() is what the daemon says' => sub {
    forwarding_daemon();
    answering('true');
    is($SHIM->check_connection('san', scfg(), {}, 'later argument'), 1, 'true');
    answering('false');
    is($SHIM->check_connection('san', scfg()), 0, 'false');
    refusing({ code => 'auth', message => 'Cannot log in' });
    is(error_of('refused', sub { $SHIM->check_connection('san', scfg()) }), "Cannot log in\n");
};

subtest 'activate_storage() and deactivate_storage() forward' => sub {
    forwarding_daemon();
    answering('null');
    $SHIM->activate_storage('san', scfg(), {});
    request_is('activate_storage', '{}');
    $SHIM->deactivate_storage('san', scfg(), {});
    request_is('deactivate_storage', '{}');
};

for my $active ('true', '1', 'false', '0') {
    subtest "status() gives four plain integers for active: $active" => sub {
        forwarding_daemon();
        answering(qq({"total":9000000000000,"available":8000000000000,"used":7,"active":$active}));
        my @status = $SHIM->status('san', scfg(), {});
        my $expected = $active eq 'true' || $active eq '1' ? 1 : 0;
        is($JSON->encode(\@status), "[9000000000000,8000000000000,7,$expected]");
        ok(is_clean(\@status), 'clean');
    };
}

subtest 'status() is inactive after a failure, with one warning' => sub {
    forwarding_daemon();
    refusing({ code => 'unreachable', message => "Cannot reach\nthe array", hint => 'look at the cable' });
    my @status;
    my @warnings = warnings_of(sub { @status = $SHIM->status('san', scfg(), {}) });
    is_deeply(\@status, [], 'inactive');
    is_deeply(\@warnings, ["Cannot reach the array (look at the cable)\n"], 'one warning');
    @warnings = warnings_of(sub { @status = $SHIM->status('san', scfg(), {}) });
    is_deeply([@status, @warnings], [], 'pvestatd says the same once, and not every 10 s');
    no_daemon();
};

my $ROWS = qq([{"volid":"san:vol-vm-100-disk-0-lun5","size":1073741824,"format":"raw","vmid":100,"ctime":1700000000},)
    . qq({"volid":"san:vol-base-9-disk-0-ns$UUID/vol-vm-101-disk-0-ns$UUID","size":5,"format":"raw","vmid":101,)
    . qq("ctime":1700000001,"parent":"base-9-disk-0\@__base__"}]);
my @EXPECTED = (
    { volid => 'san:vol-vm-100-disk-0-lun5', size => 1073741824, format => 'raw', vmid => 100, ctime => 1700000000 },
    {
        volid => "san:vol-base-9-disk-0-ns$UUID/vol-vm-101-disk-0-ns$UUID", size => 5, format => 'raw', vmid => 101,
        ctime => 1700000001, parent => 'base-9-disk-0@__base__',
    },
);
# The same list written in two ways: as tnblock does, and as any JSON writer may.
my %WRITERS = (
    'as tnblock writes it' => sub { qq(print qq({"id":"\$request->{id}","ok":true,"result":), q\0$ROWS\0, "}\\n";) },
    'in another order' => sub { qq(print '{ "ok" : true, "result": ', q\0$ROWS\0, qq(, "id":"\$request->{id}"}\\n);) },
);
for my $name (sort keys %WRITERS) {
    subtest "list_images() reads a list $name" => sub {
        binary($WRITERS{$name}->());
        my $list = $SHIM->list_images("san$TAINT", scfg(), undef, undef, {});
        is_deeply($list, \@EXPECTED, 'the rows');
        ok(is_clean($list), 'clean');
        for my $field (qw(size vmid ctime)) {
            ok(number_in_json($_->{$field}), "$field is a number") for @$list;
        }
    };
}

my $NOTED = qq([{"volid":"san:vol-vm-1-a-lun5","size":1,"format":"raw","vmid":1,"ctime":2,"notes":"plain","protected":true},)
    . qq({"volid":"san:vol-vm-1-b-lun6","size":1,"format":"raw","vmid":1,"ctime":2,"notes":"two\\nlines \\"\xc3\xbc\\""},)
    . qq({"volid":"san:vol-vm-1-c-lun7","size":1,"format":"raw","vmid":1,"ctime":2,"protected":false}]);
my @EXPECTED_NOTED = map { { size => 1, format => 'raw', vmid => 1, ctime => 2, %$_ } } (
    { volid => 'san:vol-vm-1-a-lun5', notes => 'plain', protected => 1 },
    { volid => 'san:vol-vm-1-b-lun6', notes => qq(two\nlines "\xfc") },
    { volid => 'san:vol-vm-1-c-lun7' },
);
subtest 'list_images() reads notes and marks of protection, in both ways' => sub {
    my $reply = qq({"id":"x","ok":true,"result":$NOTED});
    my $rows = PVE::Storage::Custom::TnblockPlugin::_plain_rows("$reply$TAINT", 'x', 'san');
    is_deeply($rows, \@EXPECTED_NOTED, 'short way');
    ok(is_clean($rows), 'clean');
    binary(qq(print '{ "ok" : true, "result": ', q\0$NOTED\0, qq(, "id":"\$request->{id}"}\\n);));
    $rows = $SHIM->list_images('san', scfg());
    is_deeply($rows, \@EXPECTED_NOTED, 'long way');
    ok(is_clean($rows), 'clean');
};

subtest 'a list of long notes takes the short way too' => sub {
    my $notes = 'word\\n' x 50000;
    my $reply = qq({"id":"x","ok":true,"result":[{"volid":"san:vol-vm-1-a-lun5","size":1,"format":"raw","notes":"$notes"}]});
    my $rows;
    my @warnings = warnings_of(sub { $rows = PVE::Storage::Custom::TnblockPlugin::_plain_rows($reply, 'x', 'san') });
    is(length($rows->[0]->{notes}), 250000, 'the notes');
    is_deeply(\@warnings, [], 'no warning');
};

subtest 'list_images() reads an empty list in both ways' => sub {
    binary('print qq({"id":"$request->{id}","ok":true,"result":[]}\n)');
    is_deeply($SHIM->list_images('san', scfg()), [], 'short way');
    answering('[ ]');
    is_deeply($SHIM->list_images('san', scfg()), [], 'long way');
};

subtest 'list_images() reads 10,000 rows in well under a second, whichever JSON there is' => sub {
    my $program = 'print qq({"id":"$request->{id}","ok":true,"result":[), join(",", map { qq({"volid":"san:vol-vm-100-disk-$_-lun$_","size":1024,"format":"raw","vmid":100,"ctime":1700000000}) } 1 .. 10000), "]}\n"';
    binary($program);
    my $id = 'x';
    my $reply = qq({"id":"$id","ok":true,"result":[) . join(',', map { qq({"volid":"san:vol-vm-100-disk-$_-lun$_","size":1024,"format":"raw","vmid":100,"ctime":1700000000}) } 1 .. 10000) . ']}';
    my $start = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_PROCESS_CPUTIME_ID());
    my $rows = PVE::Storage::Custom::TnblockPlugin::_plain_rows($reply, $id, 'san');
    my $spent = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_PROCESS_CPUTIME_ID()) - $start;
    is(scalar(@$rows), 10000, 'all rows');
    cmp_ok($spent, '<', 1, sprintf('%.3f s of processor time', $spent));
    is(scalar(@{ $SHIM->list_images('san', scfg()) }), 10000, 'also through the pipe');
};

for my $bad (
    ['another storage', '[{"volid":"xan:vol-vm-1-disk-0-lun5","size":1,"format":"raw","vmid":1,"ctime":1}]'],
    ['a strange name', '[{"volid":"san:../etc","size":1,"format":"raw","vmid":1,"ctime":1}]'],
    ['a fraction', '[{"volid":"san:vol-vm-1-disk-0-lun5","size":1.5,"format":"raw","vmid":1,"ctime":1}]'],
    ['another format', '[{"volid":"san:vol-vm-1-disk-0-lun5","size":1,"format":"qcow2","vmid":1,"ctime":1}]'],
    ['a trailing comma', '[{"volid":"san:vol-vm-1-disk-0-lun5","size":1,"format":"raw","vmid":1,"ctime":1},]'],
    ['no list', 'null'], ['an object', '{}'], ['a list of texts', '["a"]'],
) {
    my ($name, $text) = @$bad;
    subtest "list_images() fails on $name rather than leave a row out" => sub {
        binary(qq(print qq({"id":"\$request->{id}","ok":true,"result":), q\0$text\0, "}\\n";));
        like(error_of('list', sub { $SHIM->list_images('san', scfg()) }), qr/Cannot use the answer of tnblock/);
    };
}

subtest 'list_images() dies when the array is away' => sub {
    refusing({ code => 'unreachable', message => 'Cannot reach the array' });
    is(error_of('list', sub { $SHIM->list_images('san', scfg()) }), "Cannot reach the array\n");
};

subtest 'list_images() passes its filters on' => sub {
    answering('[]');
    $SHIM->list_images('san', scfg(), "100$TAINT");
    request_is('list_images', '{"vmid":100}');
    $SHIM->list_images('san', scfg(), undef, ['san:vol-vm-1-a-lun1']);
    request_is('list_images', '{"volids":["san:vol-vm-1-a-lun1"]}');
};

subtest 'list_volumes() asks once and tells containers from machines' => sub {
    answering($ROWS);
    local $PVE::Cluster::GUESTS = { 100 => { type => 'qemu' }, 101 => { type => 'lxc' } };
    my $list = $SHIM->list_volumes('san', scfg(), undef, ['images', 'rootdir']);
    is(scalar(requests()), 1, 'one request');
    is_deeply([map { $_->{content} } @$list], ['images', 'rootdir'], 'both');
    $list = $SHIM->list_volumes('san', scfg(), undef, ['rootdir']);
    is_deeply([map { $_->{vmid} } @$list], [101], 'containers alone');
    answering($ROWS);
    is_deeply($SHIM->list_volumes('san', scfg(), undef, ['iso']), [], 'nothing else');
    is(scalar(requests()), 0, 'for which nobody is asked');
};

subtest 'alloc_image() returns a clean name' => sub {
    answering('"vol-vm-100-disk-0-lun5"');
    my $volname = $SHIM->alloc_image('san', scfg(), "100$TAINT", 'raw', undef, "4194304$TAINT");
    is($volname, 'vol-vm-100-disk-0-lun5', 'the name');
    ok(is_clean($volname), 'clean');
    request_is('alloc_image', '{"format":"raw","sizeKiB":4194304,"vmid":100}');
    $SHIM->alloc_image('san', scfg(), 100, 'raw', 'vm-100-state-a', 528.5);
    request_is('alloc_image', '{"format":"raw","name":"vm-100-state-a","sizeKiB":528.5,"vmid":100}');
    $SHIM->alloc_image('san', scfg(), 100, 'raw', '', 4);
    request_is('alloc_image', '{"format":"raw","sizeKiB":4,"vmid":100}');
};

subtest 'alloc_image() never returns a name PVE could not use' => sub {
    for my $result ('null', '""', '"store:"', '{}', '"vol-vm-100-disk-0"', '"vol-vm-101-disk-0-lun1"', '"vm-100-disk-0"') {
        answering($result);
        my $call = sub { $SHIM->alloc_image('san', scfg(), 100, 'raw', undef, 4) };
        like(error_of("answer $result", $call), qr/Cannot use the answer of tnblock/);
    }
};

subtest 'alloc_image() makes raw volumes only' => sub {
    answering('"vol-vm-100-disk-0-lun5"');
    like(error_of('qcow2', sub { $SHIM->alloc_image('san', scfg(), 100, 'qcow2', undef, 4) }), qr/is not raw/);
    is(scalar(requests()), 0, 'nobody is asked');
};

subtest 'free_image() returns code that finishes with the token' => sub {
    answering('{"token":"20260101T000000Z-7f3a.x/y=="}');
    my $finish = $SHIM->free_image('san', scfg(), $DISK, 1, 'raw');
    request_is('free_image', '{"isBase":true,"volname":"vol-vm-100-disk-0-lun5"}');
    is(ref($finish), 'CODE', 'code');
    answering('null');
    $finish->();
    request_is('free_image_finish', '{"token":"20260101T000000Z-7f3a.x/y=="}');
};

subtest 'free_image() has nothing to finish when there is no token' => sub {
    answering('null');
    is($SHIM->free_image('san', scfg(), $DISK, 0, 'raw'), undef);
    request_is('free_image', '{"isBase":false,"volname":"vol-vm-100-disk-0-lun5"}');
};

subtest 'free_image() refuses what is no token' => sub {
    for my $result ('{}', '{"token":""}', '{"token":"a b"}', '{"token":{}}', '"x"', 'true') {
        answering($result);
        my $call = sub { $SHIM->free_image('san', scfg(), $DISK, 0, 'raw') };
        like(error_of("answer $result", $call), qr/Cannot use the answer of tnblock/);
    }
};

subtest 'volume_size_info() gives five values, or the size alone' => sub {
    answering('{"size":1073741824,"format":"raw","used":4096,"parent":null,"ctime":1700000000}');
    my @info = $SHIM->volume_size_info(scfg(), 'san', $DISK, 7);
    is($JSON->encode(\@info), '[1073741824,"raw",4096,null,1700000000]', 'list');
    ok(is_clean(\@info), 'clean');
    is(last_request()->{deadlineMs}, 7000, 'the deadline of the caller');
    my $size = $SHIM->volume_size_info(scfg(), 'san', $DISK);
    is($JSON->encode([$size]), '[1073741824]', 'scalar');
    is(last_request()->{deadlineMs}, 5000, 'or ours');
};

subtest 'activate_volume() and deactivate_volume() forward the snapshot too' => sub {
    answering('null');
    $SHIM->activate_volume('san', scfg(), $DISK, undef, {}, { 'guest-is-windows' => 1 }, 'later');
    request_is('activate_volume', '{"volname":"vol-vm-100-disk-0-lun5"}');
    $SHIM->activate_volume('san', scfg(), $DISK, 'vzdump', {});
    request_is('activate_volume', '{"snapshot":"vzdump","volname":"vol-vm-100-disk-0-lun5"}');
    $SHIM->deactivate_volume('san', scfg(), $DISK, undef, {});
    request_is('deactivate_volume', '{"volname":"vol-vm-100-disk-0-lun5"}');
};

subtest 'volume_resize() forwards bytes, and refuses a snapshot' => sub {
    answering('null');
    $SHIM->volume_resize(scfg(), 'san', $DISK, "2147483648$TAINT", 1);
    request_is('volume_resize', '{"running":true,"size":2147483648,"volname":"vol-vm-100-disk-0-lun5"}');
    like(error_of('snapshot', sub { $SHIM->volume_resize(scfg(), 'san', $DISK, 1, 0, 's') }), qr/Cannot resize/);
};

subtest 'the snapshot verbs forward' => sub {
    answering('null');
    for my $method (qw(volume_snapshot volume_snapshot_rollback volume_snapshot_delete)) {
        $SHIM->$method(scfg(), 'san', $DISK, 'before', 1);
        request_is($method, '{"snapshot":"before","volname":"vol-vm-100-disk-0-lun5"}');
    }
};

subtest 'volume_rollback_is_possible() names what is in the way' => sub {
    answering('{"possible":true,"blockers":[]}');
    is($SHIM->volume_rollback_is_possible(scfg(), 'san', $DISK, 'a', []), 1, 'possible');
    answering('{"possible":false,"blockers":["b","auto-2026-01-01_00.00"]}');
    my $blockers = [];
    my $error = error_of('blocked', sub { $SHIM->volume_rollback_is_possible(scfg(), 'san', $DISK, 'a', $blockers) });
    like($error, qr/newer snapshots exist: b, auto-2026-01-01_00\.00/, 'the reason');
    is_deeply($blockers, ['b', 'auto-2026-01-01_00.00'], 'the list');
    ok(is_clean($blockers), 'clean');
    error_of('without a list', sub { $SHIM->volume_rollback_is_possible(scfg(), 'san', $DISK, 'a') });
    answering('{"possible":false,"blockers":["b"],"reason":"newer snapshots exist: b (on it: san:vm-7)"}');
    $error = error_of('with its reason', sub { $SHIM->volume_rollback_is_possible(scfg(), 'san', $DISK, 'a') });
    like($error, qr/: newer snapshots exist: b \(on it: san:vm-7\)\n\z/, 'in its own words');
};

subtest 'volume_snapshot_info() gives id and time of each' => sub {
    answering('{"before":{"id":"123456","timestamp":1700000000}}');
    my $info = $SHIM->volume_snapshot_info(scfg(), 'san', $DISK);
    is($JSON->encode($info), '{"before":{"id":"123456","timestamp":1700000000}}', 'the hash');
    ok(is_clean($info), 'clean');
};

subtest 'clone_image(), create_base() and rename_volume() return names' => sub {
    answering('"vol-base-9-disk-0-lun1/vol-vm-101-disk-0-lun2"');
    my $volname = $SHIM->clone_image(scfg(), 'san', 'vol-base-9-disk-0-lun1', '101', undef);
    is($volname, 'vol-base-9-disk-0-lun1/vol-vm-101-disk-0-lun2', 'clone_image');
    request_is('clone_image', '{"vmid":101,"volname":"vol-base-9-disk-0-lun1"}');
    answering('"vol-base-100-disk-0-lun5"');
    is($SHIM->create_base('san', scfg(), $DISK), 'vol-base-100-disk-0-lun5', 'create_base');
    answering('"vol-vm-101-disk-3-lun5"');
    my $volid = $SHIM->rename_volume(scfg(), "san$TAINT", $DISK, 101, undef);
    is($volid, 'san:vol-vm-101-disk-3-lun5', 'rename_volume returns a volid');
    ok(is_clean($volid), 'clean');
    request_is('rename_volume', '{"targetVmid":101,"volname":"vol-vm-100-disk-0-lun5"}');
    $SHIM->rename_volume(scfg(), 'san', $DISK, 'base-9-disk-0', 'vm-101-disk-3');
    request_is('rename_volume', '{"targetName":"vm-101-disk-3","volname":"vol-vm-100-disk-0-lun5"}');
};

subtest 'attributes go through' => sub {
    answering('true');
    is($JSON->encode([$SHIM->get_volume_attribute(scfg(), 'san', $DISK, 'protected')]), '[1]', 'protected');
    answering('"two\nlines"');
    my $notes = $SHIM->get_volume_attribute(scfg(), 'san', $DISK, 'notes');
    is($notes, "two\nlines", 'notes');
    ok(is_clean($notes), 'clean');
    $SHIM->update_volume_attribute(scfg(), 'san', $DISK, 'notes', 'new');
    request_is('update_volume_attribute', '{"attribute":"notes","value":"new","volname":"vol-vm-100-disk-0-lun5"}');
    $SHIM->update_volume_attribute(scfg(), 'san', $DISK, 'notes', undef);
    request_is('update_volume_attribute', '{"attribute":"notes","value":null,"volname":"vol-vm-100-disk-0-lun5"}');
    answering('null');
    is($SHIM->get_volume_attribute(scfg(), 'san', $DISK, $_), undef, "no $_") for qw(notes protected);
    answering('"gr\u00fc\u00df"');
    is($SHIM->get_volume_attribute(scfg(), 'san', $DISK, 'notes'), "gr\x{fc}\x{df}", 'notes are characters, not bytes');
};

subtest 'cluster_lock_storage() raises the time to get the lock, and nothing else' => sub {
    local $PVE::Storage::CONFIG = { ids => { san => scfg(), slow => scfg('tnb-lock-timeout' => 300) } };
    my $lock = sub {
        local @PVE::Storage::Plugin::LOCKED;
        my $got = $SHIM->cluster_lock_storage(@_, sub { return "done @_" }, 'a', 'b');
        is($got, 'done a b', 'the code runs with its arguments');
        return $PVE::Storage::Plugin::LOCKED[0];
    };
    is_deeply($lock->('san', 1, undef), ['san', 1, 120], 'the default');
    is_deeply($lock->('san', 1, 10), ['san', 1, 120], 'a short time is raised');
    is_deeply($lock->('san', 0, 500), ['san', 0, 500], 'a long one stays');
    is_deeply($lock->('slow', 1, 10), ['slow', 1, 300], 'the option counts');
    local $PVE::Storage::CONFIG = undef;
    is_deeply($lock->('san', 1, 10), ['san', 1, 120], 'it works without a configuration');
};

subtest 'nothing is ever written to standard output' => sub {
    binary('print STDERR "a word\n"; reply(ok => JSON::PP::true, result => undef);');
    open(my $kept, '>&', \*STDOUT) or die $!;
    open(STDOUT, '>', "$DIR/stdout") or die $!;
    warnings_of(sub {
        $SHIM->activate_volume('san', scfg(), $DISK);
        $SHIM->volume_snapshot(scfg(), 'san', $DISK, 's');
        eval { $SHIM->list_images('san', scfg()) };
        eval { $SHIM->alloc_image('san', scfg(), 100, 'raw', undef, 4) };
        $SHIM->status('san', scfg());
        local $PVE::Storage::Custom::TnblockPlugin::BINARY = '/nonexistent';
        $SHIM->status('san', scfg());
    });
    open(STDOUT, '>&', $kept) or die $!;
    is(read_file('stdout'), '', 'nothing');
};

done_testing();
