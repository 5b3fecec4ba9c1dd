# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# What Proxmox VE sees of tnblock. This module knows names, options, features and formats; all other
# work is one JSON request to the tnblock binary, with a deadline, and a check of every value that
# comes back: to the daemon, over a connection of its own, or where there is none to `tnblock hook`.
# It holds no state but what it has warned of, opens no network connection and puts no secret into a
# request.
#
# Two rules shape it. A mistake while it loads stops every PVE service of the node, so what runs at
# load time is plain data. And PVE runs it under taint mode, inside event loops and below an alarm
# of its own: hence no event loop here, no alarm, no output to STDOUT, and nothing from outside is
# handed on before a pattern has matched it.
package PVE::Storage::Custom::TnblockPlugin;

use strict;
use warnings;

use Errno qw(EAGAIN EINTR ENOENT);
use Fcntl ();
use IO::Handle ();
use List::Util qw(max min);
use POSIX ();
use Socket ();
use Time::HiRes ();

use PVE::Cluster ();
use PVE::INotify ();
use PVE::Tools ();

use base qw(PVE::Storage::Plugin);

# ---- What is turned on -------------------------------------------------------------------------

# The storage API versions this module was written against.
use constant { OLDEST_API => 11, NEWEST_API => 16 };

# What volume_has_feature may promise, by what the question is about: PVE acts on a promise at once.
# A snapshot can be copied because activate_volume makes a device of it.
our %FEATURES = (
    snapshot => { current => 1, snap => 1 },
    clone => { base => 1, snap => 1 },
    copy => { base => 1, current => 1, snap => 1 },
    template => { current => 1 },
    rename => { current => 1 },
    sparseinit => { base => 1, current => 1 },
);

# Volume attributes the binary keeps.
our %ATTRIBUTES = (notes => 1, protected => 1);

# ---- Constants ---------------------------------------------------------------------------------

# Package variables rather than constants for the tests alone. The environment never sets them.
our $BINARY = '/usr/local/bin/tnblock';
our $SOCKET = '/run/tnblock/daemon.sock';
our $SECRETS_DIR = '/etc/pve/priv/storage';
our $CPUINFO = '/proc/cpuinfo';
our $STATE_DIR = '/run/tnblock';
# Before the paths of devices. Below any root a plain file counts as a disk, as for the binary.
our $ROOT = '';

# Seconds each method may take. Without a daemon each call logs in to the array, which takes 1 to 2 s.
our %DEADLINE = (
    # The daemon has them in its memory.
    check_connection => 2,
    status => 3,
    # An add runs validate_storage, check_connection and activate_storage below one alarm of 60 s.
    validate_storage => 20,
    activate_storage => 25,
    deactivate_storage => 25,
    list_images => 10,
    volume_size_info => 5,
    # Inside the storage lock, whose 60 s PVE enforces.
    alloc_image => 45,
    free_image => 45,
    clone_image => 45,
    create_base => 45,
    rename_volume => 45,
    volume_import_prepare => 45,
    # In a background task, after the lock.
    free_image_finish => 120,
    volume_import_abort => 120,
    volume_export_prepare => 60,
    volume_export_finish => 30,
    volume_import_finish => 30,
    activate_volume => 60,
    deactivate_volume => 30,
    # The guest stands still meanwhile, with its file systems frozen or its memory being saved.
    volume_snapshot => 20,
    # Where PVE sets no limit and the array finishes what it began, whoever still waits: an answer
    # that comes too early leaves a guest locked and its configuration behind the disk. One write on
    # the array takes 150 s at most (a reload that TrueNAS gives up after 120 s), a login 15 s.
    volume_snapshot_rollback => 180,
    volume_snapshot_delete => 180,
    volume_resize => 180,
    volume_rollback_is_possible => 20,
    volume_snapshot_info => 20,
    get_volume_attribute => 10,
    update_volume_attribute => 20,
);
my %LOCKED = map { $_ => 1 }
    qw(alloc_image free_image clone_image create_base rename_volume volume_import_prepare);

# pvestatd asks these every 10 s, in the loop that looks after all storages of the node: they are the
# daemon's alone, and never start the binary.
my %DAEMONS = map { $_ => 1 } qw(check_connection activate_storage deactivate_storage status);

# What becomes of a request that the daemon has taken, when its answer is lost: of all others the same
# is asked again, from the binary. The daemon knows when we have left, and finds in its journal what it
# was at. The table is that of src/daemon/methods.ts, and a test holds the two together.
our %AFTERWARDS = (
    (map { $_ => 'what it made is taken back' } qw(
        alloc_image clone_image create_base rename_volume volume_import_prepare volume_snapshot
    )),
    (map { $_ => 'what it began is finished' } qw(
        free_image volume_resize volume_snapshot_rollback
    )),
);

# Seconds until the daemon has said that it has taken a request, which it does at once if it works.
our $TAKE = 5;

# The binary ends by itself at its deadline; it is killed this many seconds later.
our $GRACE = 3;
# Seconds of the caller's alarm that we leave to the caller.
my $RESERVE = 5;

our $MAX_REPLY = 64 * 1024 * 1024;
my $MAX_WARNINGS = 100;
my $MAX_MESSAGE = 2000;
my $MAX_STATE = 4096;

# Bytes that are copied at once, bytes that are skipped at once where they are zeros, and bytes
# after which an import is made durable, so that a full array is noticed early.
my $CHUNK = 1 << 20;
my $HOLE = 1 << 16;
our $SYNC_EVERY = 1 << 30;

my $TOO_OLD = 'this processor (or the virtual CPU type kvm64/qemu64) is too old:'
    . ' choose x86-64-v2 or host';

# vol-vm-100-disk-0-lun5, vol-base-100-disk-0-ns3f0e...: the zvol, and how the array exports it. The
# grammar is that of src/pve/volume_name.ts; a test holds both against one list of names.
my $VMID = qr/[1-9][0-9]{0,8}/;
my $TAIL = qr/[A-Za-z0-9][A-Za-z0-9:_.-]{0,60}/;
my $UUID = qr/[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}/;
my $LUN = qr/(?:0|[1-9][0-9]{0,3}|1[0-5][0-9]{3}|16[0-2][0-9]{2}|163[0-7][0-9]|1638[0-2])/;
my $EXPORT = qr/(?:lun$LUN|ns$UUID)/;
my $BASE = qr/vol-base-$VMID-$TAIL-$EXPORT/;
my $DISK = qr/vol-(?:vm|base)-$VMID-$TAIL-$EXPORT/;
my $CLOUDINIT = qr/vm-$VMID-cloudinit/;
my $VOLNAME = qr/(?:$BASE\/)?(?:$DISK|$CLOUDINIT)/;
my $STOREID = qr/[A-Za-z][A-Za-z0-9_.-]*[A-Za-z0-9]/;
my $NOTES = qr/[^\0]*/s;
my $PLAIN = qr/[^"\\\x00-\x1f]*+/;
my $NOTES_JSON = qr/"$PLAIN(?:\\(?:["\\\/bfnrt]|u[0-9a-f]{4})$PLAIN)*+"/;
my $SNAPNAME = qr/[A-Za-z0-9_][A-Za-z0-9_:. -]{0,254}/;

my @SECRETS = qw(
    tnb-api-key tnb-chap-password tnb-chap-peer-password tnb-dhchap-secret tnb-dhchap-ctrl-secret
);

# JSON may bring a fast back-end; JSON::PP always comes with Perl.
my $JSON = do {
    local ($@, $SIG{__DIE__});
    my $class = eval { require JSON; 1 } ? 'JSON' : 'JSON::PP';
    require JSON::PP if $class eq 'JSON::PP';
    $class->new->utf8->canonical;
};

# Without this PVE takes the storage for one that each node has for itself.
push @PVE::Storage::Plugin::SHARED_STORAGE, 'tnblock'
    if !grep { $_ eq 'tnblock' } @PVE::Storage::Plugin::SHARED_STORAGE;

# ---- Registration ------------------------------------------------------------------------------

# Never above the host's version: PVE then skips the plugin, and forgets its storages at the next
# change of any storage.
sub api {
    return max(OLDEST_API, min(PVE::Storage::APIVER(), NEWEST_API));
}

