"""Figures of a step, in a file at any time: an error costs only its own figures, a time limit only those to come."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dumont_gpu.bench.report.whole_file import write_whole


class StepResults:
    """The results of a step.

    Args:
        output: the file.
        parts: names of the lists that rows go to.
        known: facts about the run.
        hidden: paths of this machine -> words that stand for them in messages.
    """

    def __init__(
        self, output: Path, parts: Sequence[str], known: Mapping[str, Any], hidden: Mapping[Path, str] | None = None
    ) -> None:
        self._output, self._hidden = output, hidden or {}
        self.results: dict[str, Any] = {**known, **{part: [] for part in parts}, "problems": []}

    def guarded(self, what: str, measure: Callable[..., object], *arguments: Any) -> None:
        """Measures; notes an error and goes on: a bad figure must not cost the others."""
        try:
            measure(*arguments)
        except Exception as error:  # of any kind: the report names it
            message = " ".join(str(error).split())[:300]
            for path, word in self._hidden.items():
                message = message.replace(str(path), word)
            problem = f"{what}: {type(error).__name__}: {message}"
            say(problem)
            self.results["problems"].append(problem)
        self.save()

    def save(self) -> None:
        write_whole(self._output, json.dumps(self.results, indent=1))


def say(message: str) -> None:
    print(f"{Path(sys.argv[0]).stem}: {message}", file=sys.stderr, flush=True)
