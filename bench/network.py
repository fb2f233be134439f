"""Restores over http, against real servers: how long, how much twice, how much memory. Needs nginx; `link` needs root.

    python bench/network.py kills SNAPSHOT [--count 50]      # kill -9 at random moments, the same command again
    python bench/network.py link SNAPSHOT --rate 1gbit       # a loopback of that rate, against aria2c and zstd | tar
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
from statistics import median

from compare_trees import differences

from dumont_gpu.bench.places import Places, places

PROGRAM = str(Path(sys.executable).parent / "dumont-gpu")
PORT = 8791
Contenders = dict[str, Callable[[Path], "list[str] | str"]]  # the command that fills a directory, which is also its own


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
        }}"""
    )
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or sys.exit("nginx is not installed")
    process = subprocess.Popen([program, "-c", f"{work}/nginx.conf"], stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield work / "access.log"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(work)


def restore(source: str, target: Path, *options: str) -> list[str]:
    return [PROGRAM, "restore", source, str(target), "--no-sync", "--json", "--progress", "none", *options]


def timed(command: list[str] | str, target: Path) -> float:
    target.mkdir(parents=True)
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, shell=isinstance(command, str), cwd=target)
    return time.perf_counter() - started


def kills(snapshot: Path, log: Path, count: int, room: Places) -> None:
    """Every kill is followed by the same command; the bytes that nginx sent for both are counted."""
    good = room.new() / "target"
    seconds = timed(restore(str(snapshot), good), good)
    url, rng, excess, landed = f"http://127.0.0.1:{PORT}/{snapshot.name}", random.Random(5), [], 0
    for _ in range(count):
        target = room.new() / "target"
        before = log.read_text(encoding="utf-8").count("\n")
        process = subprocess.Popen(restore(url, target), stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.1, 1.0) * seconds)
        process.send_signal(signal.SIGKILL)
        process.wait()
        again = subprocess.run(restore(url, target), capture_output=True)
        landed += again.returncode == 0  # else the first had finished, and the target is not empty
        found = list(differences(good, target))
        if found:
            sys.exit(f"the trees differ: {found[:3]}")
        time.sleep(0.2)  # nginx notices a client that is gone
        sent = sum(map(int, log.read_text(encoding="utf-8").splitlines()[before:]))
        excess.append(sent - snapshot.stat().st_size)
        room.give_back(target)
    print(f"{landed} of {count} kills landed, every tree is the same")
    print(f"bytes sent beyond the snapshot: median {median(excess) / 1e6:.0f} MB, at most {max(excess) / 1e6:.0f} MB")


def compare(snapshot: Path, room: Places, others: Contenders, repeats: int) -> None:
    url = f"http://127.0.0.1:{PORT}/{snapshot.name}"
    size = snapshot.stat().st_size
    contenders: Contenders = {
        "dumont-gpu restore URL": lambda target: restore(url, target),
        "curl, the bytes alone": lambda target: f"curl -sS {url} -o /dev/null",
    }
    runs: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, command in (contenders | others).items():
            target = room.new() / "target"
            runs.setdefault(name, []).append(timed(command(target), target))
            room.give_back(target)
    for name, seconds in runs.items():
        print(f"{name:45} {median(seconds):7.2f} s  (of {repeats}: {', '.join(f'{s:.2f}' for s in seconds)})")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{size / 1e6:.0f} MB; peak memory of a child {peak} MiB")


def aria2(tar: Path) -> Contenders:
    url = f"http://127.0.0.1:{PORT}/{tar.name}"
    command = f"aria2c -q -x16 -s16 -o peer.tar.zst {url} && tar -xf peer.tar.zst -I zstd"
    return {"aria2c -x16, then zstd -d | tar x": lambda target: command}


def enter_link(rate: str) -> None:
    """Starts this program again in a network of its own, whose loopback has this rate."""
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
        enter_link(given.rate)
    with places(given.scratch) as room, nginx(snapshot.parent) as log:
        if given.what == "kills":
            kills(snapshot, log, given.count, room)
        elif given.what == "link":
            compare(snapshot, room, aria2(given.tar) if given.tar else {}, given.repeats)
        else:
            local: Contenders = {"dumont-gpu restore PATH": lambda target: restore(str(snapshot), target)}
            compare(snapshot, room, local, given.repeats)


if __name__ == "__main__":
    main()
