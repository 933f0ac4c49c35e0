"""A plot for a terminal: horizontal bars in eighths of a character, or in whole ones where only ASCII will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
FULL_ASCII: Final = "#"


class Bar(Struct, frozen=True):
    """One bar: what stands before it, its length (None for no bar), and what stands behind it."""

    label: str
    value: float | None
    said: str


def bars(found: Sequence[Bar], largest: float, columns: int, *, ascii_only: bool = False) -> Iterator[str]:
    """Draw bars, a line each.

    Args:
        found: the bars.
        largest: the value that takes the whole width.
        columns: of the page.
        ascii_only: draw with `#`.
    """
    label = max((len(bar.label) for bar in found), default=0)
    said = max((len(bar.said) for bar in found), default=0)
    width = max(columns - label - said - 3, 8)
    for bar in found:
        share = bar.value / largest if bar.value and largest > 0 else 0.0
        drawn = _ascii(share * width) if ascii_only else _blocks(share * width)
        yield f"{bar.label:>{label}} {drawn}{' ' if drawn else ''}{bar.said}"


def _blocks(length: float) -> str:
    eighths = round(length * 8)
    full, rest = divmod(eighths, 8)
    # What is more than nothing is seen.
    rest = max(rest, 1) if length > 0 and not full else rest
    return EIGHTHS[8] * full + (EIGHTHS[rest] if rest else "")


def _ascii(length: float) -> str:
    return FULL_ASCII * max(round(length), 1 if length > 0 else 0)
