# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# What PVE reads while it loads the plugin: a mistake here stops every PVE service of the node.
use strict;
use warnings;

use Test::More;
use TnbTest;

subtest 'api() is the host version, but never above the newest one known nor below the floor' => sub {
    my %expected = (10 => 11, 11 => 11, 12 => 12, 13 => 13, 14 => 14, 15 => 15, 16 => 16, 17 => 16);
    for my $host (sort { $a <=> $b } keys %expected) {
        local $PVE::Storage::VERSION_OF_TEST = $host;
        is($SHIM->api(), $expected{$host}, "on a host of version $host");
    }
};

for my $version (11 .. 16) {
    subtest "on storage API $version every option names a property that exists" => sub {
        local $PVE::Storage::VERSION_OF_TEST = $version;
        my $options = eval { $SHIM->register_for_api($version) };
        is($@, '', 'PVE takes it');
        for my $name (sort keys %$options) {
            ok($options->{$name}->{optional}, "$name is optional");
            like($name, qr/\A(?:tnb-[a-z-]+|nodes|disable|content|shared|bwlimit)\z/, "$name is ours or PVE's");
        }
        for my $name (qw(nodes disable content shared)) {
            ok($options->{$name}, "$name is an option");
        }
    };
}

subtest 'the options are those of the design' => sub {
    my @expected = qw(
        tnb-api-host tnb-api-key tnb-api-port tnb-api-retry-delay tnb-api-retry-max
        tnb-api-transport tnb-api-user tnb-chap-password tnb-chap-peer-password tnb-chap-peer-user
        tnb-chap-user tnb-compression tnb-ctrl-loss-tmo tnb-dataset tnb-debug tnb-dhchap-ctrl-secret
        tnb-dhchap-secret tnb-discovery-portal tnb-extent-blocksize tnb-force-free tnb-hostnqn
        tnb-keep-alive-tmo tnb-lock-timeout tnb-nr-io-queues tnb-portals tnb-reconnect-delay
        tnb-sparse tnb-subsystem-nqn tnb-target-iqn tnb-tls-ca tnb-tls-fingerprint
        tnb-transport-mode tnb-use-multipath tnb-zvol-blocksize
    );
    my $properties = $SHIM->properties();
    is_deeply([sort keys %$properties], \@expected, 'the properties');
    for my $name (@expected) {
        like($properties->{$name}->{type}, qr/\A(?:string|integer|number|boolean)\z/, "$name has a type");
        ok(length($properties->{$name}->{description}), "$name is described");
    }
    my $options = $SHIM->register_for_api(15);
    is_deeply(
        [sort grep { $options->{$_}->{fixed} } keys %$options],
        [qw(tnb-dataset tnb-extent-blocksize tnb-subsystem-nqn tnb-target-iqn tnb-transport-mode)],
        'the fixed ones',
    );
    is_deeply($properties->{'tnb-transport-mode'}->{enum}, [qw(iscsi nvme-tcp)], 'the transports');
    is_deeply($properties->{'tnb-api-transport'}->{enum}, [qw(ws rest)], 'the API transports');
    my %range = map { $_ => [@{ $properties->{$_} }{qw(minimum maximum)}] } @expected;
    is_deeply($range{'tnb-api-retry-max'}, [0, 10], 'the range of retries');
    is_deeply($range{'tnb-api-retry-delay'}, [0.1, 60], 'the range of the delay');
    is($properties->{'tnb-api-retry-delay'}->{type}, 'number', 'a delay may be a fraction');
    is_deeply($range{'tnb-lock-timeout'}, [10, 600], 'the range of the lock time');
    is_deeply($range{'tnb-debug'}, [0, 2], 'the range of debug');
};

subtest 'an option of PVE that the host lacks is left out' => sub {
    $SHIM->register_for_api(15);
    delete $SHIM->private()->{propertyList}->{bwlimit};
    ok(!$SHIM->options()->{bwlimit}, 'bwlimit is gone');
    ok($SHIM->options()->{nodes}, 'nodes is not');
};

subtest 'the plugin data name contents, format and the five secrets' => sub {
    my $data = $SHIM->plugindata();
    is($SHIM->type(), 'tnblock', 'the type');
    is_deeply($data->{content}, [{ images => 1, rootdir => 1 }, { images => 1 }], 'contents');
    is_deeply($data->{format}, [{ raw => 1 }, 'raw'], 'format');
    is_deeply(
        [sort keys %{ $data->{'sensitive-properties'} }],
        [qw(tnb-api-key tnb-chap-password tnb-chap-peer-password tnb-dhchap-ctrl-secret tnb-dhchap-secret)],
        'secrets',
    );
    ok(!exists($data->{select_existing}), 'volumes are made, not chosen');
};

subtest 'the type is among the shared ones, once' => sub {
    is(scalar(grep { $_ eq 'tnblock' } @PVE::Storage::Plugin::SHARED_STORAGE), 1);
};

subtest 'what PVE calls at load time runs nothing' => sub {
    local $PVE::Storage::Custom::TnblockPlugin::BINARY = '/nonexistent';
    local $PVE::Storage::CONFIG = undef;
    ok(eval { $SHIM->$_(); 1 }, "$_()") for qw(api type plugindata properties options);
};

subtest 'the source is plain ASCII and names its licence' => sub {
    open(my $in, '<', $TnbTest::SOURCE) or die "$TnbTest::SOURCE: $!";
    my $text = do { local $/; <$in> };
    unlike($text, qr/[^\x09\x0a\x20-\x7e]/, 'ASCII');
    like($text, qr/\A# SPDX-License-Identifier: MIT OR Apache-2\.0\n# Copyright the tnblock authors\n/);
};

done_testing();
