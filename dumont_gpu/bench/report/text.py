"""A record's tables on a terminal, and as Markdown."""

from __future__ import annotations

from typing import Any, Final

from dumont_gpu.bench.report.bars import bar_text
from dumont_gpu.bench.report.record import machines
from dumont_gpu.bench.report.summary import headline, problems, tables
from dumont_gpu.bench.report.tables import markdown_table

_PIPED_WIDTH: Final = 150  # columns, where no terminal says how many there are


def print_tables(record: dict[str, Any]) -> None:
    """Prints every table on stdout."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PIPED_WIDTH)
    console.print(headline(record), style="bold", markup=False)
    if "own" in record:
        console.print(f"\n{bar_text(record)}\n", markup=False, soft_wrap=True)
    for table in tables(record):
        shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
        for number, name in enumerate(table.header):
            shown.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in table.rows:
            style = "bold red" if "DAMAGED" in row else "bold" if row[0].startswith("dumont-gpu") else None
            shown.add_row(*row, style=style)
        console.print(shown, markup=False)
        console.print(table.notes, style="dim", markup=False)
        console.print()
    for text in problems(record):
        console.print(text, markup=False, style="bold red" if text.startswith("FAILED") else None)
    if "seconds" in record:
        console.print(f"{record['seconds']:.0f} s in all", markup=False)


def markdown(record: dict[str, Any]) -> str:
    """Returns the whole report."""
    seconds = f", in {record['seconds']:.0f} s" if "seconds" in record else ""
    parts = [f"# {headline(record)}\n", f"Made by `{record['made_by']}`{seconds}.\n"]
    described = machines(record)
    for machine, measured in described:
        lines = [f"- {name}: {value}" for name, value in machine.items()]
        parts.append("\n".join([f"- parts: {', '.join(measured)}"] * (len(described) > 1) + lines) + "\n")
    parts += [f"- {text}" for text in problems(record)]
    if "own" in record:
        parts.append(f"\n```\n{bar_text(record)}\n```\n")
    for table in tables(record):
        parts += [f"\n## {table.title}\n", markdown_table(table.header, table.rows), table.notes]
    return "\n".join(parts) + "\n"
