#!/usr/bin/env bash
# Checks dumont-gpu on this machine's NVIDIA GPU and measures it: one command, everything it installs in a folder of its
# own. Writes bench/results/gpu-NAME.json and .md. -h shows the options.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
python=${PYTHON:-python3}
all_steps=self_test,tests,sanitizer,kernels,encode,copies,jobs,packs
nvcomp='>=5.1,<7'
test_needs="pytest pytest-timeout hypothesis"  # words: a list would not reach the shells of the steps
skipped=77  # exit code of a step that cannot run here, as gpu_report.py knows it

usage() {
    cat <<'TEXT'
bench/gpu_check.sh [options]                     build, test and measure on the GPU
bench/gpu_check.sh --collect-wheels DIR [...]    on a machine with a network: gather what an offline one needs

  --wheels DIR       install from these wheels, without a network; of dumont-gpu too, if it is among them
  --env DIR          keep the installation there, and use it again if it is there
  --steps A,B,...    of self_test,tests,sanitizer,kernels,encode,copies,jobs,packs; default: all
  --budget SECONDS   be done by then: steps share what is left, and are cut short, so that there is a report
  --quick            small inputs, few repeats: shows that everything works
  --device N         as nvidia-smi numbers them; default: the first
  --results DIR      where the report goes; figures of other steps that are there already stay. Default: bench/results
  --log FILE         everything that the steps said, too; the report has the last lines of those that failed
  --disk DIR         the disk that jobs and packs write to; default: the temporary folder
  --size BYTES       of the file that they restore and pack; default: 4 GiB, or what fits
  --tree DIR         another input for them, such as the one of bench/workspace.py
  --without-gpu      go on where there is none, to try the script

  --collect-wheels DIR   download wheels, and build dumont-gpu's
  --python 3.12          for this Python; default: the running one
  --cuda 13              for this CUDA, 12 or 13
  --lean                 leave out CuPy, NumPy and NVRTC: the machine has them

PYTHON names the interpreter (python3). Where it has CuPy, the rest is laid over its packages; otherwise a virtual
environment gets everything. DUMONT_COMMIT says which commit this is where git cannot.
TEXT
}

wheels= env= steps=$all_steps quick= device= results=$here/results disk=${TMPDIR:-/tmp} size= tree=
log= budget= without_gpu=
collect= target_python= cuda=13 lean=
need() { [ $# -ge 2 ] || { echo "gpu_check.sh: $1 needs a value" >&2; exit 2; }; }
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) need "$@"; wheels=$2; shift ;;
        --env) need "$@"; env=$2; shift ;;
        --steps) need "$@"; steps=$2; shift ;;
        --budget) need "$@"; budget=$2; shift ;;
        --quick) quick=--quick ;;
        --device) need "$@"; device=$2; shift ;;
        --results) need "$@"; results=$2; shift ;;
        --log) need "$@"; log=$2; shift ;;
        --disk) need "$@"; disk=$2; shift ;;
        --size) need "$@"; size=$2; shift ;;
        --tree) need "$@"; tree=$2; shift ;;
        --without-gpu) without_gpu=1 ;;
        --collect-wheels) need "$@"; collect=$2; shift ;;
        --python) need "$@"; target_python=$2; shift ;;
        --cuda) need "$@"; cuda=$2; shift ;;
        --lean) lean=1 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "gpu_check.sh: unknown option $1; -h shows them" >&2; exit 2 ;;
    esac
    shift
