"""The reader of schedules, on a disassembly made for the test; CI reads the real kernels'."""

from __future__ import annotations

from pathlib import Path

import pytest
import static_schedule

NONE = 7  # no scoreboard


def line(at: int, text: str, stall: int, wait: int = 0, write: int = NONE) -> str:
    """An instruction as `nvdisasm -hex` prints it."""
    high = (stall | write << 5 | NONE << 8 | wait << 11) << 41
    return f"        /*{at:04x}*/   {text} ;   /* 0x0000000000007919 */\n        /* 0x{high:016x} */\n"


DISASSEMBLY = (
    ".text.outer_and_inner:\n"
    + line(0x00, "S2R R0, SR_TID.X", 2, write=0)
    + ".L_x_2:\n"
    + line(0x10, "IMAD.MOV.U32 R1, RZ, RZ, R0", 4, wait=1)
    + ".L_x_1:\n"
    + line(0x20, "LDS.64 R2, [R1]", 3, write=1)
    + line(0x30, "@!P0 LDG.E.128 R4, desc[UR4][R8.64]", 1, write=2)
    + line(0x40, "@P1 BRA `(.L_x_3)", 5)
    + line(0x50, "IADD3 R1, R1, R2, RZ", 15, wait=2)
    + ".L_x_3:\n"
    + line(0x60, "@P2 BRA `(.L_x_1)", 5)
    + line(0x70, "BRA `(.L_x_2)", 5)
    + ".L_x_0:\n"
    + line(0x80, "BRA `(.L_x_0)", 0)
    + ".text.straight:\n"
    + line(0x00, "EXIT", 5)
)


def test_innermost_loops_are_found_with_their_pipes_and_stalls() -> None:
    (loop,) = static_schedule.loops_in(DISASSEMBLY)
    assert (loop.kernel, loop.number, loop.blocks) == ("outer_and_inner", 1, 3)
    expected = ["outer_and_inner", "sm_90", "1", "3", "5", "1", "0", "2", "2", "29", "1", "1", "0"]
    assert loop.row("sm_90").split() == expected


def test_listing_shows_cycles_and_scoreboards() -> None:
    (loop,) = static_schedule.loops_in(DISASSEMBLY)
    lines = [each.split() for each in loop.listing()]
    assert [each[0] for each in lines] == ["0", "3", "4", "9", "24"]
    assert lines[0][1:6] == ["+3", "waits", "-", "sets", "1-"]
    assert lines[3][1:6] == ["+15", "waits", "1", "sets", "--"]


@pytest.mark.parametrize(
    ("text", "pipe"),
    [("@!UP0 UIADD3 UR4, UR4, 0x1, URZ", "other"), ("ATOMS.POPC.INC.32 RZ, [R3]", "memory"), ("@P0 IMAD R1, R2, R3, R4", "fma"),
     ("LOP3.LUT R1, R2, R3, R4, 0x3f, !PT", "alu"), ("SHFL.IDX PT, R1, R2, R3, 0x1f", "memory"), ("ST.E.128 [R2], R4", "memory")],
)  # fmt: skip
def test_pipes(text: str, pipe: str) -> None:
    assert static_schedule.Instruction.decode(text, 0).pipe == pipe


def test_only_the_same_compiler_must_make_the_same_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {("a.cu", "sm_90"): static_schedule.loops_in(DISASSEMBLY)}
    kept = tmp_path / "schedule.txt"
    kept.write_text(static_schedule.table("13.5.37", found))
    assert static_schedule.compare(static_schedule.table("13.5.37", found), kept) == 0
    assert "1 loops" in capsys.readouterr().out
    slower = {
        ("a.cu", "sm_90"): static_schedule.loops_in(
            DISASSEMBLY.replace("/*0050*/", "/*0050*/ ").replace("IADD3", "IMAD")
        )
    }
    assert static_schedule.compare(static_schedule.table("13.5.37", slower), kept) == 1
    assert "rewrite it with --write" in capsys.readouterr().out
    assert static_schedule.compare(static_schedule.table("13.6.1", slower), kept) == 0
    said = capsys.readouterr().out
    assert "by another compiler" in said
    assert sum(each.startswith(("-outer_and_inner", "+outer_and_inner")) for each in said.splitlines()) == 2


def test_missing_table_is_a_difference(tmp_path: Path) -> None:
    found = {("a.cu", "sm_90"): static_schedule.loops_in(DISASSEMBLY)}
    assert static_schedule.compare(static_schedule.table("1", found), tmp_path / "none.txt") == 1
