#!/usr/bin/env bash
# A step of bench/gpu_check.sh, by its name; that script exports the variables used here.
set -uo pipefail
trap 'exit 143' TERM  # after its program, which may have gigabytes to delete
source "$here/gpu_install.sh"

measure=dumont_gpu.bench.measure.gpu
step_smoke() { "$run" -m dumont_gpu doctor && "$run" -m $measure.smoke; }
step_kernels() { "$run" -m $measure.kernels "$work/kernels.json" $profile; }
step_variants() { "$run" -m $measure.variants "$work/variants.json" $profile; }
step_copies() { "$run" -m $measure.copies "$work/copies.json" $profile; }
step_encode() { "$run" -m $measure.encode "$work/encode.json" $profile; }
step_jobs() { whole_jobs restores "$work/jobs.json"; }
step_packs() { whole_jobs packs "$work/packs.json"; }
step_loads() { whole_jobs loads "$work/loads.json"; }
whole_jobs() {  # restores, packs or loads
    "$run" -m "$measure.$1" "$2" --disk "$disk" --prefix "$leftovers" ${size:+--size "$size"} ${tree:+--tree "$tree"} $profile
}

step_self_test() {
    [ -n "$nvcc" ] || { echo "there is no nvcc"; return "$skipped"; }
    "$nvcc" -x cu -std=c++17 -arch=native -I"$repo/kernels/cuda" -I"$repo/kernels/shared" \
        "$repo/tests/device/ptx_machine/self_test.cpp" -o "$work/self_test" && "$work/self_test"
}

step_tests() {
    local suites=(golden codecs roundtrip cli snapshot_service) failed=0
    suites=("${suites[@]/#/$repo/tests/unit/test_}")
    # A thread that waits for a kernel which never ends hears no signal: only the end of its process helps. So the
    # device's own tests have a process to themselves, and the first that fails ends them.
    tested "on the device" -x "$repo"/tests/device/test_{cuda_backend,nvcomp}.py || failed=1
    tested "whole jobs" "${suites[@]/%/.py}" || failed=1
    return "$failed"
}

verdicts=
tested() {  # pytest; its last line joins the verdicts
    local what=$1 code
    shift
    # Only the plugins that are needed: others around an interpreter with CuPy may be for another pytest.
    env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 ${found:+DUMONT_TEST_DEVICE=0} "$run" -m pytest -c "$repo/pyproject.toml" \
        -p pytest_timeout -p no:cacheprovider -o timeout_method=thread -o timeout=40 -o faulthandler_timeout=35 \
        "$@" 2>&1 | tee "$work/pytest.out"
    code=$?
    verdicts+="$what: $(tail -n 1 "$work/pytest.out"); "
    echo "${verdicts%; }"
    return "$code"
}

# The race detector first: the PTX machine of the tests has not seen the machine code. Each line: a tool, the run that it watches,
# and its share of the time that is left.
step_sanitizer() {
    local tool=$(command -v compute-sanitizer) place failed=0 code said= check what share shares=400 limit
    local streams=$repo/tests/golden/streams
    for place in "$(dirname "${nvcc:-/}")" "$CUDA_HOME/bin" "$CUDA_HOME/compute-sanitizer"; do
        [ -n "$tool" ] || [ ! -x "$place/compute-sanitizer" ] || tool=$place/compute-sanitizer
    done
    [ -n "$tool" ] || { echo "there is no compute-sanitizer"; return "$skipped"; }
    "$run" -m $measure.sanitize all "$streams" || { echo "wrong even without compute-sanitizer"; return 1; }
    while read -r check what share; do
        limit=$(((step_end - $(date +%s) - 2) * share / shares))
        shares=$((shares - share))
        if [ "$limit" -lt 1 ]; then code=124; else
            timeout --kill-after=5 "$limit" "$tool" --tool "$check" --error-exitcode 9 --report-api-errors no \
                "$run" -m $measure.sanitize "$what" "$streams" >"$work/$check.out" 2>&1 </dev/null
            code=$?
        fi
        if [ "$code" != 0 ] && grep -q "Device not supported" "$work/$check.out" 2>/dev/null; then
            echo "compute-sanitizer does not support this machine's device"
            return "$skipped"
        fi
        # The first lines name the error, the last ones count errors.
        [ "$code" = 0 ] || { failed=1; head -n 60 "$work/$check.out"; tail -n 6 "$work/$check.out"; }
        case $code in
            0) said+="$check ok; " ;;
            9) said+="$check FOUND ERRORS; " ;;
            124 | 137) said+="$check past $limit s; " ;;
            *) said+="$check failed ($code); " ;;
        esac
        echo "${said%; }"  # now: the next tool may be the one that never ends
    done <<'CHECKS'
racecheck ours 120
memcheck all 120
synccheck ours 80
initcheck good 80
CHECKS
    return "$failed"
}

"step_$1"
