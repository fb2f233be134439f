#!/usr/bin/env bash
# A newcomer's day from the first pack to the last restore: what each command prints, and its exit code, compared with
# tests/day.expected. Sizes, seconds, ratios, dates, ids and ports differ from machine to machine and are masked.
# `tests/day.sh --update` writes that file anew: look at the difference before you commit it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=${DUMONT:-$here/../.venv/bin/dumont-gpu}
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
PATH="$(cd "$(dirname "$program")" && pwd):$PATH"
export PATH LC_ALL=C.UTF-8 TZ=UTC DUMONT_DEVICE=cpu DUMONT_JOBS=2 COLUMNS=100 XDG_STATE_HOME=$work/state
cd "$work"
umask 022

# Runs a line of shell; appends the line, what it prints, and its exit code to the transcript.
day() {
    local code=0
    bash -c "$1" >printed 2>&1 || code=$?
    { printf '$ %s\n' "$1"; cat printed; printf '[%s]\n\n' "$code"; } >>transcript
}

# Waits, as long as it takes within a minute, until a condition holds.
until_true() {
    for _ in $(seq 600); do
        if bash -c "$1"; then return; fi
        sleep 0.1
    done
    echo "never came true: $1" >&2
    exit 1
}

serve() {
    : >serving
    dumont-gpu serve ws.dumont --port "$1" >serving 2>&1 &
    server=$!
    until_true 'grep -q "^serving http" serving'
    url=$(sed -n 's/^serving //p' serving)
}

mkdir -p ws/src/model ws/runs/1 ws/runs/2 ws/node_modules/left-pad/lib ws/empty
for part in 1 2 3; do python3 -c "import random, sys; sys.stdout.buffer.write(random.Random($part).randbytes(1200000))" >ws/runs/weights-$part.bin; done
for file in src/train.py src/model/net.py runs/1/log runs/2/log node_modules/left-pad/lib/index.js; do seq 1 3000 >"ws/$file"; done
ln -s runs/2 ws/latest
ln ws/runs/1/log ws/runs/1/log-again
find ws -exec touch -h -d '2024-02-03 04:05:06 UTC' {} +

# --- a snapshot, and a look into it
day 'dumont-gpu pack ws -o ws.dumont --exclude node_modules -n'
day 'dumont-gpu pack ws -o ws.dumont --exclude node_modules --chunk-size 256KiB'
day 'dumont-gpu info ws.dumont'
day 'dumont-gpu ls ws.dumont'
day 'dumont-gpu ls ws.dumont src -l'
day 'dumont-gpu verify ws.dumont --content'
day 'dumont-gpu ls ws.dumont nosuch'
day 'dumont-gpu info nosuch.dumont'
day 'dumont-gpu pack ws'

# --- back, again, and over an hour's work
day 'dumont-gpu restore ws.dumont back -n'
day 'dumont-gpu restore ws.dumont back --verify'
day 'diff -r --no-dereference -x node_modules ws back'
day 'dumont-gpu restore ws.dumont back'
seq 1 9 >back/src/train.py
day 'dumont-gpu restore ws.dumont back --overwrite never'
day 'dumont-gpu restore ws.dumont back --overwrite if-changed -n'
day 'dumont-gpu restore ws.dumont back --overwrite if-changed'
day 'dumont-gpu restore ws.dumont part --include /src --exclude net.py'
day 'find part | sort'

# --- from another machine
serve 0
port=${url##*:}; port=${port%%/*}
day "dumont-gpu ls $url src"
day "dumont-gpu restore $url far --progress none"
day 'diff -r --no-dereference back far'

# --- stopped, and on
day 'dumont-gpu restore '"$url"' stopped --limit-rate 200KiB --connections 1 & until ls stopped/runs/weights-* >/dev/null 2>&1; do sleep 0.1; done; kill $!; wait $!'
day "dumont-gpu restore $url stopped"
day 'diff -r --no-dereference back stopped'

# --- the network goes away, and comes back
dumont-gpu restore "$url" away --limit-rate 200KiB --connections 1 --patience 1s >gave-up 2>&1 &
restore=$!
until_true 'ls away/runs/weights-* >/dev/null 2>&1'
kill "$server"; wait "$server" || true; server=
code=0; wait "$restore" || code=$?
day "sed -n 's/.*gave up after [0-9]* s without an answer; to go on: /gave up; to go on: /p' gave-up; exit $code"
serve "$port"
day "dumont-gpu restore $url away"
day 'diff -r --no-dereference back away'

# --- damage
cp ws.dumont bad.dumont
python3 -c "
with open('bad.dumont', 'r+b') as file:
    file.seek(1_000_000)
    byte = file.read(1)[0]
    file.seek(1_000_000)
    file.write(bytes([byte ^ 1]))"
day 'dumont-gpu verify bad.dumont'
day 'dumont-gpu restore bad.dumont bad'

# --- a machine that has nothing but Python
day 'dumont-gpu reader -o reader.py'
day 'python3 reader.py verify ws.dumont'
day 'python3 reader.py restore ws.dumont plain'
day 'diff -r --no-dereference back plain'

# --- what this machine can do
day 'dumont-gpu doctor >doctor; grep -cE "^(ok|--) +(CPU|Clock|Open files|Extra s3)" doctor'
day 'dumont-gpu bench --path ws --repeats 1 2>/dev/null | grep -E "^(size|seconds)|^  dumont-gpu .*#"'

sed -E -e "s#127\.0\.0\.1:[0-9]+#HOST#g" -e 's/sha256:[0-9a-f]{64}/sha256:ID/g' -e 's/[0-9,]+(\.[0-9]+)? (B|KiB|MiB)\b/SIZE/g' \
    -e 's/\b[0-9,]+(\.[0-9]+)? s\b/T s/g' -e 's/[0-9.]+x\)/Rx)/g' -e 's/[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2} [+-][0-9]{4}/DATE/g' \
    -e 's/interrupted restore: [0-9]+ of [0-9]+ chunks?/interrupted restore: N of N chunks/' -e 's/ #+ / # /' -e 's/ +$//' \
    -e 's/(chunk )[0-9]+/\1N/g' -e 's/ bytes at [0-9]+/ bytes at N/' -e 's/[0-9]+( bytes at N)/N\1/' -e 's/ +[0-9.]+x /  Rx /' \
    -e 's/ [0-9]+ chunks/ N chunks/g' -e 's/dumont-gpu [0-9]+\.[0-9.]+,/dumont-gpu VERSION,/' transcript >masked
if [ "${1:-}" = --update ]; then
    cp masked "$here/day.expected"
else
    diff -u "$here/day.expected" masked
    echo "$(grep -c '^\$ ' masked) commands printed what was expected"
fi
