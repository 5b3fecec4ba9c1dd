# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Times a program from its start to its exit as a Perl process sees it, in ms, one line a run.
#
#   perl scripts/bench/start_to_exit.pl RUNS INPUT PROGRAM [ARG ...]      (INPUT is a file)
use strict;
use warnings;

use Time::HiRes ();

my ($runs, $input, @command) = @ARGV;
for (1 .. $runs) {
    my $begin = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC());
    my $pid = fork() // die "fork: $!\n";
    if (!$pid) {
        %ENV = ();
        open(STDIN, '<', $input) or die "$input: $!\n";
        open(STDOUT, '>', '/dev/null') or die "/dev/null: $!\n";
        exec { $command[0] } @command or die "$command[0]: $!\n";
    }
    waitpid($pid, 0);
    printf("%.3f\n", (Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) - $begin) * 1000);
}
