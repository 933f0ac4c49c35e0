"""The plan of the screen: which panel lies where at which size.

At 80x24 everything has its least size. More rows and columns go first to the stage and the ring, then to panels that a small screen shows on a key
only: the ledger and the thread lanes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from virtviz.ui.draw.panels import COUNTERS_WIDTH
from virtviz.ui.draw.ring import FULL_ROWS, SMALL_ROWS
from virtviz.view.stage import SMALL_HEIGHT, TALL_HEIGHT

LEAST_WIDTH: Final = 80
LEAST_HEIGHT: Final = 24
WIDE: Final = 110
"""From this width on the ledger has a column of its own, under the counters."""
TALL: Final = 34
"""From this height on the stage and the ring are drawn large."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of the screen."""

    x: int
    y: int
    width: int
    height: int


def make_plan(width: int, height: int) -> Mapping[str, Rect]:
    """Give each panel its rectangle; a panel that is not in the answer is not shown. Too small a screen has no panels."""
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return {}
    tall, wide = height >= TALL, width >= WIDE
    stage = TALL_HEIGHT if tall else SMALL_HEIGHT
    ring = FULL_ROWS if tall else SMALL_ROWS
    # A row of air around the stage where there is one to spare.
    air = 1 if height >= LEAST_HEIGHT + 4 else 0
    right = (width - 66) * 2 // 5 + COUNTERS_WIDTH if wide else COUNTERS_WIDTH
    right = min(right, 64)
    left = width - right - (1 if wide else 0)
    top = 1 + stage + air
    track, hints = height - 2, height - 1
    sentence = min(5 + (height - LEAST_HEIGHT) // 8, 7)
    lanes = track - (top + ring + 1 + sentence)
    plan = {
        "title": Rect(0, 0, width, 1),
        "stage": Rect(0, 1, width, stage),
        "ring": Rect(1, top, left - 1, ring),
        "counters": Rect(width - right, top, right, ring),
        "track": Rect(0, track, width, 1),
        "hints": Rect(0, hints, width, 1),
    }
    column = left if wide else width
    who = top + ring
    if lanes < 5:
        sentence += max(lanes, 0)
        lanes = 0
    plan["who"] = Rect(0, who, column, 1)
    plan["sentence"] = Rect(0, who + 1, column, sentence)
    if lanes:
        plan["lanes"] = Rect(0, who + 1 + sentence, column, lanes)
    if wide:
        plan["ledger"] = Rect(width - right, who, right, track - who)
    return plan
