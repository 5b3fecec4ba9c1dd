# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Chooses what `require JSON` finds: -MJsonChoice=absent hides the module; -MJsonChoice=present
# stands in for it where the machine has none.
package JsonChoice;

use strict;
use warnings;

sub import {
    my ($class, $choice) = @_;
    if ($choice eq 'absent') {
        unshift @INC, sub { die "JSON is hidden by this test\n" if $_[1] eq 'JSON.pm'; return };
    } else {
        my $text = 'package JSON; require JSON::PP; our @ISA = ("JSON::PP"); 1;';
        push @INC, sub { return if $_[1] ne 'JSON.pm'; open(my $in, '<', \$text); return $in };
    }
    return;
}

1;
