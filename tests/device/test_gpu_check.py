"""bench/gpu_check.sh where things are missing, hang, fail or are full: by programs made for the test, without a GPU.

The interpreter is a script: it pretends to have CuPy and a driver, and runs a test's commands in place of a step.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.ptx_machine import missing
from support.snapshots import ROOT

BENCH = ROOT / "bench"
CHECK = BENCH / "gpu_check.sh"
TOOLS = (
    "bash", "basename", "cat", "cp", "cut", "date", "dirname", "env", "find", "grep", "head", "ls", "mkdir", "mktemp",
    "rm", "seq", "setsid", "sha256sum", "sleep", "sort", "tail", "tee", "timeout", "xargs",
)  # fmt: skip  # the programs of a bare image; no git
NO_DRIVER = "no NVIDIA driver (libcuda.so.1) on this machine"
EVERYTHING = [
    "install",
    "smoke",
    "self_test",
    "tests",
    "sanitizer",
    "kernels",
    "variants",
    "encode",
    "copies",
    "jobs",
    "packs",
    "loads",
]

INTERPRETER = """#!/bin/bash
# The real one for reports; anything else is what the test says, or done at once.
printf '%s\\n' "$*" >>"{folder}/calls"
case "$*" in
    -) cat >/dev/null; cat "{folder}/driver" ;;
    "-c import sys; print(sys.executable)") echo "{folder}/python3" ;;
    *gpu_report.py*) {report}
        exec "{real}" "$@" ;;
    {cases}
    *pytest*) echo "3 passed" ;;
