# SPDX-License-Identifier: MIT OR Apache-2.0
# Copyright the tnblock authors
#
# Adding, changing and removing a storage: where its secrets go, and when the binary checks it.
use strict;
use warnings;

use Test::More;
use TnbTest;

my $FILE = "$DIR/priv/san.tnblock";

sub secrets { return -e $FILE ? $JSON->decode(read_file('priv/san.tnblock')) : undef }

sub fresh {
    my ($text) = @_;
    unlink($FILE);
    mkdir("$DIR/priv");
    write_file('priv/san.tnblock', $text, 0600) if defined($text);
    answering('null');
    return;
}

sub refuse { refusing({ code => 'config', message => 'Cannot use storage "san": no' }) }

subtest 'on_add_hook() makes folder and file, readable by root alone, and validates' => sub {
    rmdir("$DIR/priv");
    answering('null');
    my $taint = substr($ENV{PATH} // '', 0, 0);
    my $result = $SHIM->on_add_hook("san$taint", scfg(), 'tnb-api-key' => "1-abc$taint", 'tnb-chap-password' => undef);
    is($result, undef, 'undef is returned');
    is_deeply(secrets(), { 'tnb-api-key' => '1-abc' }, 'the secrets');
    is((stat($FILE))[2] & 07777, 0600, 'mode of the file');
    is((stat("$DIR/priv"))[2] & 07777, 0700, 'mode of the folder');
    is(last_request()->{method}, 'validate_storage', 'validated');
    is(last_request()->{deadlineMs}, 20000, 'within 20 s');
    unlike(read_file('requests'), qr/1-abc/, 'the secret is not in the request');
};

subtest 'the binary finds the new secret in the file while it validates' => sub {
    fresh();
    binary("open(my \$in, '<', '$FILE') or die; reply(ok => JSON::PP::true, result => undef) if <\$in> =~ /1-new/;");
    ok(eval { $SHIM->on_add_hook('san', scfg(), 'tnb-api-key' => '1-new'); 1 }) or diag($@);
};

subtest 'an add keeps a secret that the file has already' => sub {
    fresh('{"tnb-api-key":"1-old"}');
    $SHIM->on_add_hook('san', scfg(), 'tnb-chap-password' => 'pass');
    is_deeply(secrets(), { 'tnb-api-key' => '1-old', 'tnb-chap-password' => 'pass' });
};

subtest 'a refused add takes its file away' => sub {
    fresh();
    refuse();
    is(error_of('add', sub { $SHIM->on_add_hook('san', scfg(), 'tnb-api-key' => 'x') }), qq(Cannot use storage "san": no\n));
    is(secrets(), undef, 'no file');
};

subtest 'a refused add or change puts the file back as it was' => sub {
    my $before = '{ "tnb-api-key" : "1-old" }';
    fresh($before);
    refuse();
    error_of('add', sub { $SHIM->on_add_hook('san', scfg(), 'tnb-api-key' => 'x') });
    is(read_file('priv/san.tnblock'), $before, 'after an add');
    error_of('update', sub { $SHIM->on_update_hook_full('san', scfg(), {}, undef, { 'tnb-api-key' => undef }) });
    is(read_file('priv/san.tnblock'), $before, 'after an update');
    is((stat($FILE))[2] & 07777, 0600, 'mode of the file');
};

subtest 'on_update_hook_full() merges and deletes, and validates the section as it will be' => sub {
    fresh('{"tnb-api-key":"1-old","tnb-chap-password":"p"}');
    my $sensitive = { 'tnb-api-key' => '1-new', 'tnb-chap-password' => undef };
    my $scfg = scfg('tnb-debug' => 1);
    my $result = $SHIM->on_update_hook_full('san', $scfg, { 'tnb-sparse' => 0 }, ['tnb-debug'], $sensitive);
    is($result, undef, 'undef is returned');
    is_deeply(secrets(), { 'tnb-api-key' => '1-new' }, 'the secrets');
    is_deeply(last_request()->{config}, scfg('tnb-sparse' => 0), 'the section');
    is_deeply($scfg, scfg('tnb-debug' => 1), 'the section of PVE is left to PVE');
};

subtest 'on_update_hook() of PVE 8 completes the section from the configuration' => sub {
    fresh();
    local $PVE::Storage::CONFIG = { ids => { san => scfg('tnb-debug' => 1) } };
    is($SHIM->on_update_hook('san', { 'tnb-debug' => 2 }, 'tnb-api-key' => 'k'), undef, 'undef is returned');
    is_deeply(last_request()->{config}, scfg('tnb-debug' => 2), 'the section');
    is_deeply(secrets(), { 'tnb-api-key' => 'k' }, 'the secrets');
};

subtest 'a change of options of PVE alone works with the array away' => sub {
    fresh();
    refuse();
    local $PVE::Storage::CONFIG = { ids => { san => scfg() } };
    ok(eval { $SHIM->on_update_hook_full('san', scfg(), { disable => 1 }, ['nodes'], {}); 1 }, 'PVE 9');
    ok(eval { $SHIM->on_update_hook('san', { disable => 1 }); 1 }, 'PVE 8');
    is(scalar(requests()), 0, 'nobody is asked');
};

subtest 'a deleted option of ours is validated' => sub {
    fresh();
    $SHIM->on_update_hook_full('san', scfg(), {}, ['tnb-dataset'], {});
    ok(!exists(last_request()->{config}->{'tnb-dataset'}));
};

subtest 'a file that is no JSON object stops the change and stays' => sub {
    fresh('garbage');
    like(error_of('add', sub { $SHIM->on_add_hook('san', scfg(), 'tnb-api-key' => 'k') }), qr/is not a JSON object/);
    is(read_file('priv/san.tnblock'), 'garbage', 'it stays');
};

subtest 'on_delete_hook() removes the file, and does not mind that there is none' => sub {
    fresh('{}');
    is($SHIM->on_delete_hook('san', scfg()), undef, 'undef is returned');
    ok(!-e $FILE, 'the file is gone');
    is($SHIM->on_delete_hook('san', scfg()), undef, 'again');
};

subtest 'a storage name never leads out of the folder' => sub {
    fresh();
    like(error_of('add', sub { $SHIM->on_add_hook('../san', scfg(), 'tnb-api-key' => 'k') }), qr/no storage name/);
    like(error_of('delete', sub { $SHIM->on_delete_hook('a/b', scfg()) }), qr/no storage name/);
};

done_testing();
