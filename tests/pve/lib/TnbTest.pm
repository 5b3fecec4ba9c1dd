# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# What the tests of the shim share: it is loaded among the stand-ins, and its binary is a small
# program that each test writes.
package TnbTest;

use strict;
use warnings;

use Exporter qw(import);
use File::Temp ();
use JSON::PP ();
use POSIX ();
use Scalar::Util qw(tainted);
use Socket ();
use Test::More ();

use PVE::Storage ();

our @EXPORT = qw(
    $SHIM $DIR $JSON program binary answering refusing await is_running requests last_request scfg write_file read_file
    error_of warnings_of is_clean number_in_json daemon no_daemon daemon_socket forwarding_daemon say_to
);

our $HOME = (__FILE__ =~ m{\A(.*)/lib/TnbTest\.pm\z})[0] // '.';
our $SHIM = 'PVE::Storage::Custom::TnblockPlugin';
our $SOURCE = "$HOME/../../src/pve/shim/TnblockPlugin.pm";
our $JSON = JSON::PP->new->utf8->canonical->allow_nonref;
our $TEMPORARY = File::Temp->newdir('tnblock-shim-XXXXXXXX', TMPDIR => 1);
our ($DIR) = "$TEMPORARY" =~ m{\A([A-Za-z0-9_./-]+)\z};
my $HOLDER = $$;
my ($perl) = $^X =~ m{\A(/[A-Za-z0-9_./-]+)\z};

$SOURCE = "./$SOURCE" if $SOURCE !~ m{\A\.?/};
require $SOURCE;

{
    no warnings 'once';
    $PVE::Storage::Custom::TnblockPlugin::SECRETS_DIR = "$DIR/priv";
    # The processor of the machine that runs the tests is not what they are about.
    $PVE::Storage::Custom::TnblockPlugin::CPUINFO = "$DIR/no-cpuinfo";
    # Nor its daemon.
    $PVE::Storage::Custom::TnblockPlugin::SOCKET = "$DIR/daemon.sock";
    # Nor is what a tnblock of that machine has noted.
    $PVE::Storage::Custom::TnblockPlugin::STATE_DIR = $DIR;
}

sub write_file {
    my ($name, $text, $mode) = @_;
    open(my $out, '>', "$DIR/$name") or die "$DIR/$name: $!";
    print {$out} $text;
    close($out) or die "$DIR/$name: $!";
    chmod($mode, "$DIR/$name") if defined($mode);
    return "$DIR/$name";
}

sub read_file {
    my ($name) = @_;
    open(my $in, '<', "$DIR/$name") or return undef;
    local $/;
    return scalar(<$in>);
}

# Makes the binary a Perl program. It finds the request line in $line, its decoded form in $request
# and a function reply(HASH), which adds the id. The line is kept for requests().
sub binary {
    my ($body) = @_;
    my $program = <<"END_OF_PROGRAM";
#!$perl
use strict; use warnings; use JSON::PP;
my \$json = JSON::PP->new->utf8->canonical;
\$| = 1;
my \$line = <STDIN>;
my \$request = \$json->decode(\$line);
open(my \$log, '>>', '$DIR/requests') or die; print \$log \$line; close(\$log);
sub reply { print \$json->encode({ id => \$request->{id}, \@_ }), "\\n" }
$body
END_OF_PROGRAM
    return program($program);
}

# Makes the binary any program.
sub program {
    my ($text) = @_;
    unlink("$DIR/requests");
    $PVE::Storage::Custom::TnblockPlugin::BINARY = write_file('tnblock', $text, 0755);
    return;
}

# Waits until the condition holds; dies after ten seconds.
sub await {
    my ($what, $condition) = @_;
    for (1 .. 1000) {
        return if $condition->();
        select(undef, undef, undef, 0.01);
    }
    die "$what did not happen within 10 s\n";
}

