/**
 * Replaces one section of storage.cfg by another one, in one step, under Proxmox VE's own lock.
 *
 * The lock is a folder that pmxcfs gives to one process of the cluster at a time; it takes it back after 120 s, must
 * be asked to look for such a one, and the holder must end by itself before (pve-cluster, `PVE/Cluster.pm`, `cfs_lock`:
 * 60 s by SIGALRM). That protocol is PVE's and may change: so the one who speaks it here is PVE's own code, loaded
 * from the node, and all that this program adds is to compare and to replace text. Neither is another section parsed
 * or written: whatever a plugin of another version thinks of it, it stays to the byte.
 */
import { TnblockError } from "../common/error.ts";
import { attempt } from "../host/failure.ts";
import type { Host } from "../host/host.ts";

const PERL = "/usr/bin/perl";

/** Milliseconds: 30 s for getting the lock, 60 s in it, and the start. */
const SWAP_MS = 120_000;

/** Replaces `old` when it stands there exactly once, whole. What it reads holds secrets: it comes by standard input. */
export const SWAP_PROGRAM = String.raw`
use strict;
use warnings;
use JSON::PP;
use PVE::Cluster;
use PVE::Tools;

my $file = '/etc/pve/storage.cfg';
my $asked = JSON::PP->new->utf8->decode(do { local $/; <STDIN> });
my ($old, $new) = @$asked{qw(old new)};
utf8::encode($old);
utf8::encode($new);

my $done = 'changed';
PVE::Cluster::cfs_lock_file('storage.cfg', 30, sub {
    my $text = PVE::Tools::file_get_contents($file);
    my $at = index($text, $old);
    return if $at < 0 || index($text, $old, $at + 1) >= 0;
    return if $at > 0 && substr($text, $at - 1, 1) ne "\n";
    my $rest = substr($text, $at + length($old));
    return if $rest !~ /\A(?:\s*\z|[ \t]*\n|[A-Za-z0-9_-]+:)/;
    PVE::Tools::file_set_contents($file, substr($text, 0, $at) . $new . $rest);
    $done = 'replaced';
});
die $@ if $@;
print "$done\n";
`;

/**
 * Does it.
 *
 * @param old the section's text as it must stand there; `next` what takes its place. Both end with a line feed, `old`
 *   unless it is the end of a file without one.
 * @throws TnblockError `busy` when it does not stand there any more, nothing is changed then; `host-fault`.
 */
export async function swapSection(host: Host, old: string, next: string): Promise<void> {
  const doing = "Cannot replace the section in /etc/pve/storage.cfg";
  const { status, stdout, stderr } = await attempt(
    doing,
    () =>
      host.run(PERL, ["-T", "-e", SWAP_PROGRAM], {
        deadlineMs: SWAP_MS,
        input: JSON.stringify({ old, new: next }),
      }),
  );
  if (status === 0 && stdout.trim() === "replaced") return;
  if (status === 0 && stdout.trim() === "changed") {
    throw new TnblockError("busy", `${doing}: somebody has changed it meanwhile`, {
      hint: "Run the same again",
    });
  }
  const said = stderr.trim().split("\n").at(-1)?.slice(0, 300) ?? "";
  throw new TnblockError("host-fault", `${doing}: ${said === "" ? `status ${status}` : said}`);
}
