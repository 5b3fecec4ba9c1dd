# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::Storage: the version it claims and the configuration it returns are the test's.
package PVE::Storage;

use strict;
use warnings;

our $VERSION_OF_TEST = 15;
our $CONFIG = { ids => {} };

sub APIVER { return $VERSION_OF_TEST }

sub config { return $CONFIG }

1;