# Whether the process is there and not merely unreaped.
sub is_running {
    my ($pid) = @_;
    open(my $in, '<', "/proc/$pid/stat") or return 0;
    return (readline($in) // '') =~ /\A[0-9]+ \(.*\) [^ZX] /s;
}

# A binary that answers every request with this result, given as JSON text.
sub answering {
    my ($result) = @_;
    return binary("reply(ok => JSON::PP::true, result => JSON::PP->new->allow_nonref->decode(q\0$result\0));");
}

sub refusing {
    my ($error) = @_;
    my $text = $JSON->encode($error);
    return binary("reply(ok => JSON::PP::false, error => \$json->decode(q\0$text\0)); exit 1;");
}

my $daemon;

# A socket where the shim looks for the daemon's; whoever listens there has so much of a queue.
sub daemon_socket {
    my ($backlog) = @_;
    no_daemon();
    socket(my $listener, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0) or die "socket: $!";
    bind($listener, Socket::pack_sockaddr_un("$DIR/daemon.sock")) or die "bind: $!";
    chmod(0600, "$DIR/daemon.sock");
    listen($listener, $backlog // 100) or die "listen: $!";
    return $listener;
}

# A daemon in a process of its own. The code gets each connection; and, unless it is to begin before that,
# the line that came over it, also decoded, after the blank that says so. What it returns is of no matter.
sub daemon {
    my ($code, $begins_before) = @_;
    my $listener = daemon_socket();
    my $pid = fork() // die "fork: $!";
    if (!$pid) {
        local $SIG{PIPE} = 'IGNORE';
        $SIG{TERM} = 'DEFAULT';
        while (accept(my $client, $listener)) {
            eval { _serve($client, $code, $begins_before); 1 } or print STDERR $@;
        }
        POSIX::_exit(0);
    }
    $daemon = $pid;
    return;
}

sub _serve {
    my ($client, $code, $begins_before) = @_;
    return $code->($client) if $begins_before;
    my $line = readline($client) // return;
    open(my $log, '>>', "$DIR/daemon-requests") or die;
    print {$log} $line;
    close($log);
    say_to($client, ' ');
    $code->($client, $line, $JSON->decode($line));
    return;
}

# A daemon that answers as the binary does, which it runs for each request.
sub forwarding_daemon {
    daemon(sub {
        my ($client, $line) = @_;
        my $request = write_file('daemon-line', $line);
        my $pid = open(my $out, '-|') // die "fork: $!";
        if (!$pid) {
            %ENV = (PATH => '/usr/bin:/bin');
            open(STDIN, '<', $request);
            no warnings 'exec';
            exec { "$DIR/tnblock" } 'tnblock', 'hook';
            POSIX::_exit(1);
        }
        local $/;
        say_to($client, readline($out));
    });
    return;
}

sub no_daemon {
    if ($daemon) {
        kill('KILL', $daemon);
        waitpid($daemon, 0);
    }
    $daemon = undef;
    unlink("$DIR/daemon.sock", "$DIR/daemon-requests");
    return;
}

END {
    local $?;
    no_daemon() if $$ == $HOLDER;
}

sub say_to {
    my ($client, $text) = @_;
    for (my $at = 0; $at < length($text);) {
        $at += syswrite($client, $text, length($text) - $at, $at) // return;
    }
    return;
}

sub requests {
    return map { $JSON->decode($_) } split(/\n/, read_file('requests') // '');
}

sub last_request { return (requests())[-1] }

sub scfg {
    return {
        type => 'tnblock', content => { images => 1, rootdir => 1 }, shared => 1,
        'tnb-api-host' => '192.0.2.1', 'tnb-dataset' => 'tank/pve', @_,
    };
}

# What the code died of, which must be exactly one line.
sub error_of {
    my ($name, $code) = @_;
    my $lived = eval { $code->(); 1 };
    my $error = $@;
    Test::More::ok(!$lived, "$name: it fails") or return '';
    Test::More::like($error, qr/\A[\x20-\x7e]+\n\z/, "$name: the error is one line");
    return $error;
}

sub warnings_of {
    my ($code) = @_;
    my @warnings;
    local $SIG{__WARN__} = sub { push @warnings, $_[0] };
    $code->();
    return @warnings;
}

# No part of the value is tainted.
sub is_clean {
    my ($value) = @_;
    return !grep { !is_clean($_) } @$value if ref($value) eq 'ARRAY';
    return !grep { !is_clean($_) } %$value if ref($value) eq 'HASH';
    return !tainted($value);
}

sub number_in_json {
    my ($value) = @_;
    return $JSON->encode([$value]) =~ /\A\[-?[0-9]+\]\z/;
}

1;
