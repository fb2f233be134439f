#!/usr/bin/env python3
"""Snapshots bent by rule and signed again: program and independent reader must give each the same verdict.

Each snapshot goes through info, ls, verify, verify --content and restore. Nothing may crash, hang, take much memory or write outside
the target, and the restored tree must be the tree that the reader reads.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import bends
from campaign import Campaign, Finding, fresh, options
from support import independent_reader
from zygote import Program, Ran

MOST_MEMORY = 450 << 20  # bytes of a command; its buffers take 96 MiB of them
LARGE = 32 << 20  # original bytes; beyond, the reader in Python is too slow to ask
OK, UNSURE = 0, -1  # a verdict, and none
ALWAYS_SANE = {0, 1, 2, 3, 4, 6, 8}


def verdict(attempt: object) -> int:
    """The exit code that the reader's verdict stands for."""
    assert callable(attempt)
    try:
        attempt()
    except independent_reader.Unsupported:
        return 8
    except ValueError:
        return 4
    return OK


class Expected:
    """The independent reader's verdicts on a snapshot: on its table of contents, encoded chunks, and content."""

    def __init__(self, data: bytes) -> None:
        self.tree: dict[str, object] | None = None
        self.table = verdict(lambda: independent_reader.read_table(data))
        self.stored = self.content = self.restored = {self.table}
        self.large = False
        if self.table != OK:
            return
        snapshot = independent_reader.read_table(data)
        original = snapshot.header.total_size_original + sum(chunk.size_original for chunk in snapshot.chunks)
        self.stored = {verdict(lambda: independent_reader.check_stored(data, snapshot))}
        self.large = original > LARGE
        if self.large:
            return
        each = [verdict(lambda n=number: decode(data, snapshot, n)) for number in range(len(snapshot.chunks))]
        self.content = worst({*self.stored, *each, verdict(lambda: independent_reader.read_contents(data, snapshot))})
        used = {extent.chunk for entry in snapshot.entries for extent in entry.extents}
        whole = verdict(lambda: independent_reader.read_contents(data, snapshot, used_only=True))
        self.restored = worst({whole, *(each[number] for number in used)})
        if self.restored == {OK}:
            self.tree = independent_reader.read_contents(data, snapshot, used_only=True)


def decode(data: bytes, snapshot: independent_reader.Snapshot, number: int) -> None:
    """Checks a chunk, then decodes it."""
    chunk, stored = snapshot.chunks[number], snapshot.chunks[number].stored(data)
    independent_reader.must(snapshot.header.digest_of(stored) == snapshot.digests[number], "chunk digest")
    independent_reader.decode_chunk(stored, chunk)


def worst(verdicts: set[int]) -> set[int]:
    """Returns the acceptable verdicts: any verdict on a defect, or OK if there is no defect."""
    return verdicts - {OK} or {OK}


class Archives:
    def __init__(self, place: Path) -> None:
        self.place = place
        self.program = Program()

    def judge(self, case: bends.Bent) -> str:
        data = bends.build(case)
        place = fresh(self.place / "case")
        (place / "beside").write_bytes(b"stays")
        snapshot, target = place / "x.dumont", place / "target"
        snapshot.write_bytes(data)
        expected = Expected(data)
        self.check("info", self.program("info", snapshot), {expected.table})
        self.check("ls", self.program("ls", "-l", snapshot), {expected.table})
        self.check("verify", self.program("verify", snapshot), expected.stored, expected.large)
        memory = ("--memory", "96MiB", "--jobs", "2", "--device", "cpu")
        self.check(
            "verify --content", self.program("verify", snapshot, "--content", *memory), expected.content, expected.large
        )
        ran = self.program("restore", snapshot, target, "--verify", "--max-size", "1GiB", "--no-sync", *memory)
        self.check("restore", ran, expected.restored, expected.large, may_not=True)
        self.check_place(place, data)
        if ran.code == OK and expected.tree is not None:
            self.check_tree(target, expected.tree)
        return (
            {OK: "ok", 4: "damaged", 8: "not supported", UNSURE: "large"}[min(expected.restored)]
            if not expected.large
            else "large"
        )

    def check(self, name: str, ran: Ran, expected: set[int], large: bool = False, may_not: bool = False) -> None:
        """Compares a command's outcome with the reader's verdict.

        Args:
            large: the reader did not look at the content.
            may_not: a sound snapshot may be more than the target holds (exit codes 1, 3 and 6).
        """
        if ran.crashed:
            raise Finding(f"{name}: {ran.crashed}")
        if ran.peak > MOST_MEMORY:
            raise Finding(f"{name}: takes too much memory\n{ran.peak >> 20} MiB")
        if ran.code not in (0, 3) and (ran.err.count(b"\n") != 1 or not ran.err.startswith(b"dumont-gpu: ")):
            raise Finding(f"{name}: not one line on stderr\n{ran.error}")
        allowed = set(ALWAYS_SANE) if large else set(expected)
        if may_not and allowed == {OK}:
            allowed |= {3} | ({1} if b"--max-size" in ran.err or b"too long" in ran.err else set())
        if ran.code not in allowed:
            raise Finding(
                f"{name}: {ran.code} instead of {sorted(allowed)}\n{ran.error}\n{ran.out.decode(errors='replace')[-300:]}"
            )

    def check_place(self, place: Path, data: bytes) -> None:
        names = {path.name for path in place.iterdir()}
        if not names <= {"beside", "x.dumont", "target"}:
            raise Finding(f"restore: writes outside its target\n{sorted(names)}")
        if (place / "beside").read_bytes() != b"stays" or (place / "x.dumont").read_bytes() != data:
            raise Finding("restore: changes what lies beside its target")

    def check_tree(self, target: Path, tree: dict[str, object]) -> None:
        """Compares a restored tree with what the reader read."""
        found: dict[str, object] = {}
        top = os.fsencode(target)
        for folder, folders, files in os.walk(top):
            for name in [*folders, *files]:
                path = os.path.join(folder, name)
                relative = os.fsdecode(os.path.relpath(path, top))
                if os.path.islink(path):
                    found[relative] = os.fsdecode(os.readlink(path))
                elif os.path.isdir(path):
                    found[relative] = None
                else:
                    with open(path, "rb") as file:
                        found[relative] = file.read()
        if found != tree:
            differing = {name for name in found.keys() | tree.keys() if found.get(name, 0) != tree.get(name, 0)}
            raise Finding(f"restore: another tree than the reader's\n{sorted(differing)[:5]!a}")


def show(case: bends.Bent) -> str:
    return f"{case.base} archive, {', '.join(map(ascii, case.bends))}"


def main() -> int:
    chosen = options(__doc__)
    archives = Archives(chosen.place)
    try:
        return Campaign("archives", chosen, bends.draw, archives.judge, bends.smaller, show).run()
    finally:
        archives.program.close()


if __name__ == "__main__":
    sys.exit(main())
