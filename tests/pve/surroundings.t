# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# The shim runs inside PVE's processes: what they have set up (alarms, handlers, environment, file
# descriptors) stays as it is, and does not reach the binary.
use strict;
use warnings;

use Fcntl ();
use POSIX ();
use Test::More;
use Time::HiRes qw(getitimer setitimer ITIMER_REAL);
use TnbTest;

no warnings 'once';
my $TAINT = substr($ENV{PATH} // '', 0, 0);
my $DISK = 'vol-vm-100-disk-0-lun5';
my $activate = sub { $SHIM->activate_volume('san', scfg(), $DISK) };
my $REPLY = 'reply(ok => JSON::PP::true, result => undef);';

subtest 'the alarm of the caller keeps running, and fires in its time' => sub {
    answering('null');
    my $fired = 0;
    local $SIG{ALRM} = sub { $fired++ };
    my $start = Time::HiRes::time();
    setitimer(ITIMER_REAL, 20);
    $activate->();
    my $left = getitimer(ITIMER_REAL);
    my $spent = Time::HiRes::time() - $start;
    cmp_ok(abs($left + $spent - 20), '<', 0.2, 'nothing was added or taken');

    binary('sleep 60');
    $start = Time::HiRes::time();
    setitimer(ITIMER_REAL, 1);
    my $error;
    warnings_of(sub { $error = error_of('hang', $activate) });
    is($fired, 0, 'our own deadline comes first');
    await('the alarm', sub { $fired });
    cmp_ok(Time::HiRes::time() - $start, '<', 1.5, 'the alarm comes when it should');
};

subtest 'inside the storage lock 5 s of the alarm are left' => sub {
    answering('"vol-vm-100-disk-0-lun5"');
    local $SIG{ALRM} = sub { };
    my $alloc = sub { $SHIM->alloc_image('san', scfg(), 100, 'raw', undef, 4) };
    setitimer(ITIMER_REAL, 60);
    $alloc->();
    is(last_request()->{deadlineMs}, 45000, 'a whole alarm: the whole deadline');
    setitimer(ITIMER_REAL, 15);
    $alloc->();
    my $given = last_request()->{deadlineMs};
    ok($given > 9000 && $given <= 10000, "15 s: $given ms");
    setitimer(ITIMER_REAL, 5.5);
    my $before = scalar(requests());
    like(error_of('too late', $alloc), qr/too little time, nothing was begun/);
    is(scalar(requests()), $before, 'nothing was begun');
    setitimer(ITIMER_REAL, 0);
};

subtest 'signals interrupt nothing' => sub {
    binary("for (1 .. 50) { kill USR1 => getppid(); select(undef, undef, undef, 0.002) } $REPLY");
    my $count = 0;
    local $SIG{USR1} = sub { $count++ };
    ok(eval { $activate->(); 1 }, 'it works') or diag($@);
    cmp_ok($count, '>', 0, 'the handler ran');
};

subtest 'a caller that is torn away leaves the binary at work and reaps it later' => sub {
    binary("open(my \$out, '>', '$DIR/pid.new'); print \$out \$\$; close(\$out); rename('$DIR/pid.new', '$DIR/pid');"
        . "kill USR1 => getppid(); select(undef, undef, undef, 0.01) until -e '$DIR/go'; open(\$out, '>', '$DIR/done');");
    {
        local $SIG{USR1} = sub { die "got timeout\n" };
        eval { $activate->() };
        is($@, "got timeout\n", 'the error of the caller passes');
    }
    my ($pid) = read_file('pid') =~ /\A([0-9]+)\z/;
    ok(is_running($pid), 'the binary goes on');
    write_file('go', '');
    await('the work of the binary', sub { -e "$DIR/done" });
    await('its end', sub { !is_running($pid) });
    answering('null');
    $activate->();
    ok(!-e "/proc/$pid", 'it was reaped');
};

for my $handler ('IGNORE', 'DEFAULT', sub { 1 while waitpid(-1, POSIX::WNOHANG()) > 0 }) {
    subtest 'it works below a SIGCHLD handling of ' . (ref($handler) ? 'a reaper of everything' : $handler) => sub {
        local $SIG{CHLD} = $handler;
        answering('null');
        ok(eval { $activate->(); 1 }, 'an answer') or diag($@);
        binary('exit 3');
        like(error_of('none', $activate), qr/gave no answer/);
    };
}

subtest 'the binary is not one zombie when all is done' => sub {
    answering('null');
    $activate->() for 1 .. 3;
    is(waitpid(-1, POSIX::WNOHANG()), -1, 'no child is left');
};

subtest 'nothing of the environment reaches the binary, and none of it stops the call' => sub {
    binary("open(my \$out, '>', '$DIR/seen') or die; print \$out \$json->encode({ env => {%ENV}, argv => \\\@ARGV }); close(\$out); $REPLY");
    local @ENV{qw(ENV BASH_ENV IFS CDPATH BUN_OPTIONS NODE_OPTIONS TNBLOCK_ROOT LD_X PERL5OPT PATH)} =
        map { "/poison$TAINT" } 1 .. 10;
    ok(eval { $activate->(); 1 }, 'it runs') or diag($@);
    my $seen = $JSON->decode(read_file('seen'));
    is_deeply($seen->{env}, { PATH => '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL => 'C' }, 'its environment');
    is_deeply($seen->{argv}, ['hook'], 'its arguments');
    is($ENV{BUN_OPTIONS}, '/poison', 'the environment of PVE is as it was');
};

subtest 'a secret is in neither request, arguments nor environment' => sub {
    binary("open(my \$out, '>', '$DIR/seen') or die; print \$out \$line, \$json->encode([{%ENV}, \\\@ARGV]); close(\$out); $REPLY");
    my @names = qw(tnb-api-key tnb-chap-password tnb-chap-peer-password tnb-dhchap-secret tnb-dhchap-ctrl-secret);
    $SHIM->on_add_hook('san', scfg(map { $_ => 'hush-hush' } @names), map { $_ => 'hush-hush' } @names);
    unlike(read_file('seen'), qr/hush/);
};

subtest 'the binary has a session, a folder, signals and descriptors of its own' => sub {
    binary("open(my \$out, '>', '$DIR/seen') or die;"
        . 'my ($mask) = do { local @ARGV = "/proc/self/status"; map { /SigBlk:\s*(\w+)/ } <> };'
        . 'my ($ignored) = do { local @ARGV = "/proc/self/status"; map { /SigIgn:\s*(\w+)/ } <> };'
        . 'my @fds = grep { -e "/proc/$$/fd/$_" && readlink("/proc/$$/fd/$_") !~ m{/(?:seen|tnblock)$} } 3 .. 50;'
        . 'require Cwd; require POSIX; print $out $json->encode({ pid => $$, group => getpgrp(), cwd => Cwd::getcwd(), '
        . "mask => hex(\$mask), ignored => hex(\$ignored) & (1 << 12), fds => \\\@fds }); close(\$out); $REPLY");
    local $SIG{PIPE} = 'IGNORE';
    my $mask = POSIX::SigSet->new(POSIX::SIGTERM(), POSIX::SIGUSR2());
    my $old = POSIX::SigSet->new();
    POSIX::sigprocmask(POSIX::SIG_BLOCK(), $mask, $old);
    $activate->();
    POSIX::sigprocmask(POSIX::SIG_SETMASK(), $old);
    my $seen = $JSON->decode(read_file('seen'));
    is($seen->{group}, $seen->{pid}, 'a process group of its own');
    is($seen->{cwd}, '/', 'the root folder');
    is($seen->{mask}, 0, 'no signal blocked');
    is($seen->{ignored}, 0, 'SIGPIPE not ignored');
    is_deeply($seen->{fds}, [], 'no further descriptor');
    is($SIG{PIPE}, 'IGNORE', 'the handler of PVE is as it was');
};

subtest 'it works without standard handles' => sub {
    binary("print STDERR qq(a word\\n); $REPLY");
    open(my $in, '<&', \*STDIN) or die $!;
    open(my $out, '>&', \*STDOUT) or die $!;
    open(my $err, '>&', \*STDERR) or die $!;
    close(STDIN);
    close(STDOUT);
    close(STDERR);
    my ($lived, $error);
    my @warnings = warnings_of(sub { $lived = eval { $activate->(); 1 }; $error = $@ });
    open(STDIN, '<&', $in) or die $!;
    open(STDOUT, '>&', $out) or die $!;
    open(STDERR, '>&', $err) or die $!;
    ok($lived, 'it works') or diag($error);
    is_deeply(\@warnings, ["tnblock: a word\n"], 'and its stderr is read');
};

subtest 'a call leaves $! and $? of the caller alone' => sub {
    answering('null');
    ($!, $?) = (5, 6);
    $activate->();
    my @after = ($! + 0, $?);
    is_deeply(\@after, [5, 6]);
};

done_testing();
