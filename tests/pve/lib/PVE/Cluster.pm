# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::Cluster: the guests are the test's.
package PVE::Cluster;

use strict;
use warnings;

our $GUESTS = {};

sub get_vmlist { return { version => 1, ids => $GUESTS } }

1;
