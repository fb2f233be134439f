"""Restores over http from a real server: how long, how much twice, how much memory. Needs nginx; `link` needs root.

    python bench/network.py kills SNAPSHOT [--count 50]      # kill -9 at random moments, then the same command again
    python bench/network.py link SNAPSHOT --rate 1gbit       # a loopback of that rate; --tar: against curl and aria2c
    python bench/network.py open SNAPSHOT                    # no limit, against a local restore

Run it with the Python that has dumont-gpu installed.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dumont_gpu.bench.compare_trees import differences
from dumont_gpu.bench.measure.clock import seconds_of
from dumont_gpu.bench.measure.contenders import dumont_program
from dumont_gpu.bench.measure.places import Places, places
from dumont_gpu.bench.report.record import new_record
from dumont_gpu.bench.report.text import print_tables
from dumont_gpu.errors import DumontError

PORT = 8791
Contenders = dict[str, Callable[[Path], "list[str] | str"]]  # a command that fills the directory it runs in


@contextmanager
def nginx(folder: Path) -> Iterator[Path]:
    """Serves `folder` at PORT; yields the log, in which every line is the bytes of an answer."""
    work = Path(tempfile.mkdtemp(prefix="dumont-nginx-"))
    (work / "nginx.conf").write_text(
        f"""
        worker_processes 1; daemon off; pid {work}/pid; error_log {work}/error.log;
        user {os.environ.get("USER", "root")};
        events {{ worker_connections 512; }}
        http {{
          log_format bytes '$body_bytes_sent'; access_log {work}/access.log bytes; client_body_temp_path {work};
          proxy_temp_path {work}; fastcgi_temp_path {work}; uwsgi_temp_path {work}; scgi_temp_path {work};
          sendfile on; server {{ listen 127.0.0.1:{PORT}; root {folder}; }}
        }}""",
        encoding="utf-8",
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if not program:
        raise DumontError("nginx is not installed")
    process = subprocess.Popen([program, "-c", f"{work}/nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield work / "access.log"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(work)


def measure_kills(snapshot: Path, log: Path, count: int, room: Places) -> dict[str, Any]:
    """Kills restores, and gives the same command again; counts the bytes that nginx sent for both.

    Raises:
        DumontError: a tree differs from that of an undisturbed restore.
    """
    good = room.new() / "target"
    seconds = _timed(_restore(str(snapshot), good), good)
    rng = random.Random(5)
    excess: list[int] = []
    landed = 0
    for _ in range(count):
        target = room.new() / "target"
        before = log.read_text(encoding="utf-8").count("\n")
        process = subprocess.Popen(_restore(_url(snapshot), target), stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = subprocess.run(_restore(_url(snapshot), target), capture_output=True)
        landed += again.returncode == 0  # otherwise the first restore had finished, and the target is not empty
        if found := list(differences(good, target)):
            raise DumontError(f"the trees differ: {found[:3]}")
        time.sleep(0.2)  # nginx needs a moment to notice that a client is gone
        sent = sum(map(int, log.read_text(encoding="utf-8").splitlines()[before:]))
        excess.append(sent - snapshot.stat().st_size)
        room.give_back(target)
    return {"count": count, "landed": landed, "excess": excess}


def compare(snapshot: Path, room: Places, others: Contenders, repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of each contender, everyone once in each repeat."""
    contenders: Contenders = {
        "dumont-gpu restore URL": lambda target: _restore(_url(snapshot), target),
        "curl, the bytes alone": lambda target: f"curl -sS {_url(snapshot)} -o /dev/null",
    }
    runs: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, command in (contenders | others).items():
            target = room.new() / "target"
            runs.setdefault(name, []).append(_timed(command(target), target))
            room.give_back(target)
    return runs


def _local(snapshot: Path) -> Contenders:
    return {"dumont-gpu restore PATH": lambda target: _restore(str(snapshot), target)}


def _peers(tar: Path) -> Contenders:
    piped = f"curl -sS {_url(tar)} | zstd -dc | tar -x"
    in_two_steps = f"aria2c -q -x16 -s16 -o peer.tar.zst {_url(tar)} && tar -xf peer.tar.zst -I zstd"
    return {
        "curl | zstd -d | tar x": lambda target: piped,
        "aria2c -x16, then zstd -d | tar x": lambda target: in_two_steps,
    }


def _url(file: Path) -> str:
    return f"http://127.0.0.1:{PORT}/{file.name}"


def _restore(source: str, target: Path) -> list[str]:
    return [dumont_program(), "restore", source, str(target), "--no-sync", "--json", "--progress", "none"]


def _timed(command: list[str] | str, target: Path) -> float:
    target.mkdir(parents=True)
    shell = isinstance(command, str)
    return seconds_of(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, shell=shell, cwd=target))


def _enter_link(rate: str) -> None:
    """Starts this program again in a network namespace whose loopback has this rate."""
    if "DUMONT_LINK" not in os.environ:
        os.environ["DUMONT_LINK"] = "1"
        os.execvp("unshare", ["unshare", "-n", sys.executable, *sys.argv])
    for command in ("ip link set lo up mtu 1500", f"tc qdisc add dev lo root tbf rate {rate} burst 256k latency 50ms"):
        subprocess.run(command.split(), check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "link", "open"])
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--rate", default="1gbit")
    parser.add_argument("--tar", type=Path, help="the same tree as .tar.zst, in the folder of the snapshot")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="for restored trees")
    given = parser.parse_args()
    snapshot = given.snapshot.resolve()
    if given.what == "link":
        _enter_link(given.rate)
    try:
        print_tables(new_record("python bench/network.py") | {"network": _measure(given, snapshot)})
    except DumontError as error:
        sys.exit(str(error))


def _measure(given: argparse.Namespace, snapshot: Path) -> dict[str, Any]:
    part: dict[str, Any] = {"rate": given.rate if given.what == "link" else "", "size": snapshot.stat().st_size}
    with places(given.scratch) as room, nginx(snapshot.parent) as log:
        if given.what == "kills":
            part["kills"] = measure_kills(snapshot, log, given.count, room)
        else:
            tar = _peers(given.tar) if given.tar else {}
            part["runs"] = compare(snapshot, room, tar if given.what == "link" else _local(snapshot), given.repeats)
    return part | {"peak_rss": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024}
