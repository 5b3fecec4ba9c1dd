# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Plays systemd for one service: makes its socket, hands it over as descriptor 3 with LISTEN_FDS and LISTEN_PID,
# and starts it again whenever it ends. Commands on standard input, one a line: `term` and `kill` end the
# service by that signal; `stop`, or the end of the input, ends it for good. Each start and end is a line on
# standard output, and its standard error is the journal. What it tells with systemd-notify is the stand-in
# program's to note.
#
#   perl small_systemd.pl SOCKET PROGRAM ARGS...
use strict;
use warnings;

use IO::Handle;
use POSIX ();
use Socket;

my ($path, @command) = @ARGV;
STDOUT->autoflush(1);
socket(my $listener, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
bind($listener, pack_sockaddr_un($path)) or die "bind: $!";
chmod(0600, $path);
listen($listener, 1024) or die "listen: $!";

my ($pid, $stopping, $input) = (0, 0, '');
local $SIG{CHLD} = sub { };

sub start {
    $pid = fork() // die "fork: $!";
    if (!$pid) {
        # Duplicates are inherited; where it has the right number already, it is made to be.
        my $spare = POSIX::dup(fileno($listener));
        POSIX::dup2($spare, 3);
        @ENV{qw(LISTEN_FDS LISTEN_PID)} = (1, $$);
        @ENV{qw(NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID)} = ('/nonexistent', 600_000, $$);
        my ($device, $inode) = stat(STDERR);
        $ENV{JOURNAL_STREAM} = "$device:$inode";
        no warnings 'exec';
        exec { $command[0] } @command;
        POSIX::_exit(127);
    }
    print "start $pid\n";
    return;
}

start();
while (1) {
    my $readable = '';
    vec($readable, fileno(STDIN), 1) = 1 if defined($input);
    if (select($readable, undef, undef, 0.02) > 0) {
        my $read = sysread(STDIN, $input, 4096, length($input));
        $input = $read ? $input : 'stop' . "\n";
        while ($input =~ s/\A([a-z]+)\n//) {
            kill($1 eq 'kill' ? 'KILL' : 'TERM', $pid);
            $stopping = 1 if $1 eq 'stop';
        }
    }
    if (waitpid($pid, POSIX::WNOHANG()) == $pid) {
        print "end $pid $?\n";
        last if $stopping;
        start();
    }
}
