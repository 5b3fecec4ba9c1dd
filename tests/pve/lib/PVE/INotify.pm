# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# A stand-in for PVE::INotify.
package PVE::INotify;

use strict;
use warnings;

sub nodename { return 'pve1' }

1;
