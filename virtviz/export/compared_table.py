"""A comparison as text: a column for each world, a block for each milestone, and what the differences come from.

Where the columns are wide enough, each crossing stands there with its cause; in narrow ones it stands by itself, and
the causes follow below. Where worlds differ, the line begins with a mark.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final, TextIO

from virtviz.engine.counters import COUNTERS
from virtviz.engine.effects import EffectKind
from virtviz.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from virtviz.study.compare import Comparison, Difference, Entry, Section, Way

WIDTH: Final = 80
"""Columns where nobody says how many there are."""
WIDTH_MAX: Final = 200
LABEL: Final = 18
"""Columns for the mark, the milestone and a gap."""
CAUSES_FROM: Final = 26
"""Columns that a world needs for causes to stand in it."""
MARK: Final = "*"
NOTHING: Final = "-"
INDENT: Final = "  "


def write_comparison(out: TextIO, comparison: Comparison, width: int | None = None) -> None:
    """Write a comparison.

    Args:
        out: where to.
        comparison: what.
        width: columns of the terminal; None if it is none.
    """
    page = _Page(comparison, min(width or WIDTH, WIDTH_MAX))
    out.writelines(line.rstrip() + "\n" for line in page.lines())


class _Page:
    def __init__(self, comparison: Comparison, width: int) -> None:
        self.comparison = comparison
        self.names = [printable(account.name) for account in comparison.accounts]
        self.width = max(width, LABEL + 12 * len(self.names))
        self.column = (self.width - LABEL) // len(self.names)
        self.with_causes = self.column >= CAUSES_FROM

    def lines(self) -> Iterator[str]:
        for way in self.comparison.ways:
            yield from self._way(way)
            yield ""
        yield from self._totals()

    def _way(self, way: Way) -> Iterator[str]:
        if way.packet:
            yield f"packet {way.packet}" + (f", {way.name}" if not way.name.startswith("#") else "")
        else:
            yield "belonging to no packet"
        yield from self._row("", self.names)
        for section in way.sections:
            yield from self._section(section)
        for world in range(1, len(self.names)):
            yield from self._differences(world, [found for found in way.differences if found.world == world])

    def _section(self, section: Section) -> Iterator[str]:
        nth = f" {section.nth}" if section.nth > 1 else ""
        when = [f"step {step}" if step else "never" for step in section.reached]
        # What comes before any milestone is nobody's step.
        heading = when if any(section.reached) else [""] * len(when)
        mark = MARK if any(section.reached) and not all(section.reached) else " "
        yield from self._row(f"{mark} {section.milestone}{nth}", heading)
        for row in section.rows:
            differ = any(entry is None for entry in row)
            yield from self._row(MARK if differ else "", [self._cell(entry) for entry in row])

    def _cell(self, entry: Entry | None) -> str:
        if entry is None:
            return f"{INDENT}{NOTHING}"
        return INDENT + (f"{_kind(entry)}: {_cause(entry)}" if self.with_causes else _kind(entry))

    def _row(self, label: str, cells: Sequence[str]) -> Iterator[str]:
        """Lay cells beside each other, each wrapped to its column."""
        inner = self.column - 1
        wrapped = [
            textwrap.wrap(cell, inner, subsequent_indent=2 * INDENT, break_on_hyphens=False) or [""] for cell in cells
        ]
        for number in range(max(map(len, wrapped))):
            parts = [column[number] if number < len(column) else "" for column in wrapped]
            begin = label if number == 0 else ""
            yield f"{begin:{LABEL}}" + "".join(f"{part:{self.column}}" for part in parts)

    def _differences(self, world: int, found: Sequence[Difference]) -> Iterator[str]:
        if not found:
            yield f"{self.names[world]} costs what {self.names[0]} costs."
            return
        yield f"{self.names[world]}, compared with {self.names[0]}:"
        for difference in found:
            title = f"{difference.by:+d} {COUNTERS[difference.counter]}: "
            causes = ", ".join(_counted(self._reasons(difference)))
            yield from textwrap.wrap(
                title + causes, self.width, initial_indent=INDENT, subsequent_indent=3 * INDENT, break_on_hyphens=False
            )

    def _reasons(self, difference: Difference) -> Iterator[str]:
        for cause in difference.causes:
            yield ("" if cause.world else f"only {self.names[0]}: ") + _cause(cause.entry)

    def _totals(self) -> Iterator[str]:
        accounts = self.comparison.accounts
        title = max(len(title) for title in COUNTERS.values())
        column = max(7, min(max(map(len, self.names)) + 2, (self.width - title - 2) // len(accounts)))
        wrapped = [textwrap.wrap(name, column - 2) for name in self.names]
        for number in range(max(map(len, wrapped))):
            parts = [name[number] if number < len(name) else "" for name in wrapped]
            yield f"{'in all' if number == 0 else '':{title}}" + "".join(f"{part:>{column}}" for part in parts)
        for name, said in COUNTERS.items():
            values = [account.counters[name] for account in accounts]
            mark = f" {MARK}" if len(set(values)) > 1 else ""
            yield f"{said:{title}}" + "".join(f"{value:>{column}}" for value in values) + mark
        yield f"{'steps':{title}}" + "".join(f"{account.steps:>{column}}" for account in accounts)


def _kind(entry: Entry) -> str:
    words = str(entry.kind)
    if entry.kind is EffectKind.COPY:
        words += f" of {entry.bytes} bytes" if entry.bytes else ""
    elif entry.how:
        words += f" ({entry.how})"
    return words if entry.side == "host" or "vm-" in words else f"{words} in guest"


def _cause(entry: Entry) -> str:
    return f"{entry.cause}, {entry.target}" if entry.target and entry.target not in entry.cause else entry.cause


def _counted(reasons: Iterable[str]) -> list[str]:
    """Say once what comes several times."""
    found: dict[str, int] = {}
    for reason in reasons:
        found[reason] = found.get(reason, 0) + 1
    return [reason if times == 1 else f"{reason} ({times} times)" for reason, times in found.items()]
