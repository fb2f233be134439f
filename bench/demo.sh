#!/bin/sh
# The main job on real input: builds a small ML workspace from public wheels (90 MB), packs it, looks into the snapshot,
# verifies it, restores it, and compares the two trees. Everything happens in one temporary directory.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
step() { printf '\n$ %s\n' "$*"; "$@"; }

python "$here/workspace.py" build "$work/workspace" --size small --cache "${DUMONT_CACHE:-$work/wheels}"
cd "$work"
step dumont-gpu pack workspace -o workspace.dumont
step dumont-gpu ls workspace.dumont 'models/*' -l
step dumont-gpu verify workspace.dumont
step dumont-gpu restore workspace.dumont restored --verify
step python "$here/compare_trees.py" workspace restored
