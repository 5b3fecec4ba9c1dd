# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::Tools: writes a file whole, by way of a temporary name.
package PVE::Tools;

use strict;
use warnings;

use Fcntl qw(O_CREAT O_EXCL O_WRONLY);

sub file_set_contents {
    my ($file, $content, $mode) = @_;
    my $temporary = "$file.tmp.$$";
    sysopen(my $handle, $temporary, O_WRONLY | O_CREAT | O_EXCL, $mode // 0644)
        or die "unable to open '$temporary' - $!\n";
    print {$handle} $content or die "unable to write '$temporary' - $!\n";
    close($handle) or die "unable to close '$temporary' - $!\n";
    rename($temporary, $file) or die "unable to rename '$temporary' - $!\n";
    return;
}

1;