esac
"""


class Machine:
    """The programs on the script's PATH, and one run of the script."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"
        self.environment = {"PATH": str(folder), "HOME": str(folder), "TMPDIR": str(folder), "CUDA_HOME": str(folder)}
        for tool in TOOLS:
            (folder / tool).symlink_to(shutil.which(tool) or f"/bin/{tool}")
        self.driver("13")
        self.interpreter()

    def program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def driver(self, answer: str) -> None:
        (self.folder / "driver").write_text(answer + "\n", encoding="utf-8")

    def interpreter(self, report: str = "", **cases: str) -> None:
        """Makes an interpreter that runs the shell commands of a case if an argument contains the case's word."""
        lines = "\n".join(f'    *"{word}"*) {{ {command}\n    }} ;;' for word, command in cases.items())
        text = INTERPRETER.format(folder=self.folder, real=sys.executable, report=report, cases=lines.strip())
        self.program("python3", text)

    def command(self, *arguments: str) -> list[str]:
        return [str(self.folder / "bash"), str(CHECK), "--results", str(self.results), *arguments]

    def run(self, *arguments: str, patience: float = 50, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), capture_output=True, text=True, check=False, timeout=patience,
            env=self.environment | environment,
        )  # fmt: skip

    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text(encoding="utf-8").splitlines()

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.results / "gpu-unknown.json").read_text(encoding="utf-8"))
        return found

    def steps(self) -> dict[str, int]:
        return {name: step["exit_code"] for name, step in self.report()["steps"].items()}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def outcomes(stderr: str) -> dict[str, str]:
    """The outcome of each step as the script reports it: one line per step."""
    lines = [line.removeprefix("--- ").partition(": ") for line in stderr.splitlines() if line.startswith("--- ")]
    assert len(dict.fromkeys(name for name, _, _ in lines)) == len(lines)
    return {name: word.rpartition(", ")[0] for name, _, word in lines}


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Path]:
    """A FIFO that a step opens for writing once the step runs: opening the FIFO for reading waits for the step."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    yield path


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(") ")[2].startswith(("Z", "X"))
    except (FileNotFoundError, ProcessLookupError):
        return True


# --- missing tools and drivers ----------------------------------------------------------------------------------------


def test_all_is_well_without_git_nvcc_and_compute_sanitizer(machine: Machine) -> None:
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert list(machine.steps()) == EVERYTHING
    assert outcomes(done.stderr) == dict.fromkeys(EVERYTHING, "ok") | {
        "self_test": "skipped: there is no nvcc", "sanitizer": "skipped: there is no compute-sanitizer",
    }  # fmt: skip
    assert machine.report()["steps"]["smoke"]["machine"]["commit"] == "unknown"
    assert (machine.results / "gpu-unknown.md").read_text(encoding="utf-8").startswith("# dumont-gpu on")
    assert sorted(path.name for path in machine.results.iterdir()) == ["gpu-unknown.json", "gpu-unknown.md"]
    assert not list(machine.folder.glob("tmp.*"))


def test_commit_is_as_told_where_git_cannot_say(machine: Machine) -> None:
    machine.run("--steps", "copies", DUMONT_COMMIT="0123456789ab")
    assert machine.report()["steps"]["copies"]["machine"]["commit"].startswith("0123456789ab (as told")


def test_git_that_fails_is_no_git(machine: Machine) -> None:
    machine.program("git", "#!/bin/bash\necho 'fatal: detected dubious ownership' >&2\nexit 128\n")
    assert machine.run("--steps", "copies").returncode == 0
    assert machine.report()["steps"]["copies"]["machine"]["commit"] == "unknown"


@pytest.mark.parametrize("answer", [NO_DRIVER, "the NVIDIA driver does not start (status 999)"])
def test_without_a_driver_every_step_says_so(answer: str, machine: Machine) -> None:
    machine.driver(answer)
    done = machine.run("--short", "1")
    assert done.returncode == 7
    names = ["install", "smoke", "sanitizer", "kernels", "variants", "encode", "copies"]
    assert outcomes(done.stderr) == dict.fromkeys(names, f"skipped: {answer}")
    assert set(machine.steps().values()) == {77}
    assert answer in (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")
    assert not any("pip" in call for call in machine.calls())


@pytest.mark.parametrize("source", ["", "int other(void) { return 0; }"], ids=["none", "no driver"])
def test_what_is_no_driver_is_said_to_be_none(source: str, machine: Machine) -> None:
    """The real question, put to this machine, or to a library that only has the name."""
    if not source and Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver")
    if source:
        if not shutil.which("cc"):
            pytest.skip("needs a C compiler")
        library = machine.folder / "libcuda.so.1"
        subprocess.run(["cc", "-shared", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
    machine.program("python3", f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    done = machine.run("--steps", "copies", LD_LIBRARY_PATH=str(machine.folder))
    assert done.returncode == 7
    expected = "the libcuda.so.1 of this machine is no NVIDIA driver" if source else NO_DRIVER
    assert outcomes(done.stderr)["copies"] == f"skipped: {expected}"


def test_without_a_gpu_steps_can_be_tried(machine: Machine) -> None:
    machine.driver(NO_DRIVER)
    machine.interpreter(**{"gpu.smoke": "echo 'CUDA device 0 cannot be used'; exit 1"})
    done = machine.run("--without-gpu", "--steps", "smoke,tests")
    assert done.returncode == 1
    assert outcomes(done.stderr) == {"install": "ok", "smoke": "FAILED (exit code 1)", "tests": "ok"}
    assert "What `smoke` said last" in (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")


def test_installation_that_fails_is_reported_and_nothing_else_is_tried(machine: Machine) -> None:
    machine.interpreter(pip="echo 'ERROR: no network'; exit 1")
    done = machine.run("--steps", "smoke,copies")
    assert done.returncode == 1
    assert outcomes(done.stderr) == {
        "install": "FAILED (exit code 1)", "smoke": "skipped: the installation failed",
        "copies": "skipped: the installation failed",
    }  # fmt: skip
    report = (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")
    assert "ERROR: no network" in report
    assert "pip could not install; where there is no network, --wheels DIR takes a folder" in report


def test_report_needs_no_installed_package(tmp_path: Path) -> None:
    """As after a failed installation: the interpreter has only its standard library."""
    (tmp_path / "install.status").write_text("1 3 90\n")
    (tmp_path / "install.log").write_text("ERROR: no network\n")
    for command in (["describe", tmp_path], ["collect", tmp_path, "--results", tmp_path / "results"]):
        line = [sys.executable, "-S", BENCH / "gpu_report.py", *command]
        subprocess.run(line, check=True, cwd="/", env={"PATH": "/nowhere"}, capture_output=True)
    assert "ERROR: no network" in (tmp_path / "results/gpu-unknown.md").read_text(encoding="utf-8")


# --- steps that hang or are killed ------------------------------------------------------------------------------------


def test_step_that_hangs_ends_at_its_limit_with_all_that_it_started(machine: Machine) -> None:
    # The step ignores SIGTERM, and has a child in a process group of its own.
    hang = f"""trap '' TERM; timeout 1000 sleep 1000 & echo $! >"{machine.folder}/child"
        echo "encoding begins"; sleep 1000; sleep 1000"""
    machine.interpreter(**{"gpu.encode": hang})
    done = machine.run("--steps", "copies,encode,kernels", "--limits", "encode=3")
    assert done.returncode == 1
    assert outcomes(done.stderr) == {
        "install": "ok", "copies": "ok", "encode": "past its limit of 3 s", "kernels": "ok",
    }  # fmt: skip
    assert machine.steps()["encode"] in (124, 137)
    assert "encoding begins" in (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")
    assert ended(int((machine.folder / "child").read_text(encoding="utf-8")))


def test_step_past_its_limit_may_clean_up(machine: Machine) -> None:
    tidy = f"""trap 'sleep 1; rm "{machine.folder}/gigabytes"; exit' TERM; >"{machine.folder}/gigabytes"; sleep 1000"""
    machine.interpreter(**{"gpu.restores": tidy})
    machine.run("--steps", "jobs", "--limits", "jobs=3")
    assert machine.steps()["jobs"] == 124
    assert not (machine.folder / "gigabytes").exists()


def test_gigabytes_of_a_step_that_had_to_be_killed_are_deleted(machine: Machine) -> None:
    stubborn = f"""trap '' TERM
        while [ "$1" != --prefix ]; do shift; done
        for place in "{machine.folder}" /dev/shm; do mkdir "$place/${{2}}x"; echo "$place/${{2}}x" >>"{machine.folder}/made"; done
        sleep 1000; sleep 1000"""
    machine.interpreter(**{"gpu.restores": stubborn})
    machine.run("--steps", "jobs", "--limits", "jobs=2", "--disk", str(machine.folder))
    assert machine.steps()["jobs"] == 137
    made = (machine.folder / "made").read_text(encoding="utf-8").split()
    assert len(made) == 2
    assert [path for path in made if Path(path).exists()] == []


def test_killed_script_loses_only_the_step_that_ran(machine: Machine, gate: Path) -> None:
    begun = f'echo $$ >"{gate}"; exec sleep 1000'
    machine.interpreter(**{"gpu.kernels": 'echo "{}" >"$3"', "gpu.encode": begun})
    process = subprocess.Popen(
        machine.command("--steps", "kernels,copies,encode,jobs"), env=machine.environment, stderr=subprocess.DEVNULL
    )
    step = int(gate.read_text(encoding="utf-8"))
    process.kill()
    process.wait()
    os.kill(step, signal.SIGKILL)
    assert machine.steps() == {"install": 0, "kernels": 0, "copies": 0}
    assert machine.report()["steps"]["kernels"]["data"] == {}
    assert "| copies | " in (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_signal_ends_the_step_and_is_reported(number: int, code: int, machine: Machine, gate: Path) -> None:
    machine.interpreter(**{"gpu.encode": f'echo $$ >"{gate}"; exec sleep 1000'})
    process = subprocess.Popen(
        machine.command("--steps", "copies,encode,jobs"), env=machine.environment, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # or bash could not catch the signal under nohup
    )  # fmt: skip
    step = int(gate.read_text(encoding="utf-8"))
    process.send_signal(number)
    _, stderr = process.communicate(timeout=50)
    assert process.returncode == code
    assert ended(step)
    assert outcomes(stderr) == {"install": "ok", "copies": "ok", "encode": "stopped by a signal"}
    assert machine.steps() == {"install": 0, "copies": 0, "encode": code}
    assert "stopped by a signal" in (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")


def test_figures_that_were_cut_off_cost_no_report(machine: Machine) -> None:
    machine.interpreter(**{"gpu.kernels": """echo '{"chunk": 1, "zip' >"$3"; exit 1"""})
    assert machine.run("--steps", "kernels,copies").returncode == 1
    assert machine.report()["steps"]["kernels"]["data"] is None
    assert machine.steps() == {"install": 0, "kernels": 1, "copies": 0}


def test_steps_that_no_time_is_left_for_are_reported(machine: Machine) -> None:
    done = machine.run("--steps", "copies,jobs", "--budget", "0")
    assert done.returncode == 1
    assert outcomes(done.stderr)["install"] == "no time was left of 0 s"
    assert machine.steps() == {"install": 124, "copies": 77, "jobs": 77}
    done = machine.run("--steps", "copies,jobs", "--limits", "copies=0")
    assert outcomes(done.stderr) == {"install": "ok", "copies": "no time was left", "jobs": "ok"}
    assert done.returncode == 1


# --- reports that cannot be made or written ---------------------------------------------------------------------------


def test_report_that_fails_leaves_what_it_would_be_made_from(machine: Machine) -> None:
    machine.interpreter(report="echo 'a fault of the report' >&2; exit 1", **{"gpu.kernels": 'echo "{}" >"$3"'})
    done = machine.run("--steps", "kernels")
    assert done.returncode == 1
    kept = machine.results / "unreported"
    assert {path.name for path in kept.iterdir()} == {
        "install.log", "install.status", "kernels.json", "kernels.log", "kernels.status",
    }  # fmt: skip
    assert "a fault of the report" in done.stderr
    assert f"there is no report; what it would be made from is in {kept}" in done.stderr


def test_results_that_cannot_be_written_are_printed(machine: Machine) -> None:
    machine.results = machine.folder / "python3" / "results"  # a path below a file
    done = machine.run("--steps", "copies")
    assert done.returncode == 1
    assert outcomes(done.stderr) == {"install": "ok", "copies": "ok"}
    assert f"no report can go to {machine.results}" in done.stderr
    assert "| copies | " in done.stdout
    (left,) = machine.folder.glob("tmp.*")
    assert f"what the steps left is in {left}" in done.stderr
    assert (left / "copies.status").exists()


def test_full_disk_at_the_results_is_said_and_the_report_printed(machine: Machine) -> None:
    machine.results.mkdir()
    full = f'mount -t tmpfs -o size=4k none "{machine.results}" && echo x >"{machine.results}/x" && exec "$@"'
    line = ["unshare", "-m", "bash", "-c", full, "bash", *machine.command("--steps", "copies")]
    if subprocess.run(["unshare", "-m", "bash", "-c", full, "bash", "true"], capture_output=True).returncode:
        pytest.skip("mounting a file system needs a right that this user does not have")
    done = subprocess.run(
        line, env=machine.environment | {"PATH": os.environ["PATH"], "PYTHON": str(machine.folder / "python3")},
        capture_output=True, text=True, timeout=50,
    )  # fmt: skip
    assert done.returncode == 1
    assert outcomes(done.stderr) == {"install": "ok", "copies": "ok"}
    assert "gpu_report.py: No space left on device" in done.stderr
    assert f"nothing could be written to {machine.results}" in done.stderr
    assert "| copies | " in done.stdout


def test_log_that_cannot_be_written_is_said_once(machine: Machine) -> None:
    done = machine.run("--steps", "copies", "--log", "/dev/null/log")
    assert done.returncode == 0
    assert done.stderr.count("/dev/null/log") == 1


def test_log_has_everything(machine: Machine) -> None:
    machine.interpreter(**{"gpu.copies": "echo 1; echo 2"})
    machine.run("--steps", "copies", "--log", str(machine.folder / "log"))
    _, _, said = (machine.folder / "log").read_text(encoding="utf-8").partition("=== copies: ok, ")
    assert said.split("\n")[1:] == ["1", "2", ""]


def test_earlier_results_stay_and_unreadable_ones_are_put_aside(machine: Machine) -> None:
    machine.run("--steps", "copies")
    machine.run("--steps", "jobs")
    assert list(machine.steps()) == ["install", "copies", "jobs"]
    (machine.results / "gpu-unknown.json").write_text('{"device": "unkn')
    assert machine.run("--steps", "packs").returncode == 0
    assert list(machine.steps()) == ["install", "packs"]
    assert (machine.results / "gpu-unknown.json.unreadable").read_text(encoding="utf-8") == '{"device": "unkn'


# --- the steps --------------------------------------------------------------------------------------------------------

SANITIZER = """#!/bin/bash
echo "$*" >>"{folder}/tools"
case $2 in {cases}
esac
"""


def test_races_are_looked_for_first_and_each_verdict_is_said_at_once(machine: Machine) -> None:
    cases = "memcheck) echo 'Invalid __global__ read'; exit 9 ;;\nsynccheck) exit 124 ;;"
    machine.program("compute-sanitizer", SANITIZER.format(folder=machine.folder, cases=cases))
    done = machine.run("--steps", "sanitizer")
    tools = [line.split()[1] for line in (machine.folder / "tools").read_text(encoding="utf-8").splitlines()]
    assert tools == ["racecheck", "memcheck", "synccheck", "initcheck"]
    log = machine.report()["steps"]["sanitizer"]["log"]
    assert log[:2] == ["racecheck ok", "Invalid __global__ read"]
    assert "racecheck ok; memcheck FOUND ERRORS" in log
    assert any(line.startswith("racecheck ok; memcheck FOUND ERRORS; synccheck past ") for line in log)
    assert done.returncode == 1


def test_sanitizer_cut_short_has_said_what_it_found(machine: Machine, gate: Path) -> None:
    machine.program("compute-sanitizer", SANITIZER.format(
        folder=machine.folder, cases=f'memcheck) echo $$ >"{gate}"; exec sleep 1000 ;;'))  # fmt: skip
    process = subprocess.Popen(
        machine.command("--steps", "sanitizer"), env=machine.environment, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    tool = int(gate.read_text(encoding="utf-8"))
    process.terminate()
    assert process.wait(timeout=50) == 143
    assert ended(tool)
    assert machine.report()["steps"]["sanitizer"]["log"] == ["racecheck ok"]


def test_device_that_compute_sanitizer_does_not_know_is_skipped(machine: Machine) -> None:
    machine.program("compute-sanitizer", "#!/bin/bash\necho '========= Error: Device not supported'\nexit 1\n")
    done = machine.run("--steps", "sanitizer")
    assert done.returncode == 0
    assert outcomes(done.stderr)["sanitizer"].startswith("skipped: compute-sanitizer does not support")


def test_device_tests_run_alone_and_a_hung_kernel_cannot_eat_the_step(machine: Machine) -> None:
    machine.interpreter(test_cuda_backend='echo "+++ Timeout +++"; exit 1')
    done = machine.run("--steps", "tests")
    assert outcomes(done.stderr)["tests"] == "FAILED (exit code 1)"
    on_device, jobs = (call for call in machine.calls() if "pytest -c" in call)
    for call in (on_device, jobs):
        assert "-o timeout_method=thread -o timeout=40 " in call
    assert " -x " in on_device
    assert "test_cli" in jobs
    assert "on the device: +++ Timeout +++; whole jobs: 3 passed" in machine.report()["steps"]["tests"]["log"]


def test_tests_cut_short_have_said_what_the_device_did(machine: Machine, gate: Path) -> None:
    machine.interpreter(test_cli=f'echo $$ >"{gate}"; exec sleep 1000')
    process = subprocess.Popen(
        machine.command("--steps", "tests"), env=machine.environment, stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )  # fmt: skip
    suite = int(gate.read_text(encoding="utf-8"))
    process.terminate()
    assert process.wait(timeout=50) == 143
    assert ended(suite)
    assert machine.report()["steps"]["tests"]["log"][-1] == "on the device: 3 passed"


def test_last_step_may_have_all_the_time_that_is_left(machine: Machine) -> None:
    machine.run("--steps", "copies,jobs", "--budget", "600", "--limits", "jobs=5")
    limits = {name: step["limit"] for name, step in machine.report()["steps"].items()}
    assert limits["copies"] == 40
    assert limits["jobs"] > 100


@pytest.mark.parametrize(
    ("number", "steps", "words"),
    [
        ("1", ["smoke", "sanitizer", "kernels", "variants", "encode", "copies"], ["--quick"]),
        ("2", ["kernels", "loads", "jobs", "packs", "tests"], ["--short", "--size 2147483648"]),
    ],
)
def test_short_calls(number: str, steps: list[str], words: list[str], machine: Machine) -> None:
    done = machine.run("--short", number)
    assert done.returncode == 0
    assert list(outcomes(done.stderr)) == ["install", *steps]
    measured = [call for call in machine.calls() if "kernels.json" in call or "packs.json" in call]
    for word in words:
        assert any(f" {word}" in call for call in measured)


@pytest.mark.parametrize("number", ["1", "2"])
def test_limits_of_the_short_calls_fit_their_time(number: str, machine: Machine) -> None:
    """All limits together, as the script itself hands them out: with the installation, and the time for the report."""
    machine.run("--short", number)
    limits = {name: step["limit"] for name, step in machine.report()["steps"].items()}
    last = list(limits)[-1]
    script = CHECK.read_text(encoding="utf-8")
    table = script.partition("short_limits=(")[2].partition(")")[0]
    declared = {name: int(value) for name, value in (word[1:].split("]=") for word in table.split())}
    for_report = int(script.partition("for_report=")[2].split()[0])
    assert {name: limit for name, limit in limits.items() if name != last} == {
        name: declared[name] for name in limits if name != last
    }  # nothing is cut short if every step before takes all of its time
    assert sum(declared[name] for name in limits) <= 320 - for_report
    assert limits[last] >= declared[last]


WATCH = """#!/bin/bash
while [ "${1##*/}" != python3 ]; do shift; done
exec "$@"
"""
CUPYS = {  # problems of each step that only a CUDA device and CuPy can be without
    "kernels": ["occupancy", "bf16, most shared memory", "nvCOMP, bf16"],
    "encode": ["nvCOMP, bf16"],
    "copies": ["copies within the device"],
    "jobs": ["opening the device"],
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", ["1", "2"])
def test_every_step_of_a_short_call_runs_on_the_double(number: str, machine: Machine) -> None:
    """The script, the real steps and the real report; the device is emulated, and its inputs are small."""
    if reason := missing():
        pytest.skip(reason)
    machine.program("compute-sanitizer", WATCH)
    double = f'shift; PATH="{os.environ["PATH"]}" exec "{sys.executable}" "{ROOT}/tests/support/on_double.py" "$@"'
    machine.interpreter(**{"-m dumont_gpu.bench.measure.gpu.": double})
    done = machine.run(
        "--short", number, "--size", str(4 << 20), "--disk", str(machine.folder), "--budget", "9000",
        "--limits", ",".join(f"{step}=500" for step in EVERYTHING), patience=550,
    )  # fmt: skip
    steps = machine.report()["steps"]
    problems = {name: step["data"]["problems"] for name, step in steps.items() if step["data"]}
    assert {name: [each.split(": ")[0] for each in said] for name, said in problems.items() if said} == {
        name: said for name, said in CUPYS.items() if name in steps
    }, done.stderr
    assert machine.steps() == {name: int(name in CUPYS) for name in steps}, done.stderr
    if number == "1":
        assert steps["smoke"]["log"][-1].endswith("6 of 6 chunks of 1 MiB are right, 12 of 12 ways of loading tensors")
        assert steps["sanitizer"]["log"][-1] == "racecheck ok; memcheck ok; synccheck ok; initcheck ok"
    report = (machine.results / "gpu-unknown.md").read_text(encoding="utf-8")
    titles = {
        "1": ["Decoding on the device: ZipNN", "Decoding on the device: variants of the kernel", "Encoding on the device: ZipNN", "Copies"],
        "2": ["Decoding on the device: ZipNN", "Restores", "Packs", "Loads: tensors of every kind", "Loads", "Loads: each stage alone"],
    }  # fmt: skip
    assert [title for title in titles[number] if f"## {title}\n" not in report] == []
    assert "WRONG" not in report


# --- installation -----------------------------------------------------------------------------------------------------


def required(*groups: str) -> list[str]:
    line = [sys.executable, str(BENCH / "requirements.py"), *groups]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def test_requirements_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = required("run", "check", "cuda13")
    assert all(f'"{each}"' in text for each in found)
    names = [each.partition(">")[0] for each in found]
    assert names == ["blake3", "lz4", "numpy", "pathspec", "rich", "typer", "zstandard", "hypothesis", "pytest", "pytest-timeout",
                     "cupy-cuda13x", "nvidia-cuda-nvrtc", "nvidia-nvcomp-cu13"]  # fmt: skip
    assert [each.partition(">")[0] for each in required("cuda12", "--lean")] == ["nvidia-nvcomp-cu12"]


WANTED = required("run", "check", "cuda13", "--lean")


def wheels_for(folder: Path, **changed: str) -> Path:
    """Empty wheels of the lowest version that each requirement allows, but for those that are changed."""
    for each in WANTED:
        name = each.partition(">")[0]
        version = changed.pop(name.replace("-", "_"), each.partition(">=")[2].partition(",")[0])
        if version:
            (folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl").touch()
    return folder


@pytest.mark.parametrize(
    ("changed", "problem"),
    [({}, ""), ({"typer": "0.29.0"}, "typer<0.29,>=0.12: 0.29.0"), ({"nvidia_nvcomp_cu13": ""}, "nvidia-nvcomp-cu13<7,>=5.1: no wheel"),
     ({"nvidia_nvcomp_cu13": "7.0.0.1"}, "nvidia-nvcomp-cu13<7,>=5.1: 7.0.0.1"), ({"hypothesis": "6.99"}, "hypothesis>=6.100: 6.99")],
)  # fmt: skip
def test_wheels_that_are_not_what_the_project_asks_for_are_named(
    changed: dict[str, str], problem: str, tmp_path: Path
) -> None:
    line = [sys.executable, str(BENCH / "requirements.py"), "run", "check", "cuda13", "--lean", "--wheels"]
    done = subprocess.run([*line, wheels_for(tmp_path, **changed)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{problem}\n" if problem else "", 1 if problem else 0)


def test_two_versions_of_a_wheel_are_named(tmp_path: Path) -> None:
    (wheels_for(tmp_path) / "rich-14.0-py3-none-any.whl").touch()
    line = [sys.executable, str(BENCH / "requirements.py"), "run", "--lean", "--wheels", str(tmp_path)]
    assert subprocess.run(line, capture_output=True, text=True, check=False).stdout == "rich: 2 versions\n"


def test_wrong_wheels_are_said_and_tried_all_the_same(machine: Machine, tmp_path: Path) -> None:
    machine.interpreter(**{"requirements.py": f'exec "{sys.executable}" "$@"'})
    (tmp_path / "wheels").mkdir()
    done = machine.run("--wheels", str(wheels_for(tmp_path / "wheels", typer="0.29.0")), "--steps", "copies")
    assert outcomes(done.stderr) == {"install": "ok", "copies": "ok"}
    log = machine.report()["steps"]["install"]["log"]
    assert "typer<0.29,>=0.12: 0.29.0" in log
    assert any("NOT WHAT pyproject.toml ASKS FOR" in line for line in log)


def test_no_script_types_a_requirement_again() -> None:
    names = [each.partition(">")[0] for each in required("run", "check", "cuda12", "cuda13")]
    for script in BENCH.glob("*.sh"):
        text = script.read_text(encoding="utf-8")
        assert [name for name in names if any(f"{name}{sign}" in text for sign in "<>=!~")] == []


def test_overlay_is_compiled_and_holds_no_second_version_of_a_wheel(machine: Machine) -> None:
    wheels = machine.folder / "wheels"
    for name in ("typer-0.29.0-py3-none-any.whl", "typer_slim-0.1-py3-none-any.whl"):
        wheels.mkdir(exist_ok=True)
        (wheels / name).touch()
    (machine.folder / "fetched").mkdir()
    names = " ".join(wheel.name for wheel in wheels_for(machine.folder / "fetched", typer="0.28.1").iterdir())
    fetch = f'while [ "$1" != --dest ]; do shift; done; for wheel in {names}; do >"$2/$wheel"; done'
    requirements = f'exec "{sys.executable}" "$@"'
    machine.program("du", "#!/bin/bash\n")
    machine.program("mv", f'#!/bin/bash\nexec {shutil.which("mv")} "$@"\n')
    machine.interpreter(**{"requirements.py": requirements, "pip download": fetch})
    done = subprocess.run(
        [str(machine.folder / "bash"), str(CHECK), "--collect-wheels", str(wheels), "--python", "3.12", "--lean"],
        env=machine.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sorted(path.name for path in wheels.iterdir())
    assert found == sorted(["dumont_gpu.sources", "typer_slim-0.1-py3-none-any.whl", *names.split()])
    assert "typer-0.28.1-py3-none-any.whl" in found
    machine.run("--wheels", str(wheels), "--steps", "copies")
    assert any("-m compileall" in call and call.endswith("/env/site") for call in machine.calls())