sub type { return 'tnblock' }

sub plugindata {
    return {
        content => [{ images => 1, rootdir => 1 }, { images => 1 }],
        format => [{ raw => 1 }, 'raw'],
        'sensitive-properties' => { map { $_ => 1 } @SECRETS },
    };
}

sub properties {
    my $text = sub { return { type => 'string', description => $_[0] } };
    my $flag = sub { return { type => 'boolean', description => $_[0], default => $_[1] } };
    my $number = sub {
        my ($description, $least, $most, %more) = @_;
        my $range = { minimum => $least, maximum => $most };
        return { type => 'integer', description => $description, %$range, %more };
    };
    my $choice = sub {
        my ($description, $default, @values) = @_;
        my $enum = { enum => [@values], default => $default };
        return { type => 'string', description => $description, %$enum };
    };
    # The words are those of src/pve/options.ts, and a test holds the two together.
    return {
        'tnb-api-host' =>
            $text->('Host name or address of the TrueNAS API; up to two, separated by a comma.'),
        'tnb-api-port' =>
            $number->('Port of the TrueNAS API (default 443).', 1, 65535, default => 443),
        'tnb-api-user' => $text->('User that the API key belongs to.'),
        'tnb-api-key' => $text->('API key of the TrueNAS user.'),
        'tnb-api-transport' => $choice->(
            'How the API is spoken: ws, or rest (TrueNAS up to 25.10, iSCSI only, key of a full'
                . ' administrator; default ws).', 'ws', qw(ws rest),
        ),
        'tnb-tls-fingerprint' => $text->(
            'SHA-256 fingerprint of the certificate of TrueNAS; only this certificate is accepted'
                . ' then.',
        ),
        'tnb-tls-ca' => $text->(
            'PEM file with the certificate authority that signed the certificate of TrueNAS.',
        ),
        'tnb-api-retry-max' => $number->(
            'How often a read is tried again after a failure of the network (default 3).', 0, 10,
        ),
        'tnb-api-retry-delay' => $number->(
            'Seconds before the first such try, doubled each time (default 1).', 0.1, 60,
            type => 'number',
        ),
        'tnb-dataset' => $text->('Dataset below which the volumes are made.'),
        'tnb-zvol-blocksize' => $text->('Block size of new volumes (default 16K).'),
        'tnb-sparse' => $flag->('Make thin volumes (default 1).', 1),
        'tnb-compression' => $text->('ZFS compression of new volumes (default: as the dataset).'),
        'tnb-transport-mode' => $choice->(
            'How volumes reach the node (default iscsi).', 'iscsi', qw(iscsi nvme-tcp),
        ),
        'tnb-target-iqn' => $text->('IQN of the iSCSI target that carries the volumes.'),
        'tnb-discovery-portal' => $text->('First portal, ADDR[:PORT], IPv6 in brackets.'),
        'tnb-portals' => $text->('All portals, ADDR[:PORT] separated by commas.'),
        'tnb-use-multipath' =>
            $flag->('Use dm-multipath over all portals (iSCSI; default 1 with more than one portal).', 1),
        'tnb-chap-user' => $text->('CHAP user (iSCSI).'),
        'tnb-chap-password' => $text->('CHAP secret (iSCSI).'),
        'tnb-chap-peer-user' => $text->('User that the target must present (mutual CHAP).'),
        'tnb-chap-peer-password' =>
            $text->('Secret that the target must present (mutual CHAP).'),
        'tnb-subsystem-nqn' => $text->('NQN of the NVMe-oF subsystem that carries the volumes.'),
        'tnb-hostnqn' =>
            $text->("NQN that the array must know this node by (default: the node's own)."),
        'tnb-dhchap-secret' => $text->('DH-HMAC-CHAP key of the host (NVMe).'),
        'tnb-dhchap-ctrl-secret' =>
            $text->('DH-HMAC-CHAP key of the controller (NVMe, two-way).'),
        'tnb-nr-io-queues' => $number->(
            'I/O queues of each NVMe connection (default: one for each CPU).', 1, 256,
        ),
        'tnb-ctrl-loss-tmo' => $number->(
            'Seconds until a lost NVMe controller is given up; -1 never (default -1).', -1, 86400,
            default => -1,
        ),
        'tnb-reconnect-delay' =>
            $number->('Seconds between two tries to reconnect (NVMe).', 1, 3600),
        'tnb-keep-alive-tmo' => $number->('Keep-alive seconds (NVMe).', 1, 3600),
        'tnb-extent-blocksize' => $choice->(
            'Logical block size of new iSCSI extents (default 512).', '512', qw(512 4096),
        ),
        'tnb-force-free' =>
            $flag->('Free a volume although a guest elsewhere that names it runs or may run (default 0).', 0),
        'tnb-lock-timeout' => $number->(
            'Seconds to wait for the storage lock of PVE (default 120).', 10, 600, default => 120,
        ),
        'tnb-debug' =>
            $number->('How much is logged: 0 to 2 (default 0).', 0, 2, default => 0),
    };
}

# Every option is optional for ever: one section that lacks a required option hides all storages of
# the node. What is needed is checked by validate_storage, from the hooks below.
sub options {
    my ($class) = @_;
    my %options = map { $_ => { optional => 1 } } keys %{ $class->properties() };
    my @fixed =
        map { "tnb-$_" } qw(dataset extent-blocksize transport-mode target-iqn subsystem-nqn);
    $options{$_}->{fixed} = 1 for @fixed;

    # PVE's own come and go with its versions, and naming one that it lacks stops the node.
    my $known = $class->private()->{propertyList} // {};
    $options{$_} = { optional => 1 }
        for grep { $known->{$_} } qw(nodes disable content shared bwlimit);
    return \%options;
}

# ---- Adding, changing and removing a storage ---------------------------------------------------

sub on_add_hook {
    my ($class, $storeid, $scfg, %sensitive) = @_;
    _keep_secrets($storeid, \%sensitive, sub { _validate($storeid, $scfg) });
    return undef; # anything but undef or a hash makes PVE report a failure
}

