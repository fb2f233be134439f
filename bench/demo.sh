#!/bin/sh
# The main job on real input: builds a small ML workspace from public wheels (90 MB), packs it, looks into the snapshot,
# verifies it, serves it, restores it over http, and compares the two trees. Everything happens in one temporary directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
step() { printf '\n$ %s\n' "$*"; "$@"; }

python "$here/workspace.py" build "$work/workspace" --size small --cache "${DUMONT_CACHE:-$work/wheels}"
cd "$work"
step dumont-gpu pack workspace -o workspace.dumont
step dumont-gpu ls workspace.dumont 'models/*' -l
step dumont-gpu verify workspace.dumont

printf '\n$ dumont-gpu serve workspace.dumont &\n'
dumont-gpu serve workspace.dumont --port 0 >served 2>/dev/null &
server=$!
until grep -q serving served; do sleep 0.1; done
cat served
step dumont-gpu restore "$(cut -d' ' -f2 served)" restored --verify
step python -m dumont_gpu.bench.compare_trees workspace restored
