"""A record as a self-contained SVG picture: ratios and rates by type, peers, the stages of a restore.

Fills come from classes, with a second set for dark pages; light and dark pages differ in nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from html import escape
from statistics import median
from typing import Any, Final

from dumont_gpu.bench.corpora.original import COLUMN
from dumont_gpu.bench.report.bars import bar_shapes
from dumont_gpu.bench.report.by_type import contention, is_of, original_row, rate, ratio
from dumont_gpu.bench.report.jobs import job_rows, job_seconds
from dumont_gpu.bench.report.summary import headline
from dumont_gpu.plan.methods import DEFAULT_METHOD

Json = dict[str, Any]
_WIDTH: Final = 1080
_ROW: Final = 26  # height of a line of a chart
_LABELS: Final = 118  # width of the names beside it
_CUT: Final = 3  # bars end at this many times the median where a slow peer would flatten the others
_BAR: Final = 220.0  # the longest, in pixels
_LIGHT: Final = {
    "page": "#ffffff", "ink": "#1f2328", "muted": "#59636e", "grid": "#e4e8ec", "bar": "#c3ccd5",
    "ours": "#0969da", "second": "#54aeff", "gpu": "#1a7f37", "seed": "#bc4c00",
    "fetch": "#8c959f", "decode": "#0969da", "place": "#1a7f37", "write": "#1a7f37",
}  # fmt: skip
_DARK: Final = {
    "page": "#0d1117", "ink": "#e6edf3", "muted": "#9198a1", "grid": "#262c36", "bar": "#444c56",
    "ours": "#4493f8", "second": "#9ecbff", "gpu": "#3fb950", "seed": "#f0883e",
    "fetch": "#6e7681", "decode": "#4493f8", "place": "#3fb950", "write": "#3fb950",
}  # fmt: skip


def picture(record: Json) -> str:
    """Returns the SVG; parts that were not run are left out."""
    parts: list[str] = [_text(24, 34, "dumont-gpu bench", "title"), _text(24, 56, headline(record), "muted")]
    y = 84.0
    for draw in (bar_shapes,) if "own" in record else (_types, _peers, _links):
        drawn, height = draw(record, y)
        parts += drawn
        y += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" width="{_WIDTH}" height="{y:.0f}" '
        f'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif" font-size="13">'
        f"<title>{escape(headline(record))}</title><style>{_style(_LIGHT)} text.title {{ font-size: 20px; "
        f"font-weight: 600 }} text.head {{ font-weight: 600 }} text.small {{ font-size: 11px }} "
        f"@media (prefers-color-scheme: dark) {{ {_style(_DARK)} }}</style>"
        f'<rect class="page" width="{_WIDTH}" height="{y:.0f}"/>{"".join(parts)}</svg>\n'
    )


def _style(colours: dict[str, str]) -> str:
    rules = [f".{name} {{ fill: {colour} }}" for name, colour in colours.items()]
    rules += [f".title, .head {{ fill: {colours['ink']} }}", f".line {{ stroke: {colours['grid']} }}"]
    rules.append(f".ring {{ fill: {colours['page']}; stroke: {colours['ours']}; stroke-width: 2 }}")
    return " ".join(rules)


# --- by type ----------------------------------------------------------------------------------------------------------


def _types(record: Json, y: float) -> tuple[list[str], float]:
    """Three charts side by side that share their rows: ratio, compression, decompression."""
    if not record.get("rows"):
        return [], 0.0
    real = [corpus for corpus in record["corpora"] if corpus != "seed"]
    ours = [row for row in record["rows"] if is_of(row, DEFAULT_METHOD)]
    rows = {row["key"]: row for row in ours if row["corpus"] in real}
    repeated = {row["key"]: row for row in ours if row["corpus"] == "seed"}
    keys = list(dict.fromkeys(row["key"] for row in record["rows"]))
    out, left, width, top = [], 24 + _LABELS, 278.0, y + 52
    for number, key in enumerate(keys):
        generated = key in rows and rows[key]["generated"]
        out.append(_text(24, top + number * _ROW + 18, original_row(key).title + (" *" if generated else ""), "ink"))
    ratios: list[list[tuple[str, float | None]]] = [
        [
            ("seed", original_row(key).ratio),
            ("ring", ratio(repeated[key]) if key in repeated else None),
            ("ours", ratio(rows[key]) if key in rows else None),
        ]
        for key in keys
    ]
    out += _dots("ratio", left, top, width, keys, ratios, 1, 300, lambda value: f"{value:g}x")
    for index, (title, task) in enumerate((("compress, MB/s", "encode"), ("decompress, MB/s", "decode")), start=1):
        series = [_rates(rows.get(key), repeated.get(key), task, getattr(original_row(key), task)) for key in keys]
        known = [value for line in series for _, value in line if value]
        low, high = 10 ** math.floor(math.log10(min(known, default=100))), max(known, default=1e4) * 1.6
        start = left + index * (width + 32)
        out += _dots(title, start, top, width, keys, series, low, high, _thousands)
    made = any(row["generated"] for row in rows.values())
    out += _legend(record, 24, top + len(keys) * _ROW + 44, real[0] if real else "", generated=made)
    return out, 52 + len(keys) * _ROW + 84 + 20 * len(list(contention(record)))


def _rates(row: Json | None, repeated: Json | None, task: str, seed: float | None) -> list[tuple[str, float | None]]:
    found: list[tuple[str, float | None]] = [("seed", seed)]
    if repeated is not None:
        found.append(("ring", rate(repeated, "one_core", task)))
    if row is not None:
        places = (("ours", "one_core"), ("second", "all_cores"), ("gpu", "device"))
        found += [(kind, rate(row, place, task)) for kind, place in places]
    return found


def _dots(
    title: str,
    left: float,
    top: float,
    width: float,
    keys: Sequence[str],
    series: Sequence[Sequence[tuple[str, float | None]]],
    low: float,
    high: float,
    label: Callable[[float], str],
) -> Iterator[str]:
    """A chart with a logarithmic axis: a line for each key, a mark for each (kind, value)."""

    def x(value: float) -> float:
        return left + width * math.log(value / low) / math.log(high / low)

    bottom = top + len(keys) * _ROW
    yield _text(left, top - 14, title, "head")
    for tick in _ticks(low, high):
        yield f'<line class="line" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{top:.0f}" y2="{bottom:.0f}"/>'
        yield _text(x(tick), bottom + 15, label(tick), "muted small", "middle")
    for number, marks in enumerate(series):
        middle = top + (number + 0.5) * _ROW
        yield f'<line class="line" x1="{left}" x2="{left + width}" y1="{middle}" y2="{middle}"/>'
        values = [value for _, value in marks if value is not None]
        if not values:
            yield _text(left + 4, middle + 4, "raw", "muted small")
        yield from (_mark(kind, x(max(value, low)), middle) for kind, value in marks if value is not None)


def _ticks(low: float, high: float) -> list[float]:
    decades = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    steps = (1, 3) if high / low < 1e3 else (1,)
    return [decade * step for decade in decades for step in steps if low <= decade * step <= high]


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "seed":
        return f'<path class="seed" d="M{x:.1f} {y - 7}l6 7l-6 7l-6 -7z"/>'
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="{5 if kind == "ring" else 5.5}"/>'


def _legend(record: Json, x: float, y: float, real: str, *, generated: bool) -> Iterator[str]:
    workers = max((row["all_cores"]["workers"] for row in record["rows"] if row["all_cores"]), default=0)
    entries = [("seed", f"{COLUMN} (RTX 3060)"), ("ours", f"corpus {real}, one core")]
    entries += [("second", f"{workers} cores")] if workers else []
    entries += [("gpu", "GPU, with the copies there and back")] if any(row["device"] for row in record["rows"]) else []
    entries += [("ring", "the original's kind of input, one core")] if "seed" in record["corpora"] else []
    for kind, text in entries:
        yield _mark(kind, x + 6, y - 4)
        yield _text(x + 18, y, text, "muted")
        x += 40 + 6.4 * len(text)
    if generated:
        yield _text(x, y, "* generated", "muted")
    for number, warning in enumerate(contention(record), start=1):
        yield _text(24, y + 20 * number, warning, "seed")


# --- peers ------------------------------------------------------------------------------------------------------------


def _peers(record: Json, y: float) -> tuple[list[str], float]:
    """Bars of seconds: pack on the left, restore on the right."""
    if not record.get("jobs", {}).get("figures"):
        return [], 0.0
    out: list[str] = []
    most = 0
    size, kind = next(iter(record["jobs"]["trees"].values()))["size"] / 1e6, record["jobs"]["file_system"].split()[0]
    for job, left in (("pack", 24.0), ("restore", 24.0 + 528)):
        rows = job_rows(record, job)
        most = max(most, len(rows))
        out.append(
            _text(left, y + 14, f"{job} {size:.0f} MB on {kind}, seconds" + (", and MB" * (job == "pack")), "head")
        )
        times = [job_seconds(row) for row in rows]
        longest = max(times, default=1.0)
        longest = longest if longest < 2 * _CUT * median(times or [1.0]) else _CUT * median(times)
        for number, row in enumerate(rows):
            out += _bar(row, left, y + 28 + number * _ROW, longest, job)
    return out, 28 + most * _ROW + 40


def _bar(row: Json, left: float, top: float, longest: float, job: str) -> Iterator[str]:
    seconds = job_seconds(row)
    ours = row["contender"].startswith("dumont-gpu")
    length = min(_BAR, max(2.0, _BAR * seconds / longest))
    yield _text(left, top + 17, row["contender"], "head" if ours else "ink")
    kind = "ours" if ours else "bar"
    yield f'<rect class="{kind}" x="{left + 172}" y="{top + 4}" width="{length:.1f}" height="18" rx="3"/>'
    cut = "» " if seconds > longest else ""  # the bar should go on
    text = f"{cut}{seconds:.2f} s" + (f", {row['archive_size'] / 1e6:.0f} MB" if job == "pack" else "")
    yield _text(left + 180 + length, top + 18, text, "muted")


# --- links ------------------------------------------------------------------------------------------------------------


def _links(record: Json, y: float) -> tuple[list[str], float]:
    """A time line for each link: when each stage works."""
    links = record.get("links", [])
    out: list[str] = []
    start = y
    left, width = 24.0 + 80, _WIDTH - 24.0 - 80 - 24
    for link in links:
        share = 100 * link["link_seconds"] / link["seconds"]
        title = f"restore over {link['bits_per_second'] / 1e6:,.0f} Mbit/s: {link['seconds']:.2f} s for "
        title += (
            f"{link['original_size'] / 1e6:.0f} MB ({link['stored_size'] / 1e6:.0f} sent); {share:.0f} % of the link"
        )
        out.append(_text(24, y + 14, title, "head"))
        stages = dict.fromkeys(name for name, _, _ in link["spans"])  # in the order of their first chunk
        for number, stage in enumerate(stages):
            top = y + 24 + number * 20
            out.append(_text(24, top + 13, stage, "muted"))
            out.append(f'<line class="line" x1="{left}" x2="{left + width}" y1="{top + 9}" y2="{top + 9}"/>')
            scale = width / link["seconds"]
            spans = [
                (left + scale * begin, scale * (end - begin)) for name, begin, end in link["spans"] if name == stage
            ]
            shapes = (f"M{x:.1f} {top + 2}h{max(0.6, w - 0.5):.1f}v14h-{max(0.6, w - 0.5):.1f}z" for x, w in spans)
            out.append(f'<path class="{stage}" fill-opacity="0.75" d="{"".join(shapes)}"/>')
        for tick in range(5):
            anchor = ("start", "middle", "middle", "middle", "end")[tick]
            text = f"{link['seconds'] * tick / 4:.2f} s"
            out.append(_text(left + width * tick / 4, y + 100, text, "muted small", anchor))
        y += 124
    return out, y - start + (8 if links else 0)


def _text(x: float, y: float, text: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _thousands(value: float) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
