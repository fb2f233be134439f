#!/usr/bin/env bash
# Runs the tests that depend on the user and on the locale once more: as "nobody" where root runs this, in a Latin-1
# locale and in the C locale without Python's UTF-8 mode. Takes a folder to work in, which must not exist yet.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$1
suites=(tests/unit/test_cli.py tests/unit/test_roundtrip.py tests/unit/test_resume.py tests/unit/test_golden.py tests/unit/test_snapshot_service.py
    tests/unit/test_endings.py tests/unit/test_links_out.py tests/unit/test_listing.py tests/unit/test_patterns.py tests/unit/test_restore_again.py
    tests/unit/test_small_files.py tests/unit/test_sources_that_change.py tests/unit/test_target_limits.py tests/safety/test_outputs.py
    tests/unit/test_already_there.py tests/unit/test_cat.py tests/unit/test_diff.py tests/unit/test_keep_going.py tests/unit/test_parts.py
    tests/safety/test_names.py tests/safety/test_places.py tests/safety/test_metadata.py)

other=()
pythons=(python3)
if [ "$(id -u)" = 0 ]; then
    other=(setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all)
    pythons=(python3 /usr/bin/python3)  # the first may lie in a home that is closed to others
fi
python=""
for candidate in "${pythons[@]}"; do
    found=$(command -v "$candidate") || continue
    if "${other[@]}" env "$found" -c 'import venv, ensurepip' 2>/dev/null; then
        python=$found
        break
    fi
done
if [ -z "$python" ]; then
    echo "no Python that another user could start: the suite ran as $(id -un) only"
    exit 0
fi

mkdir -p "$work/home"
for folder in "$work" "$(dirname "$work")"; do chmod a+rx "$folder"; done
"$python" -m venv "$work/venv"
"$work/venv/bin/pip" install -q '.[test]'
tar c --exclude=.git --exclude=.venv --exclude=build . | tar x --one-top-level="$work/checkout"
chmod -R a+rX "$work"
[ "$(id -u)" != 0 ] || chown -R 65534:65534 "$work/home"

latin=(LC_ALL=en_US.ISO-8859-1 "LOCPATH=$work/locales" PYTHONUTF8=0)
mkdir -p "$work/locales"
localedef --no-archive -i en_US -f ISO-8859-1 "$work/locales/en_US.ISO-8859-1" 2>/dev/null || latin=()
chmod -R a+rX "$work/locales"
cd "$work/checkout"
for locale in C Latin-1; do
    settings=(LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0)
    [ "$locale" = C ] || settings=("${latin[@]}")
    if [ "${#settings[@]}" = 0 ]; then
        echo "localedef cannot make a Latin-1 locale here: skipped"
        continue
    fi
    echo "$locale, as $("${other[@]}" id -un)"
    "${other[@]}" env HOME="$work/home" TMPDIR="$work/home" HYPOTHESIS_STORAGE_DIRECTORY="$work/home/hypothesis" "${settings[@]}" "$work/venv/bin/pytest" \
        -p no:cacheprovider --basetemp="$work/home/$locale" "${suites[@]}"
done
