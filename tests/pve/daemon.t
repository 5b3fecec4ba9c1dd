# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# The shim and a daemon that works, is not there, stands still, dies, or lies: each call ends in time, what
# may be done without the daemon is done, and nothing is done twice that must not be.
use strict;
use warnings;

use Test::More;
use Time::HiRes qw(getitimer setitimer ITIMER_REAL);
use TnbTest;

no warnings 'once';
my $DISK = 'vol-vm-100-disk-0-lun5';
my $NEW = 'vol-vm-100-disk-7-lun7';
# One call of each kind: what changes nothing, the node, the array; and may be repeated, or not.
my %CALLS = (
    volume_size_info => sub { scalar($SHIM->volume_size_info(scfg(), 'san', $DISK)) },
    activate_volume => sub { $SHIM->activate_volume('san', scfg(), $DISK) },
    volume_snapshot_delete => sub { $SHIM->volume_snapshot_delete(scfg(), 'san', $DISK, 's') },
    alloc_image => sub { $SHIM->alloc_image('san', scfg(), 100, 'raw', undef, 4) },
    volume_resize => sub { $SHIM->volume_resize(scfg(), 'san', $DISK, 4096, 0) },
);
my @QUICK = qw(check_connection activate_storage deactivate_storage status);
my %RESULTS = (volume_size_info => '{"size":7,"format":"raw"}', alloc_image => qq("$NEW"));

# A binary that says how it was run, and does each of the calls.
sub working_binary {
    my $results = $JSON->encode(\%RESULTS);
    binary("open(my \$out, '>>', '$DIR/runs'); print \$out \$ENV{TNBLOCK_DIRECT} // 'plain', qq(\\n); close(\$out);"
        . "my \$results = \$json->decode(q\0$results\0); my \$result = \$results->{\$request->{method}};"
        . 'print qq({"id":"$request->{id}","ok":true,"result":), $result // "null", "}\n";');
    unlink("$DIR/runs");
    return;
}

