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
use Scalar::Util qw(tainted);
use Test::More ();

use PVE::Storage ();

our @EXPORT = qw(
    $SHIM $DIR $JSON program binary answering refusing await is_running requests last_request scfg write_file read_file
    error_of warnings_of is_clean number_in_json
);

our $HOME = (__FILE__ =~ m{\A(.*)/lib/TnbTest\.pm\z})[0] // '.';
our $SHIM = 'PVE::Storage::Custom::TnblockPlugin';
our $SOURCE = "$HOME/../../src/pve/shim/TnblockPlugin.pm";
our $JSON = JSON::PP->new->utf8->canonical->allow_nonref;
our $TEMPORARY = File::Temp->newdir('tnblock-shim-XXXXXXXX', TMPDIR => 1);
our ($DIR) = "$TEMPORARY" =~ m{\A([A-Za-z0-9_./-]+)\z};
my ($perl) = $^X =~ m{\A(/[A-Za-z0-9_./-]+)\z};

$SOURCE = "./$SOURCE" if $SOURCE !~ m{\A\.?/};
require $SOURCE;

{
    no warnings 'once';
    $PVE::Storage::Custom::TnblockPlugin::SECRETS_DIR = "$DIR/priv";
    # The processor of the machine that runs the tests is not what they are about.
    $PVE::Storage::Custom::TnblockPlugin::CPUINFO = "$DIR/no-cpuinfo";
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
