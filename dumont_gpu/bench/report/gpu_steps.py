"""The table of the steps of a GPU check, with the last words of those that failed."""

from __future__ import annotations

from collections.abc import Iterator

from dumont_gpu.bench.report.steps import SKIPPED, STOPPED, TIMED_OUT
from dumont_gpu.bench.report.tables import Json, Table


def steps_table(steps: Json) -> Table:
    rows = []
    for name, step in steps.items():
        words = {0: "ok", SKIPPED: "skipped"} | dict.fromkeys(TIMED_OUT, f"past its limit of {step['limit']} s")
        words |= dict.fromkeys(STOPPED, "stopped by a signal")
        if step["seconds"] < step["limit"]:
            words[137] = "KILLED, by this machine"
        code = step["exit_code"]
        rows.append((name, f"{step['seconds']}", words.get(code, f"FAILED ({code})")))
    return Table("Steps", "\n".join(_last_words(steps)), ("step", "seconds", "outcome"), tuple(rows))


def _last_words(steps: Json) -> Iterator[str]:
    for name, step in steps.items():
        problems = (step["data"] or {}).get("problems", [])
        if step["exit_code"] == SKIPPED:
            yield f"- {name} was skipped: {'; '.join(step['log'][-1:])}\n"
        elif step["exit_code"] or problems:
            yield f"What `{name}` said last:\n"
            yield "\n".join(["```", *(problems or step["log"]), "```"]) + "\n"
        elif name in ("smoke", "tests", "sanitizer", "self_test"):
            yield f"- {name}: " + "; ".join(step["log"][-1:]) + "\n"
