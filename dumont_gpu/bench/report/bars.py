"""Bar charts of a user's own folder: size, seconds to pack and to restore, and by way of links; as text and as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, Final, NamedTuple

from dumont_gpu.bench.report.jobs import job_rows, job_seconds
from dumont_gpu.sizes import MiB, write_rate

Json = dict[str, Any]
_TEXT_BAR: Final = 40  # columns, the longest
_SVG_BAR: Final = 620.0  # pixels
_SVG_ROW: Final = 26  # height of a line


class Bar(NamedTuple):
    name: str
    value: float
    text: str

    @property
    def ours(self) -> bool:
        return self.name.startswith("dumont-gpu")


class Chart(NamedTuple):
    """Bars of one unit; the shortest is best, and stands first."""

    title: str
    bars: tuple[Bar, ...]


def charts(record: Json) -> Iterator[Chart]:
    """Yields size, pack, restore, then a chart for each link."""
    packs, restores = job_rows(record, "pack"), job_rows(record, "restore")
    if not packs:
        return
    case = next(iter(record["jobs"]["trees"].values()))
    sizes = {row["contender"]: row["archive_size"] for row in packs}
    original = f"{case['files']:,} files, {case['size'] / MiB:,.1f} MiB"
    yield _chart(f"size of {original}", {"as it is": case["size"], **sizes}, lambda size: f"{size / MiB:,.1f} MiB")
    packed = {row["contender"]: job_seconds(row) for row in packs}
    restored = {row["contender"]: job_seconds(row) for row in restores}
    yield _chart("seconds to pack", packed, _seconds)
    yield _chart("seconds to restore", restored, _seconds)
    for rate in record["own"]["rates"]:
        steps = {name: packed[name] + sizes[name] / rate + restored[name] for name in packed if name in restored}
        title = f"seconds to pack, send over {write_rate(rate)}, restore: one step after the other, the link reckoned"
        yield _chart(title, steps, _seconds)


def bar_text(record: Json) -> str:
    """Returns the charts for a terminal."""
    blocks = []
    for chart in charts(record):
        label = max(len(bar.name) for bar in chart.bars)
        longest = max(bar.value for bar in chart.bars) or 1.0
        lines = [chart.title]
        for bar in chart.bars:
            length = max(1, round(_TEXT_BAR * bar.value / longest))
            lines.append(f"  {bar.name:{label}}  {('#' if bar.ours else '=') * length} {bar.text}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def bar_shapes(record: Json, y: float) -> tuple[list[str], float]:
    """Returns the charts as shapes of an SVG picture that begin at `y`, and their height."""
    shapes: list[str] = []
    at = y
    for chart in charts(record):
        shapes.append(_text(24, at + 14, chart.title, "head"))
        longest = max(bar.value for bar in chart.bars) or 1.0
        for number, bar in enumerate(chart.bars):
            top = at + 24 + number * _SVG_ROW
            length = max(2.0, _SVG_BAR * bar.value / longest)
            kind = "ours" if bar.ours else "bar"
            shapes.append(_text(24, top + 17, bar.name, "head" if bar.ours else "ink"))
            shapes.append(f'<rect class="{kind}" x="196" y="{top + 4:.0f}" width="{length:.1f}" height="18" rx="3"/>')
            shapes.append(_text(204 + length, top + 18, bar.text, "muted"))
        at += 24 + len(chart.bars) * _SVG_ROW + 24
    return shapes, at - y


def _chart(title: str, values: dict[str, float], write: Any) -> Chart:
    bars = (Bar(name, value, write(value)) for name, value in sorted(values.items(), key=lambda item: item[1]))
    return Chart(title, tuple(bars))


def _seconds(value: float) -> str:
    return f"{value:,.2f} s"


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'
