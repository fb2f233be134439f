#!/usr/bin/env python3
"""Names and trees that nobody would think of, under three locales and as two users: they come back byte by byte.

Each tree is packed, listed as JSON and restored, each in a locale and as a user of its own; then one name that JSON printed is given
back to --include.
"""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from campaign import Campaign, Finding, fresh, options
from zygote import Program, Ran

NOBODY = 65534
SPECIAL = b"*?[]\\!#"  # of patterns; and blanks at the ends
Entry = tuple[bytes, str, bytes]  # path, "dir", "file", "symlink" or "hardlink", content or target


@dataclass(frozen=True)
class Tree:
    entries: tuple[Entry, ...]
    packed: str  # locale and user, see `Names.programs`
    listed: str
    restored: str
    given_back: int  # the entry whose name goes to --include


class Names:
    """The program in every locale and as every user that there is here."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.chmod(0o755)
        locales = {
            "C.UTF-8": {"LC_ALL": "C.UTF-8"},
            "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        } | latin1(place)
        users = {"": None} | ({" as nobody": NOBODY} if os.geteuid() == 0 else {})
        if len(users) == 1:
            print("only one user: the campaign does not run as root")
        self._settings = {
            locale + user: (variables, number)
            for locale, variables in locales.items()
            for user, number in users.items()
        }
        self._programs: dict[str, Program] = {}

    @property
    def names(self) -> list[str]:
        return list(self._settings)

    def program(self, name: str) -> Program:
        if name not in self._programs:
            variables, user = self._settings[name]
            self._programs[name] = Program(variables, user)
        return self._programs[name]

    def close(self) -> None:
        for program in self._programs.values():
            program.close()

    # --- cases --------------------------------------------------------------------------------------------------------

    def draw(self, dice: random.Random) -> Tree:
        entries: list[Entry] = []
        folders, files = [b""], []
        for _ in range(dice.choice((1, 2, 3, 8))):
            path = dice.choice(folders) + draw_name(dice)
            if any(path == other for other, _, _ in entries) or len(path) > 3000:
                continue
            kind = dice.choice(("dir", "file", "file", "symlink", "hardlink" if files else "file"))
            content = dice.choice(files) if kind == "hardlink" else draw_name(dice)
            entries.append((path, kind, content))
            if kind == "dir":
                folders.append(path + b"/")
            elif kind == "file":
                files.append(path)
        return Tree(tuple(entries), *(dice.choice(self.names) for _ in range(3)), dice.randrange(1 << 16))

    def judge(self, tree: Tree) -> str:
        place = fresh(self.place / "case")
        place.chmod(0o777)
        (place / "made").mkdir()
        source, snapshot = place / "made", place / "x.dumont"
        if not made(os.fsencode(source), tree.entries):
            return "cannot be made here"
        ran = self.ran(tree.packed, "pack", source, "-o", snapshot, "--device", "cpu", "--jobs", "1")
        if ran.err:
            raise Finding(f"pack says something\n{ran.error}")
        self.ran(tree.listed, "ls", "-l", snapshot)
        self.ran(tree.listed, "info", snapshot)
        listed = [listed_path(line) for line in self.ran(tree.listed, "ls", "--json", snapshot).out.splitlines()]
        if sorted(listed) != sorted(path for path, _, _ in tree.entries):
            raise Finding(f"ls --json has other names\n{sorted(set(listed) ^ {path for path, _, _ in tree.entries})}")
        self.ran(tree.restored, "restore", snapshot, place / "target", "--no-sync", "--device", "cpu")
        if found(place / "target") != found(source):
            raise Finding(
                f"restore gives another tree\n{sorted(found(place / 'target').items() ^ found(source).items())[:4]}"
            )
        self.give_back(tree, listed, snapshot, place / "some")
        return "done"

    def give_back(self, tree: Tree, listed: list[bytes], snapshot: Path, target: Path) -> None:
        """Restores an entry by the name that JSON printed."""
        plain = [
            path
            for path in listed
            if not set(path) & set(SPECIAL) and path.strip() == path and not path.startswith(b"-")
        ]
        if not plain:
            return
        path = plain[tree.given_back % len(plain)]
        self.ran(tree.restored, "restore", snapshot, target, "--include", path, "--no-sync", "--device", "cpu")
        if not os.path.lexists(os.path.join(os.fsencode(target), path)):
            raise Finding(f"a name of ls --json, given to --include, does not restore it\n{path!r}")

    def ran(self, where: str, *arguments: str | bytes | Path) -> Ran:
        ran = self.program(where)(*arguments)
        if ran.crashed:
            raise Finding(f"{arguments[0]!s}: {ran.crashed}\n{where}")
        if ran.code != 0:
            raise Finding(f"{arguments[0]!s}: exit code {ran.code}\n{where}: {ran.error}")
        return ran


def latin1(place: Path) -> dict[str, dict[str, str]]:
    """Returns a locale of ISO-8859-1, if this machine can make such a locale."""
    name, folder = "en_US.ISO-8859-1", place / "locales"
    folder.mkdir()
    if not shutil.which("localedef"):
        print("no localedef: without a locale of ISO-8859-1")
        return {}
    command = ["localedef", "--no-archive", "-i", "en_US", "-f", "ISO-8859-1", str(folder / name)]
    if subprocess.run(command, capture_output=True, check=False).returncode > 1 or not (folder / name).exists():
        print("localedef has no sources: without a locale of ISO-8859-1")
        return {}
    return {name: {"LC_ALL": name, "LOCPATH": str(folder), "PYTHONUTF8": "0"}}


def draw_name(dice: random.Random) -> bytes:
    """Draws a path component: any bytes but `/` and NUL."""
    name = dice.choice((
        lambda: dice.choice((b"a", b"model.safetensors", b"-rf", b" ", b"a b", b"~", b"x.pt", b"a:b", b"\\", b"\n", b"\x1b[31m", b"\xef\xbb\xbf",
                             b"caf\xc3\xa9", b"caf\xe9", b"\xff\xfe", b"cafe\xcc\x81", b"%41", b"$HOME", b"a\tb", b"*", b"[id] x", b"!x", b"#y", b"...")),
        lambda: dice.randbytes(dice.randint(1, 12)),
        lambda: "".join(chr(dice.choice((*range(0xA0, 0x180), *range(0x4E00, 0x4E40), 0x1F600, 0x202E, 0x85, 0xFFFD, 0x10FFFF, 0xDC, 0xE9)))
                        for _ in range(dice.randint(1, 6))).encode(),
        lambda: bytes(dice.choice(b"ab\xc3\xa9\xe9\n\r\t \x1b\x7f\x80\xff\\.") for _ in range(dice.randint(1, 6))),
        lambda: bytes([dice.randrange(1, 256)]) * dice.choice((1, 2, 100, 255)),
    ))()  # fmt: skip
    name = name.replace(b"/", b"_").replace(b"\0", b"_")[:255]
    return b"_" if name in (b"", b".", b"..") else name


def made(top: bytes, entries: tuple[Entry, ...]) -> bool:
    """Makes a tree; returns False where the file system does not have such names."""
    try:
        for path, kind, content in entries:
            place = os.path.join(top, path)
            if kind == "dir":
                os.mkdir(place)
            elif kind == "symlink":
                os.symlink(content, place)
            elif kind == "hardlink":
                os.link(os.path.join(top, content), place)
            else:
                with open(place, "wb") as file:
                    file.write(content)
    except OSError:
        return False
    return True


def found(top: Path) -> dict[bytes, tuple[str, bytes | int]]:
    """Returns a tree as it is on disk: paths, types, contents, targets. A hard link is a file with its number of names."""
    tree: dict[bytes, tuple[str, bytes | int]] = {}
    root = os.fsencode(top)
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            place = os.path.join(folder, name)
            path = os.path.relpath(place, root)
            if os.path.islink(place):
                tree[path] = "symlink", os.readlink(place)
            elif os.path.isdir(place):
                tree[path] = "dir", b""
            else:
                with open(place, "rb") as file:
                    tree[path] = f"file with {os.stat(place).st_nlink} names", file.read()
    return tree


def listed_path(line: bytes) -> bytes:
    """The path that a line of `ls --json` has: itself, or in Base64."""
    try:
        entry = json.loads(line)
        if "path_b64" in entry:
            return base64.b64decode(entry["path_b64"], validate=True)
        return str(entry["path"]).encode()
    except (ValueError, KeyError) as error:
        raise Finding(f"ls --json is no JSON with a path\n{line!r}: {error}") from None


def smaller(tree: Tree) -> Iterator[Tree]:
    for number in reversed(range(len(tree.entries))):
        yield replace(tree, entries=tree.entries[:number] + tree.entries[number + 1 :])
    for field in ("packed", "listed", "restored"):
        if getattr(tree, field) != "C.UTF-8":
            yield replace(tree, **{field: "C.UTF-8"})
    for number, (path, kind, content) in enumerate(tree.entries):
        for shorter in (content[:1], content[: len(content) // 2]):
            if kind in ("file", "symlink") and 0 < len(shorter) < len(content):
                yield replace(
                    tree, entries=(*tree.entries[:number], (path, kind, shorter), *tree.entries[number + 1 :])
                )
        head, _, name = path.rpartition(b"/")
        for shorter in (name[: len(name) // 2], name[1:]):
            if shorter and shorter not in (b".", b"..") and kind != "dir":
                there = head + b"/" + shorter if head else shorter
                yield replace(
                    tree, entries=(*tree.entries[:number], (there, kind, content), *tree.entries[number + 1 :])
                )


def main() -> int:
    chosen = options(__doc__)
    names = Names(chosen.place)
    try:
        return Campaign("names", chosen, names.draw, names.judge, smaller).run()
    finally:
        names.close()


if __name__ == "__main__":
    sys.exit(main())
