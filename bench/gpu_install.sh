# The installation of bench/gpu_check.sh, and the wheels that it collects for a machine without a network. Sourced.

requirements() { "$python" "$here/requirements.py" "$@"; }

sources() {  # a fingerprint of the sources that dumont-gpu is built from
    (cd "$repo" &&
        find dumont_gpu kernels pyproject.toml -type f ! -name '*.pyc' ! -name '*.so' ! -name '*.md' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
}

# --- wheels for a machine without a network ---------------------------------------------------------------------------

collect_wheels() {
    local folder=$1 platforms=() what fresh wheel n
    local version=${target_python:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')}
    for n in $(seq 5 39); do platforms+=(--platform "manylinux_2_${n}_x86_64"); done  # pip takes each as it is spelled
    platforms+=(--platform manylinux1_x86_64 --platform manylinux2010_x86_64 --platform manylinux2014_x86_64)
    what=$(requirements run check "cuda$cuda" ${lean:+--lean}) || return
    mkdir -p "$folder" && fresh=$(mktemp -d "$folder/.new-XXXXXX") || return
    trap "rm -rf '$fresh'" EXIT
    "$python" -m pip wheel -q --no-deps --wheel-dir "$fresh" "$repo" || return
    mapfile -t what <<<"$what"
    "$python" -m pip download -q --only-binary=:all: --python-version "$version" --implementation cp \
        "${platforms[@]}" --dest "$fresh" "${what[@]}" || return
    for wheel in "$fresh"/*.whl; do  # of each package one version: two would stop the whole installation
        wheel=${wheel##*/}
        rm -f "$folder/${wheel%%-*}"-*.whl
        mv "$fresh/$wheel" "$folder/" || return
    done
    sources >"$folder/dumont_gpu.sources"
    du -shc "$folder"/*.whl
    check_wheels "$folder"
}

check_wheels() {
    requirements run check "cuda$cuda" ${lean:+--lean} --wheels "$1" && return
    echo "THESE WHEELS ARE NOT WHAT pyproject.toml ASKS FOR: --collect-wheels gathers them anew"
    return 1
}

# --- installation -----------------------------------------------------------------------------------------------------

step_install() {
    local now=$(sources)
    if [ "$(cat "$env/installed" 2>/dev/null)" = "$now" ]; then
        echo "used again: the installation of sources $now"
        return
    fi
    if [ -n "$overlay" ]; then install_overlay; else install_environment; fi || {
        [ -n "$wheels" ] || echo "pip could not install; where there is no network, --wheels DIR takes a folder"
        [ -z "$wheels" ] || [ -n "$overlay" ] || echo "$python has no CuPy: wheels for it are collected without --lean"
        return 1
    }
    "$run" -c "import dumont_gpu, blake3, lz4.frame, zstandard, typer, rich, pytest, pytest_timeout, hypothesis, numpy, cupy" || return
    echo "$now" >"$env/installed"
}

# Over an interpreter that has CuPy: only missing packages, in a folder of their own. A virtual environment could not do that
# where the interpreter belongs to one itself.
install_overlay() {
    local site=$env/site what
    rm -rf "$site" && mkdir -p "$site" || return
    local pip=("$python" -m pip install -q --disable-pip-version-check --no-compile --upgrade --target "$site")
    if [ -n "$wheels" ]; then
        overlay_wheels || return
    else
        what=$(requirements check "cuda$cuda" --lean) || return
        mapfile -t what <<<"$what"
        "${pip[@]}" "$repo" "${what[@]}" || return
    fi
    # By all cores, once: every command would compile everything again.
    "$python" -m compileall -q -j 0 "$site" >/dev/null || echo "some modules do not compile"
}

overlay_wheels() {
    local wheel lean=1
    check_wheels "$wheels"  # said, and tried all the same: time on a device is rare
    "${pip[@]}" --no-index --no-deps "$wheels"/*.whl ||  # or by hand: these wheels hold nothing but packages
        for wheel in "$wheels"/*.whl; do "$python" -m zipfile -e "$wheel" "$site" || return; done
    if ! ls "$wheels"/dumont_gpu-*.whl >/dev/null 2>&1; then
        "${pip[@]}" --no-index --no-deps --no-build-isolation "$repo"
    elif [ "$(cat "$wheels/dumont_gpu.sources" 2>/dev/null)" != "$(sources)" ]; then
        echo "the wheel of dumont-gpu is not known to be of this checkout: building it here"
        "${pip[@]}" --no-index --no-deps --no-build-isolation "$repo" || echo "that failed: THE WHEEL IS USED AS IT IS"
    fi
}

install_environment() {
    local what
    "$python" -m venv --clear "$env/venv" || return
    local pip=("$env/venv/bin/python" -m pip install -q --disable-pip-version-check)
    what=$(requirements check) || return
    mapfile -t what <<<"$what"
    if [ -z "$wheels" ]; then
        "${pip[@]}" "$repo[cuda$cuda]" "${what[@]}"
    else
        check_wheels "$wheels"
        "${pip[@]}" --no-index --find-links "$wheels" "dumont-gpu[cuda$cuda]" "${what[@]}"
    fi
}
