#!/usr/bin/env bash
# Checks dumont-gpu on this machine's NVIDIA GPU and measures it: one command, everything it installs in a folder of its
# own. Writes bench/results/gpu-NAME.json and .md, anew after every step. -h shows the options.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
python=${PYTHON:-python3}
all_steps=smoke,self_test,tests,sanitizer,kernels,variants,encode,copies,jobs,packs,loads
skipped=77     # exit code of a step that cannot run here, as report/steps.py knows it
no_device=7    # of this script, as of dumont-gpu
for_report=20  # seconds of a budget that are kept for the end

# Seconds that a step may take; all of them, and with --short.
declare -A limits=([install]=900 [smoke]=90 [self_test]=180 [tests]=240 [sanitizer]=420 [kernels]=300 [variants]=90
    [encode]=120 [copies]=40 [jobs]=270 [packs]=270 [loads]=180)
declare -A short_limits=([install]=45 [smoke]=35 [self_test]=60 [tests]=40 [sanitizer]=95 [kernels]=45 [variants]=30
    [encode]=35 [copies]=15 [jobs]=65 [packs]=60 [loads]=45)
short_budget=320
declare -A short_steps=([1]=smoke,sanitizer,kernels,variants,encode,copies [2]=kernels,loads,jobs,packs,tests)
declare -A short_profile=([1]=--quick [2]=--short)
declare -A short_size=([1]= [2]=$((2 << 30)))

usage() {
    cat <<'TEXT'
bench/gpu_check.sh [options]                     build, test and measure on the GPU
bench/gpu_check.sh --collect-wheels DIR [...]    on a machine with a network: gather wheels for an offline machine

  --wheels DIR       install from these wheels, without a network; of dumont-gpu too, if it is among them
  --env DIR          keep the installation there, and use it again if it is there
  --steps A,B,...    of smoke,self_test,tests,sanitizer,kernels,variants,encode,copies,jobs,packs,loads, in this
                     order; default: all
  --short 1, 2       the first or second of two commands of at most 320 s that do what matters most: the first shows that
                     everything works, the second measures; other options change what they differ in
  --budget SECONDS   be done by then: steps share what is left, and are cut short, so that there is a report
  --limits A=S,...   seconds that these steps may take
  --quick            small inputs, few repeats: shows that everything works
  --device N         as nvidia-smi numbers them; default: the first
  --results DIR      where the report goes; figures of other steps that are there already stay. Default: bench/results
  --log FILE         everything that the steps said, too; the report has the last lines of those that failed
  --disk DIR         the disk that jobs, packs and loads write to; default: the temporary folder
  --size BYTES       of the file that they restore, pack and load; default: 4 GiB, or what fits
  --tree DIR         another input for jobs and packs, such as the one of bench/workspace.py
  --without-gpu      go on where there is none, to try the script: what needs one fails

  --collect-wheels DIR   download wheels, and build dumont-gpu's
  --python 3.12          for this Python; default: the running one
  --cuda 13              for this CUDA, 12 or 13
  --lean                 leave out CuPy, NumPy and NVRTC: the machine has them

PYTHON names the interpreter (python3). Where it has CuPy, the rest is laid over its packages; otherwise a virtual
environment gets everything. DUMONT_COMMIT says which commit this is where git cannot. Exit code: 0 all is well, or was
skipped for want of a tool; 1 a step failed, or the report could not be written; 2 usage; 7 there is no device.
TEXT
}

refuse() { echo "gpu_check.sh: $*" >&2; exit 2; }

wheels= env= steps= short= profile= device= results=$here/results disk=${TMPDIR:-/tmp} size= tree=
log= budget= own_limits= without_gpu=
collect= target_python= cuda=13 lean=
need() { [ $# -ge 2 ] || refuse "$1 needs a value"; }
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) need "$@"; wheels=$2; shift ;;
        --env) need "$@"; env=$2; shift ;;
        --steps) need "$@"; steps=$2; shift ;;
        --short) need "$@"; short=$2; shift ;;
        --budget) need "$@"; budget=$2; shift ;;
        --limits) need "$@"; own_limits=$2; shift ;;
        --quick) profile=--quick ;;
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
        *) refuse "unknown option $1; -h shows them" ;;
    esac
    shift
done
if [ -n "$short" ]; then
    [[ $short == [12] ]] || refuse "--short is 1 or 2"
    steps=${steps:-${short_steps[$short]}} profile=${profile:-${short_profile[$short]}}
    size=${size:-${short_size[$short]}} budget=${budget:-$short_budget}
    for step in "${!short_limits[@]}"; do limits[$step]=${short_limits[$step]}; done