done
for step in ${steps//,/ }; do
    [[ ,$all_steps, == *,$step,* ]] || { echo "gpu_check.sh: no step is called $step: $all_steps" >&2; exit 2; }
done
[[ $cuda == 12 || $cuda == 13 ]] || { echo "gpu_check.sh: --cuda is 12 or 13" >&2; exit 2; }
[[ -z $device || $device =~ ^[0-9]+$ ]] || { echo "gpu_check.sh: --device is a number" >&2; exit 2; }
[[ -z $budget || $budget =~ ^[0-9]+$ ]] || { echo "gpu_check.sh: --budget is a number of seconds" >&2; exit 2; }
[ -z "$wheels" ] || [ -d "$wheels" ] || { echo "gpu_check.sh: there is no folder $wheels" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "gpu_check.sh: there is no $python; PYTHON names another" >&2; exit 2; }

sources() {  # a fingerprint of what dumont-gpu is built from
    (cd "$repo" &&
        find dumont_gpu kernels pyproject.toml -type f ! -name '*.pyc' ! -name '*.so' ! -name '*.md' -print0 |
        LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c1-16)
}

# --- wheels for a machine without a network ---------------------------------------------------------------------------

collect_wheels() {
    local version=${target_python:-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')} platforms=() n
    for n in $(seq 5 39); do platforms+=(--platform "manylinux_2_${n}_x86_64"); done  # pip takes each as it is spelled
    platforms+=(--platform manylinux1_x86_64 --platform manylinux2010_x86_64 --platform manylinux2014_x86_64)
    local what=($test_needs 'blake3>=1.0,<2' 'lz4>=4.3.2,<5' 'rich>=13.7,<16' 'typer>=0.12,<1')
    what+=("nvidia-libnvcomp-cu$cuda$nvcomp")
    if [ -z "$lean" ]; then
        what+=('numpy>=1.26' "cupy-cuda${cuda}x>=14.0.1,!=14.1.0,<15")
        if [ "$cuda" = 13 ]; then what+=('nvidia-cuda-nvrtc>=13,<14'); else what+=('nvidia-cuda-nvrtc-cu12>=12,<13'); fi
    fi
    mkdir -p "$collect" && rm -f "$collect"/dumont_gpu-*.whl || return
    "$python" -m pip wheel -q --no-deps --wheel-dir "$collect" "$repo" || return
    sources >"$collect/dumont_gpu.sources"
    "$python" -m pip download -q --only-binary=:all: --python-version "$version" --implementation cp \
        "${platforms[@]}" --dest "$collect" "${what[@]}" || return
    du -shc "$collect"/*.whl
}

if [ -n "$collect" ]; then
    collect_wheels
    exit
fi

# --- installation -----------------------------------------------------------------------------------------------------

driver_cuda() {  # the major version of the CUDA that the driver is for; nothing without a driver
    "$python" - <<'CODE'
import ctypes
try:
    version, cuda = ctypes.c_int(), ctypes.CDLL("libcuda.so.1")
    if cuda.cuInit(0) == 0 and cuda.cuDriverGetVersion(ctypes.byref(version)) == 0:
        print(version.value // 1000)
except OSError:
    pass
CODE
}

work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
env=${env:-$work/env}
mkdir -p "$env" "$results" || exit
env=$(cd "$env" && pwd) results=$(cd "$results" && pwd)
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)
if [ -n "$log" ]; then : >"$log" && log=$(cd "$(dirname "$log")" && pwd)/$(basename "$log") || exit; fi
[ -z "$tree" ] || tree=$(cd "$tree" && pwd) || exit
if [ -n "$device" ]; then export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=$device; fi
found=$(driver_cuda)
if [ -z "$found" ] && [ -z "$without_gpu" ]; then
    echo "gpu_check.sh: no NVIDIA driver that starts on this machine" >&2
    exit 1
fi
cuda=${found:-$cuda}
[ "$cuda" -lt 13 ] || cuda=13
nvcc=$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)
overlay=
if "$python" -c 'import cupy' 2>/dev/null; then overlay=1; fi

# Over an interpreter that has CuPy: only what it lacks, in a folder of its own. A virtual environment could not do that
# where the interpreter belongs to one itself.
install_overlay() {
    local site=$env/site wheel
    rm -rf "$site" && mkdir -p "$site" || return
    local pip=("$python" -m pip install -q --disable-pip-version-check --no-compile --upgrade --target "$site")
    if [ -z "$wheels" ]; then
        "${pip[@]}" "$repo" $test_needs "nvidia-libnvcomp-cu$cuda$nvcomp"
        return
    fi
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
    "$python" -m venv --clear "$env/venv" || return
    local pip=("$env/venv/bin/python" -m pip install -q --disable-pip-version-check)
    if [ -z "$wheels" ]; then
        "${pip[@]}" "$repo[bench,cuda$cuda]" $test_needs
    else
        "${pip[@]}" --no-index --find-links "$wheels" "dumont-gpu[bench,cuda$cuda]" $test_needs
    fi
}

step_install() {
    local now=$(sources)
    if [ "$(cat "$env/installed" 2>/dev/null)" = "$now" ]; then
        echo "used again: the installation of sources $now"
        return
    fi
    if [ -n "$overlay" ]; then install_overlay; else install_environment; fi || return
    local modules='dumont_gpu, blake3, lz4.frame, typer, rich, pytest, pytest_timeout, hypothesis, numpy, cupy'
    "$run" -c "import $modules" || return
    echo "$now" >"$env/installed"
    "$run" -m dumont_gpu doctor
}

# --- steps ------------------------------------------------------------------------------------------------------------

step_self_test() {
    [ -n "$nvcc" ] || { echo "there is no nvcc"; return "$skipped"; }
    "$nvcc" -x cu -std=c++17 -arch=native -I"$repo/kernels" "$repo/tests/emulator/self_test.cpp" -o "$work/self_test" &&
        "$work/self_test"
}

step_tests() {
    local suites=(cuda_backend golden codecs roundtrip cli snapshot_service)
    suites=("${suites[@]/#/$repo/tests/test_}")
    # Of plugins only what is needed: those around an interpreter with CuPy may be for another pytest.
    PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 DUMONT_TEST_DEVICE=0 "$run" -m pytest -c "$repo/pyproject.toml" -p pytest_timeout \
        -p no:cacheprovider -o timeout=180 -o faulthandler_timeout=170 "${suites[@]/%/.py}"
}

step_sanitizer() {
    local tool=$(command -v compute-sanitizer) place failed=0 code said check what limit
    for place in "$(dirname "${nvcc:-/}")" /usr/local/cuda/bin /usr/local/cuda/compute-sanitizer; do
        [ -n "$tool" ] || [ ! -x "$place/compute-sanitizer" ] || tool=$place/compute-sanitizer
    done
    [ -n "$tool" ] || { echo "there is no compute-sanitizer"; return "$skipped"; }
    "$run" "$here/gpu_sanitize.py" all || { echo "wrong even without compute-sanitizer"; return 1; }
    said=
    while read -r check what limit; do
        echo "--- $check, $what"
        timeout --kill-after=10 "$limit" "$tool" --tool "$check" --error-exitcode 9 --report-api-errors no \
            "$run" "$here/gpu_sanitize.py" "$what" >"$work/$check.log" 2>&1
        code=$?
        # The beginning says what is wrong, the end how often.
        [ "$code" = 0 ] || { failed=1; head -n 60 "$work/$check.log"; tail -n 6 "$work/$check.log"; }
        case $code in
            0) said+="$check ok; " ;;
            9) said+="$check FOUND ERRORS; " ;;
            124 | 137) said+="$check past $limit s; " ;;
            *) said+="$check failed ($code); " ;;
        esac
    done <<'CHECKS'
memcheck all 120
racecheck ours 120
synccheck ours 80
initcheck good 80
CHECKS
    echo "${said%; }"
    return "$failed"
}

step_kernels() { "$run" "$here/gpu_kernels.py" "$work/kernels.json" $quick; }
step_copies() { "$run" "$here/gpu_copies.py" "$work/copies.json" $quick; }
step_encode() { "$run" "$here/gpu_encode.py" "$work/encode.json" $quick; }
whole_jobs() {  # restores (jobs) or packs
    "$run" "$here/gpu_$1.py" "$work/$1.json" --disk "$disk" ${size:+--size "$size"} ${tree:+--tree "$tree"} $quick
}
step_jobs() { whole_jobs jobs; }
step_packs() { whole_jobs packs; }

# Each in a shell of its own, so that a step past its limit ends alone.
run_step() {
    local name=$1 limit=$2 to_come=$3 begin=$SECONDS code left  # to_come: the limits of this step and of all after it
    printf '=== %s (%s s)\n' "$name" "$SECONDS" >&2
    if [ -n "$budget" ]; then
        left=$((budget - SECONDS - 20))
        [ "$to_come" -le "$left" ] || limit=$((left * limit / to_come))
    fi
    if [ "$limit" -lt 10 ]; then
        echo "no time was left of $budget s" >"$work/$name.log"
        code=$skipped
    else
        timeout --kill-after=10 "$limit" bash -uo pipefail -c "step_$name" >"$work/$name.log" 2>&1
        code=$?
    fi
    [ -z "$log" ] || { printf '=== %s: exit code %s\n' "$name" "$code"; cat "$work/$name.log"; } >>"$log"
    printf '%s %s %s\n' "$code" "$((SECONDS - begin))" "$limit" >"$work/$name.status"
    tail -n "$([ "$code" = 0 ] && echo 3 || echo 25)" "$work/$name.log" >&2
    [ "$code" = 0 ] || [ "$code" = "$skipped" ]
}

export here repo python wheels env quick disk size tree cuda nvcc overlay work nvcomp skipped test_needs
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
if [ -n "$overlay" ]; then
    run=$("$python" -c 'import sys; print(sys.executable)')  # compute-sanitizer wants no script that starts it
    export PYTHONPATH="$env/site${PYTHONPATH:+:$PYTHONPATH}"
else
    run=$env/venv/bin/python
fi
export run
export -f sources step_install install_overlay install_environment step_self_test step_tests step_sanitizer \
    step_kernels step_encode step_copies step_jobs step_packs whole_jobs
cd "$work" || exit  # not the checkout: its packages are not the ones under test

declare -A limits=([self_test]=180 [tests]=240 [sanitizer]=420 [kernels]=300 [encode]=120 [copies]=40 [jobs]=270
    [packs]=270)
status=0 to_come=0
for step in ${steps//,/ }; do to_come=$((to_come + limits[$step])); done
if run_step install 900 900; then
    for step in ${steps//,/ }; do
        run_step "$step" "${limits[$step]}" "$to_come" || status=1
        to_come=$((to_come - limits[$step]))
    done
else
    status=1
fi
[ -x "$run" ] || run=$python
"$run" "$here/gpu_report.py" collect "$work" --results "$results" || status=1
exit "$status"
