#!/bin/bash
# Answers one request of the test runner (see scripts/vm/agent.ts). Request: a line
# "<bytes> <seconds>", then a script of that many bytes. Answer: a line "<status> <stdout bytes>
# <stderr bytes>", then the two outputs. Status 124: the script took longer than <seconds>.
read -r bytes seconds
script=$(head -c "$bytes")
folder=$(mktemp -d /run/agent.XXXXXX)
cd /root || exit 1
# A session of its own: what the script leaves running in the background outlives this request.
setsid -w timeout -k 5 "$seconds" bash -c "$script" </dev/null >"$folder/out" 2>"$folder/err"
status=$?
echo "$status $(stat -c %s "$folder/out") $(stat -c %s "$folder/err")"
cat "$folder/out" "$folder/err"
rm -rf "$folder"