# PVE 9: the section as it stands, and what changes.
sub on_update_hook_full {
    my ($class, $storeid, $scfg, $update, $delete, $sensitive) = @_;
    my %merged = (%$scfg, %{ $update // {} });
    delete @merged{ @{ $delete // [] } };
    _update($storeid, \%merged, [keys %{ $update // {} }, @{ $delete // [] }], $sensitive // {});
    return undef;
}

# PVE 8 hands over only what changes, and nothing of what is deleted.
sub on_update_hook {
    my ($class, $storeid, $update, %sensitive) = @_;
    my $current = eval { PVE::Storage::config()->{ids}->{$storeid} } // {};
    _update($storeid, { %$current, %$update }, [keys %$update], \%sensitive);
    return undef;
}

sub on_delete_hook {
    my ($class, $storeid, $scfg) = @_;
    my $file = _secrets_file($storeid);
    unlink($file) || $! == ENOENT || _die("Cannot remove \"$file\": $!");
    return undef;
}

# A change of PVE's own options alone (disable, nodes, content) must work with the array away.
sub _update {
    my ($storeid, $merged, $changed, $sensitive) = @_;
    return if !%$sensitive && !grep { /^tnb-/ } @$changed;
    _keep_secrets($storeid, $sensitive, sub { _validate($storeid, $merged) });
    return;
}

sub _validate {
    my ($storeid, $scfg) = @_;
    _request('validate_storage', $storeid, $scfg, {});
    return;
}

sub _secrets_file {
    my ($storeid) = @_;
    return "$SECRETS_DIR/" . _storeid($storeid) . '.tnblock';
}

# Merges the secrets into the storage's file, runs the check, and puts the file back if it fails.
sub _keep_secrets {
    my ($storeid, $sensitive, $check) = @_;
    my %given = map { $_ => $sensitive->{$_} } grep { exists $sensitive->{$_} } @SECRETS;
    return $check->() if !%given;

    my $file = _secrets_file($storeid);
    my $before = _read_file($file);
    my $secrets = eval { defined($before) ? $JSON->decode($before) : {} };
    _die("Cannot read \"$file\": it is not a JSON object") if ref($secrets) ne 'HASH';
    for my $name (keys %given) {
        defined($given{$name}) ? $secrets->{$name} = "$given{$name}" : delete $secrets->{$name};
    }
    mkdir($SECRETS_DIR, 0700); # where this fails, so does the write, and says why
    PVE::Tools::file_set_contents($file, $JSON->encode($secrets), 0600);

    return 1 if eval { $check->(); 1 };
    my $error = $@;
    eval {
        defined($before) ? PVE::Tools::file_set_contents($file, $before, 0600) : unlink($file);
        1;
    } or warn _one_line("Cannot put back \"$file\": $@") . "\n";
    die $error;
}

sub _read_file {
    my ($file) = @_;
    open(my $handle, '<', $file)
        or return $! == ENOENT ? undef : _die("Cannot read \"$file\": $!");
    local $/;
    return scalar(<$handle>) // '';
}

# ---- The storage -------------------------------------------------------------------------------

sub check_connection {
    my ($class, $storeid, $scfg) = @_;
    my ($reply, $id) = _exchange('check_connection', $storeid, $scfg, {});
    # Not known to be down, and PVE asks before everything: the start of a guest is not to end here.
    return 1 if !defined($reply);
    # A failure dies: PVE shows that one line, and takes the storage as inactive.
    return _result('check_connection', $reply, $id) ? 1 : 0;
}

sub activate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    # Without a daemon each disk connects what it needs when it is activated.
    my ($reply, $id) = _exchange('activate_storage', $storeid, $scfg, {});
    _result('activate_storage', $reply, $id) if defined($reply);
    return 1;
}

sub deactivate_storage {
    my ($class, $storeid, $scfg, $cache) = @_;
    my ($reply, $id) = _exchange('deactivate_storage', $storeid, $scfg, {});
    _result('deactivate_storage', $reply, $id) if defined($reply);
    return 1;
}

sub status {
    my ($class, $storeid, $scfg, $cache) = @_;
    my @status = eval {
        my ($reply, $id, $why) = _exchange('status', $storeid, $scfg, {});
        _die("Cannot tell the status of storage \"$storeid\": $why") if !defined($reply);
        my $status = _hash('status', _result('status', $reply, $id));
        my @sizes = map { _int("status: $_", $status->{$_}) } qw(total available used);
        (@sizes, $status->{active} ? 1 : 0);
    };
    _warn_once($storeid, @status ? '' : $@);
    return @status;
}

my %warned;

# pvestatd asks every 10 s: each process says the same of a storage once.
sub _warn_once {
    my ($storeid, $text) = @_;
    warn $text if length($text) && ($warned{$storeid} // '') ne $text;
    $warned{$storeid} = $text;
    return;
}

# Two definitions with the same text mean the same place.
sub get_identity {
    my ($class, $scfg, $storeid) = @_;
    my @hosts = sort map { s/\A\[(.*)\]\z/$1/r } grep { length }
        split(/[\s,]+/, lc($scfg->{'tnb-api-host'} // ''));
    return join('/', 'tnblock:', join(',', @hosts), $scfg->{'tnb-dataset'} // '');
}

# Raises the time to get the lock, nothing else: PVE's 10 s are too short for many clones at once.
sub cluster_lock_storage {
    my ($class, $storeid, $shared, $timeout, $func, @param) = @_;
    my $wanted = eval { PVE::Storage::config()->{ids}->{$storeid}->{'tnb-lock-timeout'} } // 120;
    $timeout = max($timeout // 0, $wanted);
    return $class->SUPER::cluster_lock_storage($storeid, $shared, $timeout, $func, @param);
}

sub get_formats { return { default => 'raw', valid => { raw => 1 } } }

# The same for storage API 11.
sub default_format { return wantarray ? ('raw', ['raw']) : 'raw' }

sub storage_can_replicate { return 0 }

# ---- Names and paths ---------------------------------------------------------------------------

# Pure: PVE asks everywhere, also as www-data. `name` is the zvol's, so that the base of a linked
# clone compares equal to its template, whatever LUN or uuid either has.
sub parse_volname {
    my ($class, $volname) = @_;
    my $wrong = sub {
        _die('Cannot parse volume name "' . ($volname // '') . '": it is not one of tnblock');
    };
    $wrong->() if !defined($volname);

    # What an import stream calls a disk: PVE must be able to read it, but it is no volume of ours.
    return ('images', $1, $3 + 0, undef, undef, $2 eq 'base' ? 1 : 0, 'raw')
        if $volname =~ /\A((vm|base)-($VMID)-disk-[0-9]+)(?:\.raw)?\z/
        || $volname =~ /\A((vm)-($VMID)-state-[A-Za-z0-9:_.-]{1,54}?)(?:\.raw)?\z/;

    $wrong->() if $volname !~ /\A$VOLNAME\z/;
    my ($base, $basevmid) = $volname =~ /\Avol-(base-($VMID)-$TAIL)-$EXPORT\//;
    # Cloud-init disks carry no number: PVE knows them by their whole name.
    my ($name, $kind, $vmid) = $volname =~ /(?:\A|\/)((vm)-($VMID)-cloudinit)\z/;
    ($name, $kind, $vmid) = $volname =~ /(?:\A|\/)vol-((vm|base)-($VMID)-$TAIL)-$EXPORT\z/
        if !defined($name);
    return (
        'images', $name, $vmid + 0, $base, defined($basevmid) ? $basevmid + 0 : undef,
        $kind eq 'base' ? 1 : 0, 'raw',
    );
}

# Pure as well, and for inactive volumes too: the name of a link that activate_volume makes once it
# has verified the disk.
sub path {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    my ($vtype, $name, $vmid) = $class->parse_volname($volname);
    _die("Cannot find the path of \"$volname\": it does not say how the array exports it")
        if $volname !~ /\A$VOLNAME\z/;
    $storeid = defined($storeid) ? _storeid($storeid) : _find_storeid($scfg);
    my $path = "/dev/tnblock/$storeid/$name";
    $path .= '@' . _snapname($snapname) if defined($snapname);
    return wantarray ? ($path, $vmid, $vtype) : $path;
}

sub filesystem_path {
    my ($class, $scfg, $volname, $snapname) = @_;
    return $class->path($scfg, $volname, undef, $snapname);
}

sub map_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    return $class->_block_device($scfg, $volname, $storeid, $snapname);
}

sub qemu_blockdev_options {
    my ($class, $scfg, $storeid, $volname, $machine_version, $options) = @_;
    my $snapname = ($options // {})->{'snapshot-name'};
    my $path = $class->_block_device($scfg, $volname, $storeid, $snapname);
    return { driver => 'host_device', filename => $path };
}

# Whoever opens a missing path might create a plain file there, and fill it with a guest's data.
sub _block_device {
    my ($class, $scfg, $volname, $storeid, $snapname) = @_;
    my $path = $class->path($scfg, $volname, $storeid, $snapname);
    return "$ROOT$path" if _is_block("$ROOT$path");
    return _die("Cannot use volume \"$volname\": \"$path\" is not a block device; is it active?");
}

sub _is_block {
    my ($path) = @_;
    return length($ROOT) ? -b $path || -f _ : -b $path;
}

# Some calls lack the storage's name. It is the section we were handed, or the one of that dataset.
sub _find_storeid {
    my ($scfg) = @_;
    my $ids = eval { PVE::Storage::config()->{ids} } // {};
    my @same = grep { $ids->{$_} == $scfg } grep { ref($ids->{$_}) } sort keys %$ids;
    my $key = sub { join(' ', map { $_[0]->{$_} // '' } qw(type tnb-api-host tnb-dataset)) };
    @same = grep { ref($ids->{$_}) && $key->($ids->{$_}) eq $key->($scfg) } sort keys %$ids
        if !@same;
    _die('Cannot find the path of a volume: PVE did not say of which storage it is') if @same != 1;
    return _storeid($same[0]);
}

# ---- Volumes -----------------------------------------------------------------------------------

# Dies when the array is away: an empty list would read as "free to use".
sub list_images {
    my ($class, $storeid, $scfg, $vmid, $vollist, $cache) = @_;
    $storeid = _storeid($storeid);
    my $args = {};
    $args->{vmid} = _int('vmid', $vmid) if defined($vmid);
    $args->{volids} = [map { "$_" } @$vollist] if defined($vollist);
    my ($reply, $id) = _exchange('list_images', $storeid, $scfg, $args);
    my $rows = _plain_rows($reply, $id, $storeid);
    return $rows if $rows;

    $rows = _result('list_images', $reply, $id);
    _wrong('list_images', 'a list') if ref($rows) ne 'ARRAY';
    return [map { _row($storeid, _hash('list_images', $_)) } @$rows];
}

sub _row {
    my ($storeid, $from) = @_;
    my $row = {
        volid => _match('volid', $from->{volid}, qr/\Q$storeid\E:$VOLNAME/),
        format => _match('format', $from->{format}, qr/raw/),
        size => _int('size', $from->{size}),
    };
    for my $name (qw(vmid ctime used)) {
        $row->{$name} = _int($name, $from->{$name}) if defined($from->{$name});
    }
    $row->{parent} = _match('parent', $from->{parent}, qr/[A-Za-z0-9_:.\/@-]+/)
        if defined($from->{parent});
    $row->{notes} = _match('notes', $from->{notes}, $NOTES) if defined($from->{notes});
    $row->{protected} = 1 if $from->{protected};
    return $row;
}

# Ten thousand rows take JSON::PP seconds. A reply written just as we expect it is read by one
# pattern, which checks at the same time; any other (undef here) goes the long way.
sub _plain_rows {
    my ($reply, $id, $storeid) = @_;
    my @rows;
    $reply =~ /\A\{"id":"\Q$id\E","ok":true,"result":\[/gc or return undef;
    while (
        $reply =~ /\G\{"volid":"(\Q$storeid\E:$VOLNAME)","size":([0-9]{1,18}),"format":"raw"
            (?:,"vmid":([0-9]{1,9}))?(?:,"ctime":([0-9]{1,12}))?
            (?:,"parent":"([A-Za-z0-9_:.\/@-]+)")?
            (?:,"notes":($NOTES_JSON))?
            (?:,"protected":(?:(true|1)|false|0))?\}(?:,(?=\{)|(?=\]))/xgc
    ) {
        my $row = { volid => $1, size => $2 + 0, format => 'raw' };
        $row->{vmid} = $3 + 0 if defined($3);
        $row->{ctime} = $4 + 0 if defined($4);
        $row->{parent} = $5 if defined($5);
        if (defined($6)) {
            $row->{notes} = _notes($6) // return undef;
        }
        $row->{protected} = 1 if defined($7);
        push @rows, $row;
    }
    return $reply =~ /\G\]\}\s*\z/gc ? \@rows : undef;
}

# The text behind a JSON string.
sub _notes {
    my ($json) = @_;
    return substr($json, 1, -1) if $json !~ /[^\x20-\x7e]|\\/;
    my $decoded = eval { $JSON->decode("[$json]") };
    return ref($decoded) eq 'ARRAY' ? ($decoded->[0] =~ /\A($NOTES)\z/)[0] : undef;
}

# One request for both kinds; PVE tells a container's disk by whose it is.
sub list_volumes {
    my ($class, $storeid, $scfg, $vmid, $content_types) = @_;
    my %wanted = map { $_ => 1 } @{ $content_types // [] };
    return [] if !$wanted{images} && !$wanted{rootdir};
    my $guests = PVE::Cluster::get_vmlist()->{ids} // {};
    my @found;
    for my $row (@{ $class->list_images($storeid, $scfg, $vmid) }) {
        my $guest = defined($row->{vmid}) ? $guests->{ $row->{vmid} } : undef;
        $row->{content} = $guest && ($guest->{type} // '') eq 'lxc' ? 'rootdir' : 'images';
        push @found, $row if $wanted{ $row->{content} };
    }
    return \@found;
}

sub volume_size_info {
    my ($class, $scfg, $storeid, $volname, $timeout) = @_;
    my $seconds = max($DEADLINE{volume_size_info}, $timeout // 0);
    my $info = _request('volume_size_info', $storeid, $scfg, { _volume($volname) }, $seconds);
    $info = _hash('volume_size_info', $info);
    my $size = _int('size', $info->{size});
    return $size if !wantarray;
    my $format = _match('format', $info->{format}, qr/raw/);
    my ($used, $ctime) =
        map { defined($info->{$_}) ? _int($_, $info->{$_}) : undef } qw(used ctime);
    my $parent = defined($info->{parent})
        ? _match('parent', $info->{parent}, qr/[A-Za-z0-9_:.\/@-]+/)
        : undef;
    return ($size, $format, $used, $parent, $ctime);
}

sub alloc_image {
    my ($class, $storeid, $scfg, $vmid, $format, $name, $size_kib) = @_;
    $format = 'raw' if !defined($format);
    _die("Cannot allocate a volume on storage \"$storeid\": format \"$format\" is not raw")
        if $format ne 'raw';
    my $args = { vmid => _int('vmid', $vmid), format => $format, sizeKiB => $size_kib + 0 };
    $args->{name} = "$name" if defined($name) && length($name);
    return $class->_new_volname('alloc_image', $storeid, $scfg, $args, $vmid);
}

# Inside the storage lock: refuses what must not be freed, and lets go of the disk on this node. The
# returned code takes export and data away; PVE runs it in a task of its own, after the lock.
sub free_image {
    my ($class, $storeid, $scfg, $volname, $is_base, $format) = @_;
    my $args = { _volume($volname), isBase => $is_base ? \1 : \0 };
    my $result = _request('free_image', $storeid, $scfg, $args);
    return undef if !defined($result);
    my $token = _match('token', _hash('free_image', $result)->{token}, qr/[\x21-\x7e]{1,4096}/);
    return sub {
        _request('free_image_finish', $storeid, $scfg, { token => $token });
        return;
    };
}

sub clone_image {
    my ($class, $scfg, $storeid, $volname, $vmid, $snapname) = @_;
    my $args = { _volume($volname, $snapname), vmid => _int('vmid', $vmid) };
    return $class->_new_volname('clone_image', $storeid, $scfg, $args, $vmid);
}

sub create_base {
    my ($class, $storeid, $scfg, $volname) = @_;
    my $vmid = ($class->parse_volname($volname))[2];
    return $class->_new_volname('create_base', $storeid, $scfg, { _volume($volname) }, $vmid);
}

sub rename_volume {
    my ($class, $scfg, $storeid, $volname, $vmid, $name) = @_;
    my $args = { _volume($volname) };
    # With a name alone PVE hands over a word that is no vmid.
    $args->{targetVmid} = _int('vmid', $vmid) if ($vmid // '') =~ /\A$VMID\z/;
    $args->{targetName} = "$name" if defined($name) && length($name);
    my $new = $class->_new_volname('rename_volume', $storeid, $scfg, $args, $args->{targetVmid});
    return _storeid($storeid) . ":$new";
}

# A made volume must be one that the guest owns: PVE writes the name into its configuration unseen.
sub _new_volname {
    my ($class, $method, $storeid, $scfg, $args, $vmid) = @_;
    my $volname = _match($method, _request($method, $storeid, $scfg, $args), $VOLNAME);
    $class->_check_owner($method, $volname, $vmid) if defined($vmid);
    return $volname;
}

sub _check_owner {
    my ($class, $method, $volname, $vmid) = @_;
    my $owner = ($class->parse_volname($volname))[2];
    _wrong($method, "a volume of guest $vmid") if !defined($owner) || $owner != $vmid;
    return;
}

sub volume_resize {
    my ($class, $scfg, $storeid, $volname, $size, $running, $snapname) = @_;
    _die("Cannot resize a snapshot of volume \"$volname\": its size never changes")
        if defined($snapname);
    my $args = { _volume($volname), size => _int('size', $size) };
    _request('volume_resize', $storeid, $scfg, { %$args, running => $running ? \1 : \0 });
    return undef;
}

sub activate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    _request('activate_volume', $storeid, $scfg, { _volume($volname, $snapname) });
    return 1;
}

sub deactivate_volume {
    my ($class, $storeid, $scfg, $volname, $snapname) = @_;
    _request('deactivate_volume', $storeid, $scfg, { _volume($volname, $snapname) });
    return 1;
}

sub volume_has_feature {
    my ($class, $scfg, $feature, $storeid, $volname, $snapname, $running, $opts) = @_;
    my $formats = ($opts // {})->{valid_target_formats};
    return 0 if $feature =~ /\A(?:clone|copy)\z/ && $formats && !grep { $_ eq 'raw' } @$formats;
    my $is_base = ($class->parse_volname($volname))[5];
    my $about = $snapname ? 'snap' : $is_base ? 'base' : 'current';
    return undef if !$FEATURES{$feature} || !$FEATURES{$feature}->{$about};
    return _array_can($storeid, "$feature-$about") ? 1 : undef;
}

# Whether the array does this for the storage's key. The binary wrote down, after a login, what the
# release lacks or the key may not do; as long as nothing is written there, all is promised.
sub _array_can {
    my ($storeid, $what) = @_;
    return 1 if ($storeid // '') !~ /\A($STOREID)\z/;
    open(my $handle, '<', "$STATE_DIR/$1.features") or return 1;
    sysread($handle, my $text, $MAX_STATE) or return 1;
    my $noted = eval { $JSON->decode($text) };
    my $without = ref($noted) eq 'HASH' ? $noted->{without} : undef;
    return 1 if ref($without) ne 'ARRAY';
    return !grep { defined($_) && !ref($_) && $_ eq $what } @$without;
}

sub get_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute) = @_;
    return undef if !$ATTRIBUTES{$attribute};
    my $args = { _volume($volname), attribute => $attribute };
    my $value = _request('get_volume_attribute', $storeid, $scfg, $args);
    return undef if !defined($value);
    return $attribute eq 'protected' ? ($value ? 1 : 0) : _match($attribute, $value, $NOTES);
}

sub update_volume_attribute {
    my ($class, $scfg, $storeid, $volname, $attribute, $value) = @_;
    _die("Cannot set \"$attribute\" of volume \"$volname\": this storage does not keep it")
        if !$ATTRIBUTES{$attribute};
    my $args = { _volume($volname), attribute => $attribute, value => $value };
    _request('update_volume_attribute', $storeid, $scfg, $args);
    return undef;
}

# ---- Snapshots ---------------------------------------------------------------------------------

# The array takes the snapshot of the live disk; QEMU has nothing to do.
sub volume_qemu_snapshot_method { return 'storage' }

# A container's page cache lies on this node, out of the array's sight.
sub volume_snapshot_needs_fsfreeze { return 1 }

sub volume_snapshot {
    my ($class, $scfg, $storeid, $volname, $snapname) = @_;
    _request('volume_snapshot', $storeid, $scfg, { _volume($volname, $snapname) });
    return undef;
}

sub volume_snapshot_rollback {
    my ($class, $scfg, $storeid, $volname, $snapname) = @_;
    _request('volume_snapshot_rollback', $storeid, $scfg, { _volume($volname, $snapname) });
    return undef;
}

sub volume_snapshot_delete {
    my ($class, $scfg, $storeid, $volname, $snapname, $running) = @_;
    _request('volume_snapshot_delete', $storeid, $scfg, { _volume($volname, $snapname) });
    return undef;
}

sub volume_rollback_is_possible {
    my ($class, $scfg, $storeid, $volname, $snapname, $blockers) = @_;
    my $method = 'volume_rollback_is_possible';
    my $args = { _volume($volname, $snapname) };
    my $answer = _hash($method, _request($method, $storeid, $scfg, $args));
    return 1 if $answer->{possible};
    my $names = $answer->{blockers} // [];
    _wrong($method, 'a list of blockers') if ref($names) ne 'ARRAY';
    my @names = map { _match('blocker', $_, $SNAPNAME) } @$names;
    push @$blockers, @names if $blockers;
    # The binary's own words tell the clones on each, too.
    my $why = ref($answer->{reason}) ? undef : $answer->{reason};
    $why //= @names ? 'newer snapshots exist: ' . join(', ', @names) : 'the array does not allow it';
    _die("Cannot roll back volume \"$volname\" to snapshot \"$snapname\": $why");
}

sub volume_snapshot_info {
    my ($class, $scfg, $storeid, $volname) = @_;
    my $method = 'volume_snapshot_info';
    my $from = _hash($method, _request($method, $storeid, $scfg, { _volume($volname) }));
    my %info;
    for my $key (keys %$from) {
        my $entry = _hash($method, $from->{$key});
        $info{ _match('snapshot', $key, $SNAPNAME) } = {
            id => _match('id', $entry->{id}, qr/[\x21-\x7e]{1,256}/),
            timestamp => _int('timestamp', $entry->{timestamp}),
        };
    }
    return \%info;
}

sub rename_snapshot {
    my ($class, $scfg, $storeid, $volname) = @_;
    _die("Cannot rename a snapshot of volume \"$volname\": this storage does not support it");
}

# ---- Export and import -------------------------------------------------------------------------

# One format: the size in eight bytes, little-endian, then that many bytes. Of a snapshot, of what
# changed since one, or of a volume with its snapshots there is no stream.
sub volume_export_formats {
    my ($class, $scfg, $storeid, $volname, $snapname, $base_snapname, $with_snapshots) = @_;
    return () if defined($snapname) || defined($base_snapname) || $with_snapshots;
    return ('raw+size');
}

# Here the name is that of the snapshot that a stream was read from: it is a plain disk for us.
sub volume_import_formats {
    my ($class, $scfg, $storeid, $volname, $snapname, $base_snapname, $with_snapshots) = @_;
    return () if defined($base_snapname) || $with_snapshots;
    return ('raw+size');
}

# The handle is PVE's, and often its STDOUT: nothing but the stream is written there.
sub volume_export {
    my ($class, $scfg, $storeid, $handle, $volname, $format, @about_snapshots) = @_;
    my $doing = "Cannot export volume \"$volname\"";
    _die("$doing: format \"$format\" is not raw+size") if $format ne 'raw+size';
    _die("$doing: snapshots are not exported")
        if !$class->volume_export_formats($scfg, $storeid, $volname, @about_snapshots);
    _noting_signals($doing, sub {
        my ($check) = @_;
        my $method = 'volume_export_prepare';
        my $answer = _hash($method, _request($method, $storeid, $scfg, { _volume($volname) }));
        my $done = eval {
            my $size = _int('size', $answer->{size});
            my $device = $class->_open_disk($scfg, $storeid, $volname, $answer->{path}, '<');
            _export_bytes($doing, $device, $handle, $size, $check);
            1;
        };
        my $error = $@;
        # PVE has activated it; what somebody uses by now stays.
        eval { _request('volume_export_finish', $storeid, $scfg, { _volume($volname) }); 1 }
            or warn $@;
        die $error if !$done;
    });
    return;
}

# Makes a volume of a stream, and returns its volid. What fails, or is told to end, leaves nothing.
sub volume_import {
    my (
        $class, $scfg, $storeid, $handle, $volname, $format, $snapname, $base_snapname,
        $with_snapshots, $allow_rename,
    ) = @_;
    my $doing = "Cannot import volume \"$volname\"";
    _die("$doing: format \"$format\" is not raw+size") if $format ne 'raw+size';
    _die("$doing: it is no stream of a whole disk")
        if !$class->volume_import_formats(
            $scfg, $storeid, $volname, $snapname, $base_snapname, $with_snapshots,
        );
    my ($name, $vmid, $is_base) = ($class->parse_volname($volname))[1, 2, 5];
    # It would be listed as a template that no clone can be made of.
    _die("$doing: a template is made by PVE of a disk, not imported") if $is_base;
    $storeid = _storeid($storeid);

    return _noting_signals($doing, sub {
        my ($check) = @_;
        my $size = unpack('Q<', _read_fully($doing, $handle, 8, $check));
        _die("$doing: the stream says that it holds $size bytes")
            if $size < 1 || $size > 1 << 53;
        my $args = { vmid => $vmid, name => $name, size => $size };
        # The lock that PVE takes for alloc_image is nobody's here.
        my $answer = $class->cluster_lock_storage(
            $storeid, $scfg->{shared}, undef,
            sub { return _prepare_import($storeid, $scfg, $args, $allow_rename) },
        );
        my $made = _match('volname', $answer->{volname}, $VOLNAME);
        # What is another guest's is not taken back either.
        $class->_check_owner('volume_import_prepare', $made, $vmid);
        my $done = eval {
            my $device = $class->_open_disk($scfg, $storeid, $made, $answer->{path}, '+<');
            _import_bytes($doing, $handle, $device, $size, $check);
            close($device) or _die("$doing: the disk cannot be closed: $!");
            $check->();
            1;
        };
        my $error = $@;
        if (!$done) {
            eval { _request('volume_import_abort', $storeid, $scfg, { volname => $made }); 1 }
                or warn _one_line("Volume \"$made\" of this failed import is left: $@") . "\n";
            die $error;
        }
        # It is whole; that this node still holds it does not change that.
        eval { _request('volume_import_finish', $storeid, $scfg, { volname => $made }); 1 }
            or warn $@;
        return "$storeid:$made";
    });
}

# Makes the volume; a name that is taken is another one's disk.
sub _prepare_import {
    my ($storeid, $scfg, $args, $allow_rename) = @_;
    my $method = 'volume_import_prepare';
    my ($reply, $id) = _exchange($method, $storeid, $scfg, $args);
    if ($allow_rename && _error_code($reply) =~ /\A(?:exists|not-ours)\z/) {
        warn "tnblock: \"$args->{name}\" exists already, the disk gets another name\n";
        ($reply, $id) = _exchange($method, $storeid, $scfg, { %$args, name => undef });
    }
    return _hash($method, _result($method, $reply, $id));
}

sub _error_code {
    my ($reply) = @_;
    my $answer = eval { $JSON->decode($reply) };
    my $error = ref($answer) eq 'HASH' ? $answer->{error} : undef;
    my $code = ref($error) eq 'HASH' ? $error->{code} : undef;
    return $code // '';
}

# Opens a disk that the binary has made ready; its path must be the one that the name says.
sub _open_disk {
    my ($class, $scfg, $storeid, $volname, $path, $mode) = @_;
    my $own = $class->path($scfg, $volname, $storeid);
    _wrong('path', "\"$own\"") if !defined($path) || $path ne $own;
    my $file = $class->_block_device($scfg, $volname, $storeid);
    # Neither mode makes a file where there is none.
    open(my $device, "$mode:raw", $file)
        or _die("Cannot open volume \"$volname\" at \"$own\": $!");
    return $device;
}

# Runs code in which a signal to end is only noted, so that it cannot leave a half-done request: the
# code asks the function that it is given wherever it may stop. A reader that is gone is an error.
sub _noting_signals {
    my ($doing, $code) = @_;
    my $signal;
    my @names = grep { ($SIG{$_} // '') ne 'IGNORE' } qw(HUP INT QUIT TERM);
    local @SIG{@names} = (sub { $signal //= $_[0] }) x @names;
    local $SIG{PIPE} = 'IGNORE';
    return $code->(sub { _die("$doing: stopped by SIG$signal") if defined($signal) });
}

sub _export_bytes {
    my ($doing, $device, $handle, $size, $check) = @_;
    _write_fully($doing, $handle, pack('Q<', $size), $check);
    for (my $at = 0; $at < $size;) {
        my $data = _read_fully($doing, $device, min($CHUNK, $size - $at), $check);
        _write_fully($doing, $handle, $data, $check);
        $at += length($data);
    }
    return;
}

# Writes exactly so many bytes to a new disk. A new disk reads as zeros: where the stream has
# nothing else, nothing is written.
sub _import_bytes {
    my ($doing, $handle, $device, $size, $check) = @_;
    my $unsynced = 0;
    for (my $at = 0; $at < $size;) {
        my $data = _read_fully($doing, $handle, min($CHUNK, $size - $at), $check);
        for my $piece (_pieces($data)) {
            my ($from, $length) = @$piece;
            defined(sysseek($device, $at + $from, 0)) or _die("$doing: the disk cannot seek: $!");
            _write_fully($doing, $device, substr($data, $from, $length), $check);
            $unsynced += $length;
        }
        $at += length($data);
        next if $unsynced < $SYNC_EVERY && $at < $size;
        $device->sync() or _die("$doing: the disk did not take the data: $!");
        $unsynced = 0;
    }
    my $more = _read_some($doing, $handle, 1, $check);
    _die("$doing: the stream is longer than the $size bytes it announced") if length($more);
    return;
}

# Where data is not zeros: pairs of offset and length.
sub _pieces {
    my ($data) = @_;
    my $zeros = "\0" x $HOLE;
    my @pieces;
    for (my $at = 0; $at < length($data); $at += $HOLE) {
        my $part = substr($data, $at, $HOLE);
        next if $part eq (length($part) == $HOLE ? $zeros : "\0" x length($part));
        if (@pieces && $pieces[-1]->[0] + $pieces[-1]->[1] == $at) {
            $pieces[-1]->[1] += length($part);
        } else {
            push @pieces, [$at, length($part)];
        }
    }
    return @pieces;
}

# Exactly so many bytes.
sub _read_fully {
    my ($doing, $handle, $length, $check) = @_;
    my $data = '';
    while (length($data) < $length) {
        my $some = _read_some($doing, $handle, $length - length($data), $check);
        _die("$doing: the data end too early") if !length($some);
        $data .= $some;
    }
    return $data;
}

# At least one byte, or none at the end.
sub _read_some {
    my ($doing, $handle, $length, $check) = @_;
    while (1) {
        $check->();
        # A signal between the check and the read would else wait for the next byte.
        next if !_await($handle, 0);
        my $read = sysread($handle, my $data, $length);
        return $data if defined($read);
        _die("$doing: the data cannot be read: $!") if !_again();
    }
}

sub _write_fully {
    my ($doing, $handle, $data, $check) = @_;
    for (my $at = 0; $at < length($data);) {
        $check->();
        next if !_await($handle, 1);
        my $written = syswrite($handle, $data, length($data) - $at, $at);
        _die("$doing: the data cannot be written: $!") if !defined($written) && !_again();
        $at += $written // 0;
    }
    return;
}

# Waits at most a second until the handle can be read or written; true when it can.
sub _await {
    my ($handle, $for_writing) = @_;
    my $bits = '';
    vec($bits, fileno($handle), 1) = 1;
    my $found = $for_writing
        ? select(undef, $bits, undef, 1)
        : select($bits, undef, undef, 1);
    return $found > 0;
}

# ---- Checking values ---------------------------------------------------------------------------

# One line of printable ASCII: PVE shows it in the task log and sends it as an HTTP reason.
sub _one_line {
    my ($text) = @_;
    $text =~ s/\s+/ /g;
    $text =~ s/[^\x20-\x7e]/?/g;
    $text =~ s/\A +| +\z//g;
    return length($text) > $MAX_MESSAGE ? substr($text, 0, $MAX_MESSAGE) . ' ...' : $text;
}

sub _die {
    my ($text) = @_;
    die _one_line($text) . "\n";
}

sub _wrong {
    my ($what, $expected) = @_;
    _die("Cannot use the answer of tnblock: \"$what\" is not $expected");
}

# The text, laundered, if all of it matches.
sub _match {
    my ($what, $value, $pattern) = @_;
    return $1 if defined($value) && !ref($value) && $value =~ /\A($pattern)\z/;
    return _wrong($what, 'what was agreed');
}

# A Perl integer, so that JSON shows a number and not a text.
sub _int {
    my ($what, $value) = @_;
    return $1 + 0 if defined($value) && !ref($value) && $value =~ /\A(-?[0-9]{1,18})\z/;
    return _wrong($what, 'a whole number');
}

sub _hash {
    my ($what, $value) = @_;
    return ref($value) eq 'HASH' ? $value : _wrong($what, 'an object');
}

sub _storeid {
    my ($storeid) = @_;
    return $1 if ($storeid // '') =~ /\A($STOREID)\z/;
    return _die('Cannot use storage "' . ($storeid // '') . '": that is no storage name');
}

sub _snapname {
    my ($snapname) = @_;
    return $1 if $snapname =~ /\A($SNAPNAME)\z/;
    return _die("Cannot use snapshot \"$snapname\": that is no snapshot name");
}

# The arguments that name a volume, or one of its snapshots.
sub _volume {
    my ($volname, $snapname) = @_;
    return (volname => "$volname", defined($snapname) ? (snapshot => _snapname($snapname)) : ());
}

# ---- Requests ----------------------------------------------------------------------------------

# Does one method and returns its result, as it came: the caller checks each value.
sub _request {
    my ($method, $storeid, $scfg, $args, $seconds) = @_;
    return _result($method, _exchange($method, $storeid, $scfg, $args, $seconds));
}

my $requests = 0;

# Sends one request and returns the line that answers it, and the id it must carry. For what is the
# daemon's alone the line is undef when there is none to be had, and the third value says why.
sub _exchange {
    my ($method, $storeid, $scfg, $args, $seconds) = @_;
    ($seconds, my $grace) = _time_allowed($method, $storeid, $seconds);
    my $end = _now() + $seconds;
    my $id = sprintf('%x-%x-%x', $$, Time::HiRes::time() * 1000, ++$requests);
    # PVE keeps the secrets out of the section already.
    my %config = (%$scfg, type => 'tnblock');
    delete @config{@SECRETS};
    my $request = {
        protocol => 1,
        id => $id,
        method => $method,
        storage => "$storeid",
        config => \%config,
        args => $args,
        deadlineMs => int($seconds * 1000),
        node => PVE::INotify::nodename(),
        pveApi => PVE::Storage::APIVER() + 0,
    };
    my $line = $JSON->encode($request) . "\n";
    my $doing = "$method on storage \"$storeid\"";
    my ($fate, $said) = _ask_daemon($line, $id, $seconds, $seconds + $grace);
    return ($said, $id) if $fate eq 'answered';
    _die("Cannot do $doing: $said") if $fate eq 'refused';
    return (undef, $id, $said) if $DAEMONS{$method};

    if ($fate eq 'lost' || $fate eq 'late') {
        my $then = $AFTERWARDS{$method};
        _die("Cannot finish $doing: $said; $then, see journalctl -u tnblock") if $then;
        _die("Cannot do $doing: $said") if $fate eq 'late';
    }
    if ($fate ne 'absent') {
        $seconds = $end - _now();
        _die("Cannot do $doing: $said, and no time is left to do it without") if $seconds < 1;
        $line = $JSON->encode({ %$request, deadlineMs => int($seconds * 1000) }) . "\n";
    }
    my ($reply, $error) = _run_hook($line, $seconds + $grace, $fate ne 'absent');
    _die("Cannot do $doing: $error") if defined($error);
    return ($reply, $id);
}

# Seconds for the binary, and seconds until it is killed after these. Both end before the alarm of
# the caller, which is only read: getitimer sees what alarm() set.
sub _time_allowed {
    my ($method, $storeid, $seconds) = @_;
    $seconds //= $DEADLINE{$method};
    my $alarm = Time::HiRes::getitimer(Time::HiRes::ITIMER_REAL());
    return ($seconds, $GRACE) if !$alarm;
    my $reserve = $LOCKED{$method} ? $RESERVE : min($RESERVE, $alarm / 2);
    _die("Cannot do $method on storage \"$storeid\": PVE leaves too little time, nothing was begun")
        if $alarm - $reserve < 1 && $LOCKED{$method};
    return (min($seconds, $alarm - $reserve), min($GRACE, $reserve * 0.6));
}

sub _result {
    my ($method, $reply, $id) = @_;
    my $answer = eval { $JSON->decode($reply) };
    _wrong($method, 'one line of JSON') if ref($answer) ne 'HASH';
    # What could not even be read is refused without an id.
    my $is_refused = !$answer->{ok} && !defined($answer->{id});
    _wrong($method, 'the answer to this request') if !$is_refused && ($answer->{id} // '') ne $id;
    return $answer->{result} if $answer->{ok};
    my $error = ref($answer->{error}) eq 'HASH' ? $answer->{error} : {};
    my $text = $error->{message} // "Cannot do $method: tnblock gave no reason";
    my $hint = _one_line($error->{hint} // '');
    $text = _one_line($text) . " ($hint)" if length($hint);
    return _die($text);
}

# ---- Asking the daemon -------------------------------------------------------------------------

# Asks the daemon, over a connection of its own. Returns what came of it, with the daemon's line or why
# there is none:
#   answered  the line is the answer to this request
#   refused   the socket is not to be trusted
#   absent    nobody serves the socket
#   untaken   it took nothing, and will not: it stands still, works to its limit, or is too old for this
#   lost      it took the request, and what came then is no answer
#   late      it took the request, and the time is over
sub _ask_daemon {
    my ($line, $id, $seconds, $limit) = @_;
    local $!;
    local $SIG{PIPE} = 'IGNORE';
    my $start = _now();
    my $take_until = $start + min($TAKE, $seconds / 2);
    while (1) {
        my ($fate, $said) = _converse($line, $take_until, $start + $limit);
        ($fate, $said) = _judge($said, $id) if $fate eq 'answered';
        return ($fate, $said) if $fate ne 'busy';
        return ('untaken', 'the tnblock daemon takes no request') if _now() >= $take_until;
        select(undef, undef, undef, 0.05 + rand(0.1));
    }
}

# One connection: sends the line, and reads one. It is answered by a blank as soon as it is taken. Until
# then the line lies in the kernel's queue, and whoever has closed before is not worked for.
sub _converse {
    my ($line, $take_until, $end) = @_;
    my ($mode, $owner) = (lstat($SOCKET))[2, 4];
    return ('absent', 'the tnblock daemon does not run') if !defined($mode);
    my $distrust = _distrust($mode, $owner);
    return ('refused', "\"$SOCKET\" $distrust") if defined($distrust);

    socket(my $handle, Socket::AF_UNIX(), Socket::SOCK_STREAM(), 0)
        or return ('absent', "the tnblock daemon cannot be reached: $!");
    $handle->blocking(0);
    if (!connect($handle, Socket::pack_sockaddr_un($SOCKET))) {
        # The queue is full.
        return ('busy') if _again();
        return ('absent', "the tnblock daemon does not run: $!");
    }

    my ($reply, $began) = ('', _now());
    while (1) {
        my $is_taken = length($reply);
        my $left = ($is_taken ? $end : min($take_until, $end)) - _now();
        if ($left <= 0) {
            return ('untaken', 'the tnblock daemon does not take the request') if !$is_taken;
            my $waited = sprintf('%.0f', _now() - $began);
            return ('late', "the tnblock daemon was at it, and gave no answer within $waited s");
        }
        my ($readable, $writable) = ('', '');
        vec($readable, fileno($handle), 1) = 1;
        vec($writable, fileno($handle), 1) = 1 if length($line);
        next if select($readable, $writable, undef, $left) < 0; # a signal; the deadline stands

        if (length($line) && vec($writable, fileno($handle), 1)) {
            my $written = syswrite($handle, $line);
            substr($line, 0, $written, '') if $written;
            # Who takes no more may have said why.
            $line = '' if !defined($written) && !_again();
        }
        next if !vec($readable, fileno($handle), 1);
        my $before = length($reply);
        my $read = sysread($handle, $reply, 1 << 20, $before);
        next if !defined($read) && _again();
        if (!$read) {
            # It ends, or was ended, and the next one may be there in a moment.
            return ('busy') if !$is_taken;
            return ('lost', 'the tnblock daemon was at it, and went away');
        }
        my $newline = index($reply, "\n", $before);
        if ($newline >= 0) {
            my $blank = substr($reply, 0, 1) eq ' ' ? 1 : 0;
            return ('answered', substr($reply, $blank, $newline - $blank));
        }
        return ('lost', "the answer of the tnblock daemon is longer than $MAX_REPLY bytes")
            if length($reply) > $MAX_REPLY;
    }
}

# Whoever can put a socket there is told all requests, and believed.
sub _distrust {
    my ($mode, $owner) = @_;
    return 'is not a socket' if !Fcntl::S_ISSOCK($mode);
    return "belongs to user $owner, not to root" if $owner != 0 && $owner != $>;
    return 'may be written to by others than root' if $mode & 0022;
    return undef;
}

# What a line of the daemon says about the fate of this request.
sub _judge {
    my ($reply, $id) = @_;
    # As the daemon writes it: a list of thousands is not decoded twice.
    return ('answered', $reply)
        if $reply =~ /\A\{"id":"\Q$id\E","ok":true,/ && substr($reply, -1) eq '}';
    my $answer = eval { $JSON->decode($reply) };
    return ('lost', 'what the tnblock daemon answered is not JSON') if ref($answer) ne 'HASH';
    my $error = ref($answer->{error}) eq 'HASH' ? $answer->{error} : {};
    my ($code, $field) = map { $error->{$_} // '' } qw(code field);
    if (!defined($answer->{id}) && !$answer->{ok}) {
        return $code eq 'busy' ? ('busy') : ('answered', $reply);
    }
    return ('lost', 'the tnblock daemon answered another request')
        if ($answer->{id} // '') ne $id;
    # The binary may be newer than the daemon that still runs.
    return ('untaken', 'the tnblock daemon is of another version')
        if $code eq 'unsupported' && $field =~ /\A(?:method|protocol)\z/;
    return ('answered', $reply);
}

# ---- Running the binary ------------------------------------------------------------------------

# A hook that outlived the call that started it (an alarm of PVE's unwound us). It is reaped later.
my %unreaped;

# Runs `tnblock hook` with one line on stdin. Returns the first line of stdout, or undef and why. It would
# ask the daemon first, if it is not told that this was in vain.
sub _run_hook {
    my ($line, $seconds, $is_direct) = @_;
    local ($!, $?);
    return (undef, $TOO_OLD) if _processor_too_old();
    return (undef, "\"$BINARY\" is missing or may not be run") if !-f $BINARY || !-x _;
    _reap($_, 0) for keys %unreaped;

    my $end = _now() + $seconds;
    local $SIG{PIPE} = 'IGNORE';
    my ($pid, $in, $out, $err) = _start_hook($is_direct);
    return (undef, "\"$BINARY\" cannot be started: $!") if !$pid;

    my $reply = '';
    my $relay = _relay();
    my $why;
    while (1) {
        my $left = $end - _now();
        if ($left <= 0) {
            $why = sprintf('no answer within %.0f s', $seconds);
            last;
        }
        my ($readable, $writable) = ('', '');
        vec($readable, fileno($out), 1) = 1;
        vec($readable, fileno($err), 1) = 1 if $err;
        vec($writable, fileno($in), 1) = 1 if $in;
        next if select($readable, $writable, undef, $left) < 0; # a signal; the deadline stands

        if ($in && vec($writable, fileno($in), 1)) {
            my $written = syswrite($in, $line);
            substr($line, 0, $written, '') if $written;
            # A hook that does not read on has its reasons; they are in its answer.
            $in = undef if !length($line) || (!defined($written) && !_again());
        }
        if ($err && vec($readable, fileno($err), 1)) {
            my $read = sysread($err, my $text, 65536);
            $relay->($text) if $read;
            $err = undef if !$read && !(!defined($read) && _again());
        }
        if (vec($readable, fileno($out), 1)) {
            my $before = length($reply);
            my $read = sysread($out, $reply, 1 << 20, $before);
            last if defined($read) ? !$read : !_again();
            last if $read && index($reply, "\n", $before) >= 0;
            if (length($reply) > $MAX_REPLY) {
                $why = "the answer is longer than $MAX_REPLY bytes";
                last;
            }
        }
    }
    for (1 .. 64) {
        last if !$err || !sysread($err, my $text, 65536);
        $relay->($text);
    }
    my $last = $relay->("\n");

    my $newline = index($reply, "\n");
    if ($newline >= 0) {
        _reap($pid, 0.2);
        return substr($reply, 0, $newline);
    }
    my $status = defined($why) ? undef : _reap($pid, 1);
    if ($unreaped{$pid}) {
        kill('KILL', -$pid, $pid);
        $why //= 'no answer, though it closed its output';
        _reap($pid, 0.5);
    }
    return (undef, $why // _how_it_ended($status, $last));
}

# Forks and executes. Returns the pid and our ends of the three pipes; nothing if it cannot.
sub _start_hook {
    my ($is_direct) = @_;
    pipe(my $in_read, my $in) && pipe(my $out, my $out_write) && pipe(my $err, my $err_write)
        or return;
    my $pid = fork();
    return if !defined($pid);
    if (!$pid) {
        eval { _become_hook($is_direct, $in_read, $out_write, $err_write) };
        POSIX::_exit(126); # never return into PVE's code a second time
    }
    $unreaped{$pid} = 1;
    $_->blocking(0) for $in, $out, $err;
    return ($pid, $in, $out, $err);
}

# In the child: nothing of the caller's surroundings reaches the binary.
sub _become_hook {
    my ($is_direct, @handles) = @_;
    delete @SIG{qw(__WARN__ __DIE__)};
    $SIG{$_} = 'DEFAULT' for grep { defined($SIG{$_}) } keys %SIG;
    POSIX::sigprocmask(POSIX::SIG_SETMASK(), POSIX::SigSet->new());
    POSIX::setsid();
    chdir('/');
    # In the order their pipes were made: a caller without standard handles has pipes at 0 to 2,
    # and none may be overwritten before it is copied.
    POSIX::dup2(fileno($handles[$_]), $_) for 0 .. 2;
    opendir(my $open, '/proc/self/fd');
    POSIX::close($_) for grep { $_ > 2 } map { /\A([0-9]+)\z/ } readdir($open);
    # Assigned whole, so that IFS, ENV, BASH_ENV, LD_*, BUN_*, NODE_* and TNBLOCK_* are gone.
    %ENV = (PATH => '/usr/sbin:/usr/bin:/sbin:/bin', LC_ALL => 'C');
    # Not an option: a binary older than this shim would refuse that.
    $ENV{TNBLOCK_DIRECT} = 1 if $is_direct;
    no warnings 'exec';
    exec { $BINARY } $BINARY, 'hook';
    my $text = "cannot run $BINARY: $!\n";
    POSIX::write(2, $text, length($text));
    return;
}

# Takes pieces of stderr, warns of each whole line, and returns the last one.
sub _relay {
    my ($rest, $count, $last) = ('', 0, undef);
    return sub {
        $rest .= $_[0];
        while ($rest =~ s/\A([^\n]{0,8000})\n// || $rest =~ s/\A([^\n]{8000})//) {
            my $line = _one_line($1);
            next if !length($line);
            $last = $line;
            warn "tnblock: $line\n" if ++$count <= $MAX_WARNINGS;
            warn "tnblock: further lines are left out\n" if $count == $MAX_WARNINGS + 1;
        }
        return $last;
    };
}

# The wait status of a child that ends within so many seconds; else undef, also when PVE's own
# handler was faster.
sub _reap {
    my ($pid, $seconds) = @_;
    return undef if !$unreaped{$pid};
    my $end = _now() + $seconds;
    my $pause = 0.001;
    while (1) {
        my $found = waitpid($pid, POSIX::WNOHANG());
        my $status = $?;
        delete $unreaped{$pid} if $found;
        return $status if $found == $pid;
        return undef if $found || _now() >= $end;
        select(undef, undef, undef, $pause);
        $pause = min($pause * 2, 0.05);
    }
}

sub _how_it_ended {
    my ($status, $last) = @_;
    my $signal = ($status // 0) & 127;
    my $exit = ($status // 0) >> 8;
    return $TOO_OLD if $signal == POSIX::SIGILL() || $exit == 128 + POSIX::SIGILL();
    my $how = $signal ? "was killed by signal $signal" : "ended with status $exit";
    return "\"$BINARY\" $how and gave no answer" . (defined($last) ? ": $last" : '');
}

# The binary would die of an illegal instruction, without a word.
sub _processor_too_old {
    open(my $handle, '<', $CPUINFO) or return 0;
    while (my $line = <$handle>) {
        next if $line !~ /\Aflags\s*:/; # only x86 has such a line
        return $line !~ / sse4_2\b/ || $line !~ / popcnt\b/;
    }
    return 0;
}

sub _now { return Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) }

sub _again { return $! == EINTR || $! == EAGAIN }

1;
