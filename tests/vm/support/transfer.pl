# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Exports a volume to standard output, or imports one from standard input, with the handle that PVE
# would give to the shim. What an import is called is printed.
#
#   perl -T -I tests/pve/lib tests/vm/support/transfer.pl volume_export STOREID SCFG VOLNAME >STREAM
#   perl -T -I tests/pve/lib tests/vm/support/transfer.pl volume_import STOREID SCFG VOLNAME <STREAM
#
# SCFG is the name of a file that holds the storage's section as JSON.
use strict;
use warnings;

use JSON::PP ();

use PVE::Storage ();

my ($home) = __FILE__ =~ m{\A(.*/)};
require "${home}../../../src/pve/shim/TnblockPlugin.pm";
my $SHIM = 'PVE::Storage::Custom::TnblockPlugin';

die "usage: transfer.pl volume_export|volume_import STOREID SCFG VOLNAME\n" if @ARGV != 4;
my ($method, $storeid, $file, $volname) = @ARGV;
open(my $in, '<', $file) or die "cannot read $file: $!\n";
my $section = JSON::PP->new->utf8->decode(do { local $/; scalar(<$in>) });
close($in);

$section->{type} = 'tnblock';
$PVE::Storage::CONFIG = { ids => { $storeid => $section } };
$SHIM->register_for_api(PVE::Storage::APIVER());
if ($method eq 'volume_export') {
    $SHIM->volume_export($section, $storeid, \*STDOUT, $volname, 'raw+size', undef, undef, 0);
} elsif ($method eq 'volume_import') {
    my @about = ('raw+size', undef, undef, 0, 0);
    print $SHIM->volume_import($section, $storeid, \*STDIN, $volname, @about), "\n";
} else {
    die "no such method: $method\n";
}
