"""Thread lanes: which thread took which step, and in which domain, as one row for each thread.

Only the past is shown, for what comes next may be what somebody is asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from virtviz.view.build import fold_of
from virtviz.view.fold import DOMAINS

if TYPE_CHECKING:
    from virtviz.engine.places import Domain
    from virtviz.view.frame import Source


class Lane(Struct, frozen=True):
    """One thread's part of the window.

    Attributes:
        thread: its name.
        ran: for each step of the window, the domain the thread was in if it took that step, else None.
    """

    thread: str
    ran: tuple[Domain | None, ...]


class Lanes(Struct, frozen=True):
    """A window on the past.

    Attributes:
        first: the step in the first column.
        crossings: columns whose step crossed a border.
        lanes: in the header's order.
    """

    first: int
    crossings: frozenset[int]
    lanes: tuple[Lane, ...]


def make_lanes(source: Source, position: int, columns: int) -> Lanes:
    """Give the steps up to a position, at most so many.

    The window moves on by half of its width at a time, so that half of it at least is history once there is as much.
    """
    fold = fold_of(source)
    fold.at(position)
    half = max(columns // 2, 1)
    first = -(-max(position - columns, 0) // half) * half + 1
    steps = range(first, position + 1)
    crossings = frozenset(n - first for n in fold.crossings if n in steps)
    lanes = tuple(
        Lane(thread.name, tuple(DOMAINS[fold.domains[n - 1]] if fold.took[n - 1] == i else None for n in steps))
        for i, thread in enumerate(source.header.threads)
    )
    return Lanes(first, crossings, lanes)
