"""One row for each budget: what was measured, against what, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

Measure = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table.

    Attributes:
        group: `engine`, `rings`, `start-up` or `screen`.
        what: what is measured.
        measured: the measured value with its unit.
        baseline: the value it is compared with, and what that is.
        ratio: one over the other; empty where the budget is no ratio.
        budget: what it must keep; empty for a line that is only there to be known.
        holds: whether it does.
    """

    group: str
    what: str
    measured: str
    baseline: str
    ratio: str
    budget: str
    holds: bool = True

    @property
    def verdict(self) -> str:
        """Say it in a word."""
        return "-" if not self.budget else "ok" if self.holds else "OVER"

    def cells(self) -> tuple[str, ...]:
        """Give the line's columns."""
        return (self.what, self.measured, self.baseline, self.ratio, self.budget, self.verdict)


HEADINGS = ("what", "measured", "baseline", "ratio", "budget", "verdict")


def in_turns(measure: Measure, baseline: Measure, repetitions: int) -> tuple[float, float, float]:
    """Measure and baseline in turns, so that both see the same machine; answers both medians and the ratios'."""
    pairs = [(baseline(), measure()) for _ in range(repetitions)]
    return (
        median(measured for _, measured in pairs),
        median(base for base, _ in pairs),
        median(measured / base for base, measured in pairs),
    )


def draw(rows: Sequence[Row]) -> str:
    """Draw the table as text, grouped."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    drawn = [_line(HEADINGS, widths), _line(["-" * width for width in widths], widths)]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            drawn.append(f"[{group}]")
        drawn.append(_line(row.cells(), widths))
    return "\n".join(drawn)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
