"""The results of a sweep as text with a plot, as comma-separated values, and as JSON."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final, Literal, TextIO

import msgspec
from msgspec import Struct

from virtviz.errors import printable
from virtviz.export.plot import Bar, bars
from virtviz.study.metrics import METRICS, spelled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.study.metrics import Number
    from virtviz.study.sweep import Point, Result

FORMAT: Final = "virtviz-sweep"
FORMAT_VERSION: Final = 1
WIDTH: Final = 80
WIDTH_MAX: Final = 120
WORLD: Final = "world"


class RunLine(Struct):
    """One run: its world, its settings on the axes, and its figures."""

    world: str
    at: dict[str, str]
    figures: dict[str, int | float | None]


class SweepLine(Struct):
    """A sweep: its axes, and its runs in the order of the grid, the last axis fastest."""

    format: Literal["virtviz-sweep"]
    format_version: Literal[1]
    axes: list[str]
    runs: list[RunLine]


def write_sweep_csv(out: TextIO, points: Sequence[Point], results: Sequence[Result]) -> None:
    """Write a line for each run, with every figure there is; nothing in a cell where a figure does not exist."""
    writer = csv.writer(out, lineterminator="\n")
    names = [name for name in METRICS if name in results[0].found]
    writer.writerow([*_heads(points), *names])
    for point, result in zip(points, results, strict=True):
        writer.writerow([*_cells(point, points), *(spelled(result.found[name]) for name in names)])


def sweep_json(points: Sequence[Point], results: Sequence[Result]) -> str:
    """Give a sweep as one JSON object, indented."""
    runs = [
        RunLine(point.world, dict(point.at), dict(result.found)) for point, result in zip(points, results, strict=True)
    ]
    line = SweepLine(FORMAT, FORMAT_VERSION, [name for name, _ in points[0].at], runs)
    return msgspec.json.format(msgspec.json.encode(line), indent=1).decode()


def write_sweep_table(
    out: TextIO,
    points: Sequence[Point],
    results: Sequence[Result],
    shown: Sequence[str],
    width: int | None = None,
    *,
    ascii_only: bool = False,
) -> None:
    """Write the figures that are asked for, and a plot of the first of them over the first axis.

    Args:
        out: where to.
        points: the runs.
        results: what they came to.
        shown: names of figures.
        width: columns of the terminal; None if it is none.
        ascii_only: draw with ASCII characters.
    """
    rows = [[*_heads(points), *shown]]
    for point, result in zip(points, results, strict=True):
        rows.append([*_cells(point, points), *(spelled(result.found[name]) or "-" for name in shown)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    out.writelines(
        "  ".join(f"{cell:>{size}}" for cell, size in zip(row, widths, strict=True)).rstrip() + "\n" for row in rows
    )
    out.write("\n")
    out.writelines(f"{name}: {METRICS[name].what}\n" for name in shown)
    columns = min(width or WIDTH, WIDTH_MAX)
    for name in shown[:1]:
        _plot(out, points, [result.found[name] for result in results], name, columns, ascii_only=ascii_only)


def _plot(
    out: TextIO, points: Sequence[Point], values: Sequence[Number], name: str, columns: int, *, ascii_only: bool
) -> None:
    """Draw a figure over the first axis, a block of bars for each combination of everything else."""
    blocks: dict[str, list[Bar]] = {}
    for point, value in zip(points, values, strict=True):
        (axis, at), *others = point.at
        title = ", ".join([*([point.world] if point.world else []), *(f"{key}={said}" for key, said in others)])
        heading = f"{name} over {axis}" + (f", {title}" if title else "")
        blocks.setdefault(heading, []).append(Bar(printable(at), value, spelled(value) or "-"))
    largest = max((value for value in values if value is not None), default=0)
    for heading, found in blocks.items():
        out.write(f"\n{printable(heading)}\n")
        out.writelines(f"{line}\n" for line in bars(found, largest, columns, ascii_only=ascii_only))


def _heads(points: Sequence[Point]) -> list[str]:
    return [*([WORLD] if points[0].world else []), *(name for name, _ in points[0].at)]


def _cells(point: Point, points: Sequence[Point]) -> list[str]:
    return [*([printable(point.world)] if points[0].world else []), *(printable(value) for _, value in point.at)]
