# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Plays a process of PVE: loads the shim among the stand-ins for PVE's modules, then calls it as it is told,
# and tells how long each call took. A line of JSON asked, one answered.
#
#   perl -T -I tests/pve/lib scripts/bench/shim.pl BINARY ROOT
#
# {"do":"setup","config":{...}}                    the storage's section
# {"do":"call","method":"status","args":[...],"runs":5}    times of so many calls
# {"do":"together","calls":[[METHOD, ARG ...] ...]}  all calls one after the other, timed as one
# {"do":"burst","count":25,"locks":DIR,"args":[...],"at":EPOCH}
#                                                  so many allocations within a second, each in a process of its own
use strict;
use warnings;

use JSON::PP ();
use List::Util qw(max);
use POSIX ();
use Time::HiRes ();

use PVE::Storage ();
use PVE::Storage::Plugin ();

my ($binary, $root) = map { m{\A(/[^\0]+)\z} ? $1 : die "not an absolute path: $_\n" } @ARGV;
my ($home) = __FILE__ =~ m{\A(.*/)?shim\.pl\z};
my $source = ($home // './') . '../../src/pve/shim/TnblockPlugin.pm';
$source = "./$source" if $source !~ m{\A/};
require $source;
{
    no warnings 'once';
    $PVE::Storage::Custom::TnblockPlugin::BINARY = $binary;
    $PVE::Storage::Custom::TnblockPlugin::ROOT = $root;
    $PVE::Storage::Custom::TnblockPlugin::STATE_DIR = "$root/run/tnblock";
    $PVE::Storage::Custom::TnblockPlugin::SOCKET = "$root/run/tnblock/daemon.sock";
}
my $SHIM = 'PVE::Storage::Custom::TnblockPlugin';
my $JSON = JSON::PP->new->utf8->canonical->allow_nonref;
my $STOREID = 'san';

# Where the methods that are measured want storage and section; what follows is the caller's.
my %ORDER = (
    check_connection => [qw(s c)],
    activate_storage => [qw(s c)],
    status => [qw(s c)],
    list_images => [qw(s c)],
    activate_volume => [qw(s c)],
    deactivate_volume => [qw(s c)],
    alloc_image => [qw(s c)],
    free_image => [qw(s c)],
    volume_size_info => [qw(c s)],
    volume_snapshot_info => [qw(c s)],
);

sub section { return $PVE::Storage::CONFIG->{ids}->{$STOREID} }

sub call {
    my ($method, @args) = @_;
    my $order = $ORDER{$method} // die "no such method: $method\n";
    my %what = (s => $STOREID, c => section());
    my @result = $SHIM->$method((map { $what{$_} } @$order), @args);
    # The second half of a free, which PVE runs in a worker.
    $result[0]->() if ref($result[0]) eq 'CODE';
    return wantarray ? @result : $result[0];
}

sub now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

# How PVE locks a shared storage: a folder in the cluster's file system, tried for every second until the
# time to get it is over; what runs below it is given 60 s.
sub lock_as_pve {
    my ($folder, $timeout, $code) = @_;
    my $begin = now();
    until (mkdir($folder)) {
        die "cannot make $folder: $!\n" if $! != POSIX::EEXIST();
        die "got lock request timeout\n" if now() - $begin >= $timeout;
        sleep(1);
    }
    my $result = eval {
        local $SIG{ALRM} = sub { die "got lock timeout\n" };
        alarm(60);
        my $made = $code->();
        alarm(0);
        $made;
    };
    my $error = $@;
    alarm(0);
    rmdir($folder);
    die $error if $error;
    return $result;
}

my $LOCKS;
{
    no warnings 'redefine';
    *PVE::Storage::Plugin::cluster_lock_storage = sub {
        my ($class, $storeid, $shared, $timeout, $code, @param) = @_;
        return lock_as_pve("$LOCKS/storage-$storeid", $timeout || 10, sub { $code->(@param) });
    };
}

# A task of PVE that makes a disk (vdisk_alloc).
sub task {
    my (@args) = @_;
    my ($asked, $got, $done) = (now());
    my $volname = eval {
        $SHIM->activate_storage($STOREID, section(), {});
        $asked = now();
        $SHIM->cluster_lock_storage($STOREID, 1, undef, sub {
            $got = now();
            my $made = $SHIM->alloc_image($STOREID, section(), @args);
            $done = now();
            return $made;
        });
    };
    my $error = $@;
    return {
        volname => $volname,
        defined($volname) ? () : (error => $error),
        defined($got) ? (waitMs => ($got - $asked) * 1000) : (),
        defined($done) ? (holdMs => ($done - $got) * 1000) : (),
    };
}

sub burst {
    my ($order) = @_;
    my ($folder) = $order->{locks} =~ m{\A(/[^\0]+)\z};
    $LOCKS = $folder;
    pipe(my $in, my $out) or die "pipe: $!\n";
    for my $number (1 .. $order->{count}) {
        my $pid = fork() // die "fork: $!\n";
        next if $pid;
        srand();
        # Tasks never begin in the same moment; those that did would all ask for the lock in step.
        my $left = $order->{at} + rand(1) - Time::HiRes::time();
        Time::HiRes::sleep($left) if $left > 0;
        # Short enough to be written whole.
        my $line = $JSON->encode(task(@{ $order->{args} })) . "\n";
        syswrite($out, $line);
        POSIX::_exit(0);
    }
    close($out);
    my @tasks;
    while (my $line = readline($in)) { push @tasks, $JSON->decode($line) }
    1 while waitpid(-1, 0) > 0;
    return { tasks => \@tasks, endedAt => Time::HiRes::time() };
}

my %DO = (
    setup => sub {
        my ($order) = @_;
        $PVE::Storage::CONFIG = { ids => { $STOREID => $order->{config} } };
        $SHIM->register_for_api(PVE::Storage::APIVER());
        return {};
    },
    call => sub {
        my ($order) = @_;
        my (@ms, $last);
        for (1 .. $order->{runs} // 1) {
            my $begin = now();
            $last = [call($order->{method}, @{ $order->{args} // [] })];
            push @ms, (now() - $begin) * 1000;
        }
        my $first = $last->[0];
        # Of a list only its length: the bench does not measure how we write it.
        return { ms => \@ms, ref($first) eq 'ARRAY' ? (rows => scalar(@$first)) : (result => $last) };
    },
    together => sub {
        my ($order) = @_;
        my $begin = now();
        call(@$_) for @{ $order->{calls} };
        return { ms => [(now() - $begin) * 1000] };
    },
    burst => \&burst,
);

$| = 1;
while (my $line = readline(STDIN)) {
    my $order = $JSON->decode($line);
    my $answer = eval { $DO{ $order->{do} }->($order) } // { error => "$@" };
    print $JSON->encode($answer), "\n";
}
