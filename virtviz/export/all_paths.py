"""The table of all data paths as text, as JSON, and as comma-separated values."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Annotated, Final, Literal, TextIO

import msgspec
from msgspec import Meta, Struct

from virtviz.engine.counters import COUNTERS
from virtviz.study.all_paths import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from virtviz.study.all_paths import Costs

FORMAT: Final = "virtviz-all-paths"
FORMAT_VERSION: Final = 1


class RowLine(Struct):
    """What one packet costs on one path: a number for each counter that is a column."""

    path: str
    way: Literal["out", "in", "across"]
    added: Annotated[bool, Meta(description="The row is what a new flow adds to the path's other row.")]
    settings: dict[str, int | str]
    counters: dict[str, int]


class AllPathsLine(Struct):
    """The table of all paths under one profile."""

    format: Literal["virtviz-all-paths"]
    format_version: Literal[1]
    profile: str
    rows: list[RowLine]


def write_all_paths_table(out: TextIO, costs: Iterable[Costs], profile: str) -> None:
    """Write the table for people; it fits into 80 columns."""
    rows = list(costs)
    name = max(len(cost.row.name) for cost in rows)
    out.write(f"One packet, idle before it, flow known; profile {profile}.\n\n")
    widths = [max(len(head), 3) + 1 for head in COLUMNS.values()]
    heads = "".join(f"{head:>{width}}" for head, width in zip(COLUMNS.values(), widths, strict=True))
    out.write(f"{'path':{name}} {'way':6}{heads}\n")
    for cost in rows:
        cells = "".join(f"{value:>{width}}" for value, width in zip(cost.cells.values(), widths, strict=True))
        out.write(f"{cost.row.name:{name}} {cost.row.way:6}{cells}\n")
    out.write("\n")
    out.writelines(f"{head:>5}  {COUNTERS[counter]}\n" for counter, head in COLUMNS.items())
    out.writelines(f"{line}\n" for line in _remarks(rows))


def _remarks(rows: Sequence[Costs]) -> Iterator[str]:
    if any(cost.row.new_flow for cost in rows):
        yield "    +  what the first packet of a flow costs more than one of a known flow"


def write_all_paths_csv(out: TextIO, costs: Iterable[Costs]) -> None:
    """Write the table as comma-separated values, with the counters' own names as heads."""
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["path", "way", *COLUMNS])
    for cost in costs:
        writer.writerow([cost.row.name, cost.row.way, *cost.cells.values()])


def all_paths_json(costs: Iterable[Costs], profile: str) -> str:
    """Give the table as one JSON object, indented."""
    rows = [
        RowLine(
            cost.row.name,
            cost.row.way,  # type: ignore[arg-type]
            cost.row.new_flow,
            dict(cost.row.settings),  # type: ignore[arg-type]
            dict(cost.cells),
        )
        for cost in costs
    ]
    line = AllPathsLine(FORMAT, FORMAT_VERSION, profile, rows)
    return msgspec.json.format(msgspec.json.encode(line), indent=1).decode()