fi
steps=${steps:-$all_steps}
for step in ${steps//,/ }; do
    [[ ,$all_steps, == *,$step,* ]] || refuse "no step is called $step: $all_steps"
done
for each in ${own_limits//,/ }; do
    [[ $each =~ ^([a-z_]+)=([0-9]+)$ && -n ${limits[${BASH_REMATCH[1]}]:-} ]] || refuse "--limits is STEP=SECONDS,..."
    limits[${BASH_REMATCH[1]}]=${BASH_REMATCH[2]}
done
[[ $cuda == 12 || $cuda == 13 ]] || refuse "--cuda is 12 or 13"
[[ -z $device || $device =~ ^[0-9]+$ ]] || refuse "--device is a number"
[[ -z $budget || $budget =~ ^[0-9]+$ ]] || refuse "--budget is a number of seconds"
[ -z "$wheels" ] || [ -d "$wheels" ] || refuse "there is no folder $wheels"
command -v "$python" >/dev/null || refuse "there is no $python; PYTHON names another"

if [ -n "$collect" ]; then
    source "$here/gpu_install.sh"
    collect_wheels "$collect"
    exit
fi

# --- where everything goes --------------------------------------------------------------------------------------------

work=$(mktemp -d) || exit
trap '[ -n "$keep_work" ] || rm -rf "$work"' EXIT
keep_work= session=
env=${env:-$work/env}
mkdir -p "$env" || exit
env=$(cd "$env" && pwd)
# A folder that cannot be written costs no step: the report is then printed at the end.
mkdir -p "$results" && results=$(cd "$results" && pwd) || echo "gpu_check.sh: no report can go to $results" >&2
if [ -n "$log" ]; then
    { : >"$log"; } 2>/dev/null && log=$(cd "$(dirname "$log")" && pwd)/$(basename "$log") ||
        { echo "gpu_check.sh: $log cannot be written: going on without" >&2; log=; }
fi
[ -z "$wheels" ] || wheels=$(cd "$wheels" && pwd)
disk=$(cd "$disk" && pwd) || exit
[ -z "$tree" ] || tree=$(cd "$tree" && pwd) || exit
if [ -n "$device" ]; then export CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES=$device; fi

driver_cuda() {  # prints the major version of the CUDA that the driver is for, or why there is none
    timeout --kill-after=5 60 "$python" - 2>/dev/null <<'CODE' || echo "the NVIDIA driver does not answer"
import ctypes
try:
    version, cuda = ctypes.c_int(), ctypes.CDLL("libcuda.so.1")
    status = cuda.cuInit(0) or cuda.cuDriverGetVersion(ctypes.byref(version))
    print(f"the NVIDIA driver does not start (status {status})" if status else version.value // 1000)
except OSError:
    print("no NVIDIA driver (libcuda.so.1) on this machine")
except AttributeError:
    print("the libcuda.so.1 of this machine is no NVIDIA driver")
CODE
}

prevented=  # why no step can run
found=$(driver_cuda)
if [[ $found =~ ^[0-9]+$ ]]; then
    cuda=$((found < 13 ? 12 : 13))
else
    echo "gpu_check.sh: $found" >&2
    [ -n "$without_gpu" ] || prevented=$found
    found=
fi
export CUDA_HOME=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || ls "$CUDA_HOME/bin/nvcc" 2>/dev/null)
overlay=
if [ -z "$prevented" ] && timeout --kill-after=5 60 "$python" -c 'import cupy' 2>/dev/null; then overlay=1; fi
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
if [ -n "$overlay" ]; then
    run=$("$python" -c 'import sys; print(sys.executable)')  # compute-sanitizer wants no script that starts it
    export PYTHONPATH="$env/site${PYTHONPATH:+:$PYTHONPATH}"
else
    run=$env/venv/bin/python
fi
leftovers=${work##*/}-jobs-  # how folders begin that jobs fill, and leave behind if they are killed
export here repo python wheels env profile disk size tree cuda found nvcc overlay work skipped run leftovers
cd "$work" || exit  # not the checkout: its packages are not the ones under test

# --- steps and the report ---------------------------------------------------------------------------------------------

end_session() {  # ends the processes that are left of a step: all in its session, whatever group they made
    local stat line
    for stat in /proc/[0-9]*/stat; do
        { read -r line <"$stat"; } 2>/dev/null || continue
        set -- "$1" ${line##*) }  # state, parent, group, session
        [ "${5:-}" != "$1" ] || kill -KILL "${stat//[!0-9]/}" 2>/dev/null
    done
}

reporter() {  # gpu_report.py, by the interpreter that has everything, or the one that there is
    local interpreter=$run
    [ -x "$interpreter" ] || interpreter=$python
    timeout --kill-after=5 30 "$interpreter" "$here/gpu_report.py" "$@" >"$work/report.out" 2>&1
}

# Known figures may not depend on later steps: the report is whole after each step. Where no report can be made, its
# sources are kept.
report() {
    [ -e "$work/machine.json" ] || [ -n "$described" ] || reporter describe "$work"
    described=1
    if reporter collect "$work" --results "$results"; then reported=1; return; fi
    reported= kept=
    local file
    mkdir -p "$results/unreported" || return
    for file in "$work"/*.json "$work"/*.log "$work"/*.status; do
        [ ! -e "$file" ] || cp "$file" "$results/unreported/" || { rm -rf "$results/unreported"; return; }
    done
    kept=1
} 2>/dev/null
described= reported= kept=

said=  # the outcome of each step
note_step() {
    local name=$1 code=$2 seconds=$3 limit=$4 word
    case $code in
        0) word=ok ;;
        "$skipped") word="skipped: $(tail -n 1 "$work/$name.log")" ;;
        129 | 130 | 143) word="stopped by a signal" ;;
        124 | 137) word="past its limit of $limit s" ;;
        *) word="FAILED (exit code $code)" ;;
    esac
    if [ "$code" = 137 ] && [ "$seconds" -lt "$limit" ]; then word="KILLED, by this machine"; fi
    if [ "$code" = 124 ] && [ "$limit" = 0 ]; then word=$(cat "$work/$name.log"); fi
    echo "--- $name: $word, $seconds s" >&2
    said+="$name: ${word%%:*}; "
    printf '%s %s %s\n' "$code" "$seconds" "$limit" >"$work/$name.status"
    [ -z "$log" ] || { printf '=== %s: %s, %s s\n' "$name" "$word" "$seconds"; cat "$work/$name.log"; } 2>/dev/null >>"$log"
    report
}

run_step() {  # each in a session of its own: a step past its limit ends alone, with all its processes
    local name=$1 limit=$2 to_come=$3 begin=$SECONDS code left  # to_come: the limits of this step and of all after it
    current=$name
    printf '=== %s (%s s)\n' "$name" "$SECONDS" >&2
    if [ -n "$budget" ] && [ "$to_come" -gt 0 ]; then
        left=$((budget - SECONDS - for_report))
        # The last may have all that is left.
        [ "$to_come" -le "$left" ] && [ "$to_come" != "$limit" ] || limit=$((left * limit / to_come))
    fi
    if [ -n "$prevented" ]; then
        echo "$prevented" >"$work/$name.log"
        code=$skipped
    elif [ "$limit" -lt 1 ]; then
        echo "no time was left${budget:+ of $budget s}" >"$work/$name.log"
        limit=0 code=124
    else
        step_end=$(($(date +%s) + limit)) setsid timeout --kill-after=5 "$limit" \
            bash "$here/gpu_steps.sh" "$name" >"$work/$name.log" 2>&1 </dev/null &
        session=$!
        wait "$session" 2>/dev/null
        code=$?
        end_session "$session"
        session=
        rm -rf "$disk/$leftovers"* "/dev/shm/$leftovers"*
        tail -n "$([ "$code" = 0 ] && echo 3 || echo 25)" "$work/$name.log" >&2
    fi
    note_step "$name" "$code" $((SECONDS - begin)) "$limit"
    [ "$code" = 0 ] || [ "$code" = "$skipped" ]
}

finish() {
    local code=$1
    [ -z "$said" ] || echo "${said%; }" >&2
    if [ -n "$reported" ]; then
        cat "$work/report.out" >&2
    else
        [ "$code" != 0 ] || code=1
        tail -n 3 "$work/report.out" >&2
        if [ -n "$kept" ]; then
            echo "gpu_check.sh: there is no report; what it would be made from is in $results/unreported" >&2
        else
            keep_work=1
            echo "gpu_check.sh: nothing could be written to $results; what the steps left is in $work" >&2
        fi
        reporter collect "$work" --results "$work/report" && cat "$work"/report/*.md
    fi
    exit "$code"
}

stop() {  # a signal: known figures are reported all the same
    trap '' INT TERM HUP
    if [ -n "$session" ]; then
        end_session "$session"
        rm -rf "$disk/$leftovers"* "/dev/shm/$leftovers"*
        note_step "$current" "$1" 0 0
    fi
    finish "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

status=0 to_come=0
for step in ${steps//,/ }; do to_come=$((to_come + limits[$step])); done
run_step install "${limits[install]}" $((limits[install] + 1)) || status=1  # 1 more: it is not the last
if [ "$status" != 0 ]; then prevented="the installation failed"; fi
for step in ${steps//,/ }; do
    run_step "$step" "${limits[$step]}" "$to_come" || status=1
    to_come=$((to_come - limits[$step]))
done
if [ -z "$found" ] && [ -z "$without_gpu" ]; then status=$no_device; fi
finish "$status"