# How often the binary was run, and whether it was told not to ask the daemon.
sub runs { return join(' ', split(/\n/, read_file('runs') // '')) }

# Calls the method; returns its error or '', and the seconds it took.
sub timed {
    my ($method) = @_;
    my $start = Time::HiRes::time();
    my $error = eval { $CALLS{$method}->(); 1 } ? '' : $@;
    return ($error, Time::HiRes::time() - $start);
}

# What PVE's status loop asks, in its order: connected, activated, and the status with what it warned of.
sub loop_of_pvestatd {
    my ($storeid) = @_;
    my ($connected, $activated, @status);
    my @warnings = warnings_of(sub {
        $connected = $SHIM->check_connection($storeid, scfg());
        $activated = $SHIM->activate_storage($storeid, scfg());
        $SHIM->deactivate_storage($storeid, scfg());
        @status = $SHIM->status($storeid, scfg());
    });
    return [$connected, $activated, [@status], [@warnings]];
}

my $OK = sub {
    my ($client, $line, $request) = @_;
    my $result = $RESULTS{ $request->{method} } // 'null';
    say_to($client, qq({"id":"$request->{id}","ok":true,"result":$result}\n));
};

subtest 'without a daemon the storage is connected and inactive at once, and nothing is run' => sub {
    working_binary();
    for my $dead (0, 1) {
        daemon_socket() if $dead; # its listener is closed at once
        my $start = Time::HiRes::time();
        my ($connected, $activated, $status, $warnings) = @{ loop_of_pvestatd("without$dead") };
        cmp_ok(Time::HiRes::time() - $start, '<', 0.5, 'at once');
        is_deeply([$connected, $activated, $status], [1, 1, []]);
        is(scalar(@$warnings), 1, 'one warning');
        like($warnings->[0], qr/\ACannot tell the status of storage "without$dead": the tnblock daemon does not run.*\n\z/);
        is_deeply(loop_of_pvestatd("without$dead")->[3], [], 'once in a process');
    }
    is(runs(), '', 'nothing was run');
    no_daemon();
};

subtest 'without a daemon each verb runs the binary, which may find one by then' => sub {
    working_binary();
    for my $method (sort keys %CALLS) {
        is((timed($method))[0], '', $method);
    }
    is(runs(), 'plain plain plain plain plain');
};

subtest 'a daemon that works does it all' => sub {
    working_binary();
    daemon($OK);
    for my $method (sort keys %CALLS) {
        is((timed($method))[0], '', $method);
    }
    is($CALLS{alloc_image}->(), $NEW, 'its answer counts');
    ok(is_clean([$CALLS{alloc_image}->(), $CALLS{volume_size_info}->()]), 'and is laundered');
    is(runs(), '', 'the binary is not run');
    my ($first) = map { $JSON->decode($_) } split(/\n/, read_file('daemon-requests'));
    is_deeply([sort keys %$first], [qw(args config deadlineMs id method node protocol pveApi storage)], 'the request');
    is($first->{deadlineMs}, 60000, 'its deadline');
};

subtest 'an error of the daemon is the error' => sub {
    working_binary();
    daemon(sub {
        my ($client, $line, $request) = @_;
        say_to($client, qq({"id":"$request->{id}","ok":false,"error":{"code":"unsupported","message":"Cannot do it","hint":"wait"}}\n));
    });
    for my $method (sort keys %CALLS) {
        is((timed($method))[0], "Cannot do it (wait)\n", $method);
    }
    is(runs(), '', 'the binary is not run');
};

subtest 'a socket that others than root can have made is refused by every method' => sub {
    working_binary();
    my %wrong = (
        'is not a socket' => sub { no_daemon(); write_file('daemon.sock', '', 0600) },
        'may be written to by others' => sub { daemon($OK); chmod(0666, "$DIR/daemon.sock") },
        'may be written to by others ' => sub { daemon($OK); chmod(0620, "$DIR/daemon.sock") },
        'is not a socket ' => sub { no_daemon(); symlink("$DIR/elsewhere.sock", "$DIR/daemon.sock") },
        ($> == 0 ? ('belongs to user 1, not to root' => sub { daemon($OK); chown(1, 1, "$DIR/daemon.sock") }) : ()),
    );
    for my $why (sort keys %wrong) {
        $wrong{$why}->();
        my ($words) = $why =~ /\A(.*?) *\z/;
        like((timed($_))[0], qr{"\Q$DIR\E/daemon.sock" $words}, "$_: $words") for sort keys %CALLS;
        like(error_of($words, sub { $SHIM->check_connection('san', scfg()) }), qr/$words/);
        like(join('', warnings_of(sub { $SHIM->status('san', scfg()) })), qr/\A(?:.*$words.*\n)?\z/);
    }
    is(runs(), '', 'the binary is not run either');
    no_daemon();
};

# What a daemon does that fails: before it takes a line, or after; and what then becomes of each call: run
# by the binary (1), or not (0), with these words.
my $DIES = qr/the tnblock daemon was at it, and went away; what it (?:made is taken back|began is finished), see journalctl -u tnblock\n\z/;
my $ELSE = qr/the tnblock daemon answered another request; what it (?:made is taken back|began is finished)/;
my $NO_JSON = qr/what the tnblock daemon answered is not JSON; what it (?:made is taken back|began is finished)/;
my @FAULTS = (
    ['closes before it takes the line', 'before', sub { }, undef],
    ['refuses: it works to its limit', 'before', sub { say_to($_[0], qq({"id":null,"ok":false,"error":{"code":"busy","message":"full"}}\n)) }, undef],
    ['takes the line and nothing else', 'after', sub { }, $DIES],
    ['gives half a line', 'after', sub { say_to($_[0], qq({"id":"$_[2]->{id}","ok":true,"resu)) }, $DIES],
    ['gives a whole answer without line feed', 'after', sub { say_to($_[0], qq({"id":"$_[2]->{id}","ok":true,"result":null})) }, $DIES],
    ['answers another request', 'after', sub { say_to($_[0], qq({"id":"x","ok":true,"result":null}\n)) }, $ELSE],
    ['answers no request', 'after', sub { say_to($_[0], qq({"id":null,"ok":true,"result":null}\n)) }, $ELSE],
    ['answers garbage', 'after', sub { say_to($_[0], "Segmentation fault\n") }, $NO_JSON],
    ['answers garbage before it takes the line', 'before', sub { readline($_[0]); say_to($_[0], "\0\n") }, $NO_JSON],
    ['answers an empty line', 'after', sub { say_to($_[0], "\n") }, $NO_JSON],
    ['answers a list', 'after', sub { say_to($_[0], "[]\n") }, $NO_JSON],
    ['answers 10 MB without a line feed', 'after', sub { say_to($_[0], 'x' x 10_000_000) }, qr/is longer than 1048576 bytes; what it/],
    ['answers without an end', 'after', sub { my ($client) = @_; 1 while syswrite($client, '{' x 65536) }, qr/is longer than 1048576 bytes; what it/],
    ['does not know the method', 'after', sub { say_to($_[0], qq({"id":"$_[2]->{id}","ok":false,"error":{"code":"unsupported","message":"m","field":"method"}}\n)) }, undef],
    ['speaks an older protocol', 'after', sub { say_to($_[0], qq({"id":"$_[2]->{id}","ok":false,"error":{"code":"unsupported","message":"m","field":"protocol"}}\n)) }, undef],
);
for my $case (@FAULTS) {
    my ($name, $when, $code, $lost) = @$case;
    subtest "a daemon that $name: what may be done is done by the binary, the rest fails" => sub {
        local $PVE::Storage::Custom::TnblockPlugin::MAX_REPLY = 1 << 20;
        local $PVE::Storage::Custom::TnblockPlugin::TAKE = 0.5;
        daemon($code, $when eq 'before');
        for my $method (sort keys %CALLS) {
            working_binary();
            my ($error, $seconds) = timed($method);
            cmp_ok($seconds, '<', 3, "$method: in time");
            my $is_lost = defined($lost) && $method =~ /\A(?:alloc_image|volume_resize)\z/;
            $is_lost ? like($error, $lost, "$method: it fails") : is($error, '', "$method: it is done");
            is(runs(), $is_lost ? '' : '1', "$method: by the binary alone");
        }
        working_binary();
        my $start = Time::HiRes::time();
        is_deeply([@{ loop_of_pvestatd("faulty $name") }[0 .. 2]], [1, 1, []], 'connected and inactive');
        cmp_ok(Time::HiRes::time() - $start, '<', 3, 'in time');
        is(runs(), '', 'and nothing is run');
    };
}

subtest 'a daemon that stands still has taken nothing: the binary does it' => sub {
    working_binary();
    my $listener = daemon_socket();
    local $PVE::Storage::Custom::TnblockPlugin::TAKE = 0.3;
    for my $method (sort keys %CALLS) {
        my ($error, $seconds) = timed($method);
        is($error, '', $method);
        cmp_ok($seconds, '<', 1.5, 'in time');
    }
    is(runs(), '1 1 1 1 1', 'without the daemon');
    is(last_request()->{deadlineMs} < 180000, 1, 'with the time that is left');
    my $start = Time::HiRes::time();
    is_deeply([@{ loop_of_pvestatd('still') }[0 .. 2]], [1, 1, []], 'connected and inactive');
    cmp_ok(Time::HiRes::time() - $start, '<', 2, 'in time');
};

subtest 'a queue that is full is the same' => sub {
    working_binary();
    my $listener = daemon_socket(0);
    my @waiting;
    while (1) {
        socket(my $client, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die;
        $client->blocking(0);
        connect($client, Socket::pack_sockaddr_un("$DIR/daemon.sock")) or last;
        push @waiting, $client;
    }
    local $PVE::Storage::Custom::TnblockPlugin::TAKE = 0.3;
    is((timed('alloc_image'))[0], '', 'it is done');
    is(runs(), '1', 'by the binary');
    my $start = Time::HiRes::time();
    is_deeply([@{ loop_of_pvestatd('full') }[0 .. 2]], [1, 1, []], 'connected and inactive');
    cmp_ok(Time::HiRes::time() - $start, '<', 2, 'in time');
};

subtest 'a daemon that takes the request and says nothing costs the deadline, and is not asked twice' => sub {
    working_binary();
    daemon(sub { sleep(60) });
    no warnings 'redefine';
    local $PVE::Storage::Custom::TnblockPlugin::GRACE = 0.2;
    my %then = (alloc_image => 'what it made is taken back', volume_resize => 'what it began is finished');
    for my $method (sort keys %CALLS) {
        # The last one is never answered, and this daemon serves one at a time.
        daemon(sub { sleep(60) });
        local $PVE::Storage::Custom::TnblockPlugin::DEADLINE{$method} = 0.5;
        my ($error, $seconds) = timed($method);
        my $more = $then{$method} ? "; $then{$method}, see journalctl -u tnblock" : '';
        like($error, qr/$method on storage "san": the tnblock daemon was at it, and gave no answer within 1 s\Q$more\E\n\z/);
        cmp_ok($seconds, '<', 2, 'in time');
    }
    for my $method (@QUICK) {
        daemon(sub { sleep(60) });
        local $PVE::Storage::Custom::TnblockPlugin::DEADLINE{$method} = 0.3;
        my $start = Time::HiRes::time();
        my @answer;
        warnings_of(sub { @answer = $SHIM->$method("silent$method", scfg()) });
        is_deeply(\@answer, $method eq 'status' ? [] : [1], $method);
        cmp_ok(Time::HiRes::time() - $start, '<', 2, 'in time');
    }
    is(runs(), '', 'the binary is not run');
};

subtest 'a daemon that is about to end is asked again until it is there' => sub {
    working_binary();
    daemon(sub {
        my ($client) = @_;
        my $request = $JSON->decode(scalar(readline($client)));
        my $count = length(read_file('count') // '') + 1;
        write_file('count', 'x' x $count);
        return say_to($client, qq({"id":null,"ok":false,"error":{"code":"busy","message":"m"}}\n)) if $count < 3;
        say_to($client, qq( {"id":"$request->{id}","ok":true,"result":"$NEW"}\n));
    }, 'before');
    is($CALLS{alloc_image}->(), $NEW);
    is(read_file('count'), 'xxx', 'at the third time');
    is(runs(), '', 'the binary is not run');
};

subtest 'where no time is left the binary is not run' => sub {
    working_binary();
    daemon(sub { select(undef, undef, undef, 0.7) });
    local $PVE::Storage::Custom::TnblockPlugin::DEADLINE{activate_volume} = 1.2;
    like((timed('activate_volume'))[0], qr/went away, and no time is left to do it without\n/);
    is(runs(), '');
};

subtest 'a request that cannot be read is refused in words' => sub {
    daemon(sub { say_to($_[0], qq({"id":null,"ok":false,"error":{"code":"invalid","message":"Cannot read the request: it is too long"}}\n)) });
    is((timed('alloc_image'))[0], "Cannot read the request: it is too long\n");
};

subtest 'an answer may come byte by byte, and a request of 900 kB slowly' => sub {
    working_binary();
    daemon(sub {
        my ($client, $line, $request) = @_;
        for my $byte (split(//, qq({"id":"$request->{id}","ok":true,"result":null}\nmore\n))) {
            say_to($client, $byte);
            select(undef, undef, undef, 0.001);
        }
    });
    is((timed('activate_volume'))[0], '', 'byte by byte');
    daemon(sub {
        my ($client) = @_;
        my $line = '';
        while ($line !~ /\n\z/) {
            sysread($client, $line, 20_000, length($line)) or last;
            select(undef, undef, undef, 0.001);
        }
        my $request = $JSON->decode($line);
        say_to($client, qq( {"id":"$request->{id}","ok":true,"result":null}\n));
    }, 'before');
    $SHIM->activate_volume('san', scfg('tnb-portals' => 'x' x 900_000), $DISK);
    is(runs(), '', 'by the daemon');
};

subtest 'signals interrupt nothing' => sub {
    my $us = $$;
    daemon(sub {
        my ($client, $line, $request) = @_;
        for (1 .. 50) {
            kill(USR1 => $us);
            select(undef, undef, undef, 0.002);
        }
        say_to($client, qq({"id":"$request->{id}","ok":true,"result":null}\n));
    });
    my $count = 0;
    local $SIG{USR1} = sub { $count++ };
    is((timed('activate_volume'))[0], '');
    cmp_ok($count, '>', 0, 'the handler ran');
};

subtest 'the surroundings of PVE stay as they are' => sub {
    daemon($OK);
    my $fired = 0;
    local $SIG{ALRM} = sub { $fired++ };
    local $SIG{PIPE} = sub { die "SIGPIPE\n" };
    my $handler = $SIG{PIPE};
    opendir(my $before, '/proc/self/fd');
    my $count = () = readdir($before);
    setitimer(ITIMER_REAL, 20);
    ($!, $?) = (5, 6);
    $CALLS{activate_volume}->();
    my @after = ($! + 0, $?);
    is_deeply(\@after, [5, 6], '$! and $?');
    cmp_ok(abs(getitimer(ITIMER_REAL) - 20), '<', 1, 'the alarm runs on');
    setitimer(ITIMER_REAL, 0);
    daemon(sub { }, 'before');
    working_binary();
    eval { $SHIM->activate_volume('san', scfg('tnb-portals' => 'x' x 900_000), $DISK); 1 } or diag($@);
    is($SIG{PIPE}, $handler, 'the handler of SIGPIPE');
    opendir(my $now, '/proc/self/fd');
    is(scalar(() = readdir($now)) - 1, $count, 'no descriptor is left open');

    daemon(sub { sleep(60) });
    setitimer(ITIMER_REAL, 1.5);
    like((timed('activate_volume'))[0], qr/gave no answer within/);
    is($fired, 0, 'our own deadline comes before the alarm');
    setitimer(ITIMER_REAL, 0);
};

subtest 'a list of 99,999 volumes is read' => sub {
    daemon(sub {
        my ($client, $line, $request) = @_;
        my $rows = join(',', map { qq({"volid":"san:vol-vm-100-disk-$_-lun1","size":1073741824,"format":"raw","vmid":100,"ctime":1700000000}) } 1 .. 99999);
        say_to($client, qq({"id":"$request->{id}","ok":true,"result":[$rows]}\n));
    });
    is(scalar(@{ $SHIM->list_images('san', scfg()) }), 99999);
};

subtest 'a freed volume is finished by the daemon, in the worker' => sub {
    daemon(sub {
        my ($client, $line, $request) = @_;
        my $result = $request->{method} eq 'free_image' ? '{"token":"t1"}' : 'null';
        say_to($client, qq({"id":"$request->{id}","ok":true,"result":$result}\n));
    });
    my $finish = $SHIM->free_image('san', scfg(), $DISK, 0, 'raw');
    my $pid = fork() // die;
    if (!$pid) {
        POSIX::_exit(eval { $finish->(); 1 } ? 0 : 1);
    }
    waitpid($pid, 0);
    is($?, 0, 'it ends well');
    my @asked = map { $JSON->decode($_) } split(/\n/, read_file('daemon-requests'));
    is_deeply([map { "$_->{method} $_->{deadlineMs}" } @asked], ['free_image 45000', 'free_image_finish 120000']);
};

done_testing();
