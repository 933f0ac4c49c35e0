"""The plan of the screen: which panel lies where at which size.

At 80x24 everything has its least size. More rows and columns go first to the stage and the ring, then to panels that
a small screen shows on a key
only: the ledger and the thread lanes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.ui.draw.lists import LANE_NAME
from virtviz.ui.draw.panels import COUNTERS_WIDTH
from virtviz.ui.draw.ring_parts import FULL_ROWS, LABEL, SMALL_ROWS
from virtviz.view.stage import BOX
from virtviz.view.stage_plan import GRAND_HEIGHT, SMALL_HEIGHT, TALL_HEIGHT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.view.stage import Stage

LEAST_WIDTH: Final = 80
LEAST_HEIGHT: Final = 24
WIDE: Final = 110
"""From this width on the ledger has a column of its own, under the counters."""
TALL: Final = 34
"""From this height on the stage and the ring are drawn large."""
GRAND: Final = 50
LEFT_WIDTH: Final = 77
"""What the ring's column needs for eight slots drawn large."""
TITLE_RIGHT: Final = 20
"""Columns of the title line in which the step is written."""
TILE_COLUMNS: Final = 20
"""Width of the tiles in which one cell changes at a time."""
SENTENCE_ROWS: Final = 5
LANES_LEAST_ROWS: Final = 5
LANES_ROWS: Final = 10
SOURCES_LEAST_ROWS: Final = 6


class Rect(Struct, frozen=True):
    """A rectangle of the screen."""

    x: int
    y: int
    width: int
    height: int


def make_plan(width: int, height: int) -> Mapping[str, Rect]:
    """Give each panel its rectangle on the screen.

    A panel that is not in the answer is not shown; a screen that is too small has none.
    """
    if width < LEAST_WIDTH or height < LEAST_HEIGHT:
        return {}
    tall, wide = height >= TALL, width >= WIDE
    right = min(COUNTERS_WIDTH + max(width - LEFT_WIDTH - COUNTERS_WIDTH - 1, 0), 64) if wide else COUNTERS_WIDTH
    left = width - right - (1 if wide else 0)
    column = left if wide else width
    stage = GRAND_HEIGHT if height >= GRAND and width >= 160 else TALL_HEIGHT if tall else SMALL_HEIGHT
    ring = FULL_ROWS if tall and left >= LEFT_WIDTH else SMALL_ROWS
    # What is left over goes, in this order: to the sentence, to the lanes, to the sources, and between the parts as
    # air.
    spare = height - 1 - stage - ring - 1 - 2 - SENTENCE_ROWS
    sentence = SENTENCE_ROWS + min(spare, 1 + max(height - 40, 0) // 10)
    spare -= sentence - SENTENCE_ROWS
    lanes = min(spare, LANES_ROWS) if spare >= LANES_LEAST_ROWS else 0
    spare -= lanes
    above = min(spare, 1)
    gap = 1 if spare > 1 else 0
    spare -= above + gap
    sources = spare if spare >= SOURCES_LEAST_ROWS else 0
    if not sources:
        lanes, sentence = (lanes + spare, sentence) if lanes else (0, sentence + spare)
    top = 1 + stage + above
    who = top + ring + gap
    below = who + 1 + sentence
    track = height - 2
    plan = {
        "title": Rect(0, 0, width, 1),
        "stage": Rect(0, 1, width, stage),
        "ring": Rect(1, top, left - 1, ring),
        "counters": Rect(width - right, top, right, ring),
        "who": Rect(0, who, column, 1),
        "sentence": Rect(0, who + 1, column, sentence),
        "track": Rect(0, track, width, 1),
        "hints": Rect(0, height - 1, width, 1),
    }
    if lanes:
        plan["lanes"] = Rect(0, below, column, lanes)
    if sources:
        plan["sources"] = Rect(0, below + lanes, column, sources)
    if wide:
        plan["ledger"] = Rect(width - right, who, right, track - who)
    return plan


def make_tiles(plan: Mapping[str, Rect], stage: Stage, width: int, height: int) -> list[Rect]:
    """Cut the whole screen into tiles, so that what changes together lies in one tile and begins at its left edge."""
    tiles: list[Rect] = []

    def cut(top: int, bottom: int, *columns: int) -> None:
        edges = sorted({0, width, *(c for c in columns if 0 < c < width)})
        if bottom > top:
            tiles.extend(Rect(a, top, b - a, bottom - top) for a, b in pairwise(edges))

    ring, counters, who, track = plan["ring"], plan["counters"], plan["who"], plan["track"]
    below = ring.y + ring.height
    cut(0, 1, width - TITLE_RIGHT)
    boxes = sorted(spot.x for spot in stage.spots.values() if spot.shape == BOX and spot.domain.endswith("kernel"))
    cut(1, 1 + stage.height, *boxes[1:], _wall(stage) - 1)
    cut(1 + stage.height, below, ring.x + LABEL, counters.x, counters.x + 13)
    column = who.width
    if "lanes" in plan:
        lanes = plan["lanes"]
        cut(below, lanes.y, column)
        steps = range(LANE_NAME, column, TILE_COLUMNS)
        cut(lanes.y, lanes.y + lanes.height, *steps, column)
        below = lanes.y + lanes.height
    cut(below, track.y, column)
    cut(track.y, track.y + 1, *range(TILE_COLUMNS, width, TILE_COLUMNS))
    cut(track.y + 1, height)
    return tiles


def _wall(stage: Stage) -> int:
    """Give the column of the wall between guest and host; where there is no guest, that of the middle."""
    gate = stage.gates.get("guest-host")
    return gate.at[0] if gate is not None else stage.width // 2
