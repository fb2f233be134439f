"""The table of the stages of a job on a device, each measured alone."""

from __future__ import annotations

from dumont_gpu.bench.report.tables import Json, Table, rate


def stages_alone(title: str, data: Json) -> Table:
    stages = list(dict.fromkeys(row["stage"] for row in data["stages"]))
    lines = []
    for place in dict.fromkeys(row["place"] for row in data["stages"]):
        of_place = {row["stage"]: row for row in data["stages"] if row["place"] == place}
        cells = (rate(of_place[s]["size"], of_place[s]["seconds"]) if s in of_place else "-" for s in stages)
        lines.append((place, *cells))
    return Table(f"{title}: each stage alone", "GB/s of original bytes.", ("place", *stages), tuple(lines))
