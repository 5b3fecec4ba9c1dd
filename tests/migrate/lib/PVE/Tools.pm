# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::Tools: files below the node's root.
package PVE::Tools;

use strict;
use warnings;

sub _path { my ($root) = $ENV{TNBLOCK_TEST_ROOT} =~ /\A(.*)\z/s; return $root . $_[0] }

sub file_get_contents {
    my $path = _path($_[0]);
    open(my $file, '<', $path) or die "can't open '$path' - $!\n";
    local $/;
    return scalar(<$file>);
}

sub file_set_contents {
    my ($path, $text) = (_path($_[0]), $_[1]);
    -d "$ENV{TNBLOCK_TEST_ROOT}/etc/pve/priv/lock/file-storage_cfg" or die "not locked\n";
    open(my $file, '>', "$path.tmp") or die "unable to open '$path.tmp' - $!\n";
    print {$file} $text;
    close($file) or die "close: $!\n";
    rename("$path.tmp", $path) or die "unable to rename - $!\n";
    return;
}

1;
