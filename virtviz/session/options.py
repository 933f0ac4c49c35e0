"""Options of questions: a right one and believable wrong ones, in an order that tells nothing.

Wrong options come from the run and from the usual mistakes: the neighbour in the ring, an index taken for a slot, one
more or one less. Which ones are taken depends on the question and on the run only, so a lesson asks the same for
everybody; and the order is that of the things themselves (threads as listed, numbers by size, words by the alphabet),
never "right one first".
"""

from __future__ import annotations

import re
from itertools import permutations
from typing import TYPE_CHECKING, Final
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from virtviz.paths.describe import QueueInfo

OPTIONS_MAX: Final = 4
"""Options that are made; more than that is reading, not thinking."""
U16_MASK: Final = 0xFFFF
THEN: Final = ", then "
"""Joins the events of an order."""

_PARTS: Final = (
    "desc",
    "avail.flags",
    "avail.idx",
    "avail.ring",
    "used_event",
    "used.flags",
    "used.idx",
    "used.ring",
    "avail_event",
    "driver_event",
    "device_event",
)
"""The fields of a split ring, and then those a packed one has, in the order in which they lie in memory."""
_BRACKETS: Final = re.compile(r"\[(\d+)\]")


def with_others(right: str, others: Iterable[str], size: int = OPTIONS_MAX) -> list[str]:
    """Give the right option and the first others that differ from it and from each other, unordered."""
    return list(dict.fromkeys([right, *others]))[:size]


def in_order_of(options: Iterable[str], order: Sequence[str]) -> list[str]:
    """Sort options as they are listed elsewhere; what is not listed comes last."""
    places = {name: place for place, name in enumerate(order)}
    return sorted(options, key=lambda name: (places.get(name, len(places)), name))


def numbers(right: int, now: int, *, key: str, slots: int = 0, low: int = 0, high: int = U16_MASK) -> list[int]:
    """Give numbers around the right one: unchanged, as a slot, one off, two off; in order of size.

    Most right numbers are small, so that nearly always one option would be below and two above. That the order goes up
    for one question and down for another keeps their places from telling.

    Args:
        right: the right number.
        now: the number as it is when the question is asked.
        key: the question's name; decides which of the others are taken, and whether the order goes up or down.
        slots: size of the ring, where the number is an index into it; 0 where it is none.
        low: the lowest it can be.
        high: the highest it can be.
    """
    hashed = crc32(key.encode())
    side = 1 if hashed & 1 else -1
    candidates = [now, *([right % slots] if slots else []), *(right + side * d for d in (1, 2, -1, 3, -2, 4))]
    possible = [number for number in candidates if low <= number <= high]
    return sorted(list(dict.fromkeys([right, *possible]))[:OPTIONS_MAX], reverse=bool(hashed & 2))


def ring_fields(right: str, written: Iterable[str], queue: QueueInfo) -> list[str]:
    """Give the field that is right and others of its queue, in the order in which they lie in memory.

    Args:
        right: a field's name, such as `avail.idx`.
        written: other fields that are written, the nearest first.
        queue: the queue.
    """
    written = list(written)
    slots = [slot for field in (right, *written) for slot in _BRACKETS.findall(field)]
    slot = slots[0] if slots else "0"
    if queue.format == "packed":
        usual = [f"desc[{slot}].flags", "driver_event.flags", f"desc[{slot}].id", "device_event.flags"]
        usual += ["driver_event.desc", "device_event.desc"] if queue.event_idx else []
    elif queue.format == "e1000":
        usual = [f"desc[{slot}]", *(f"desc[{slot}].{field}" for field in ("addr", "length", "status", "special"))]
    else:
        usual = ["avail.idx", f"avail.ring[{slot}]", "used.idx", f"desc[{slot}]", f"used.ring[{slot}]"]
        usual += ["avail_event", "used_event"] if queue.event_idx else ["avail.flags", "used.flags"]
    # Two of what is written soon, the rest from those that everybody knows.
    near = [field for field in dict.fromkeys(written) if field != right][:2]
    return sorted(with_others(right, [*near, *usual]), key=_place_in_ring)


def orders(right: Sequence[str], key: str) -> list[str]:
    """Give the right order of some events and other orders of them, as sentences.

    Of three or more events, those orders come first that swap two neighbours; which of them is decided by the
    question's name.
    """
    right = tuple(right)
    swapped = [(*right[:i], right[i + 1], right[i], *right[i + 2 :]) for i in range(len(right) - 1)]
    turn = crc32(key.encode()) % max(len(swapped), 1)
    candidates = [*swapped[turn:], *swapped[:turn], right[::-1], *permutations(right)]
    return sorted(with_others(THEN.join(right), (THEN.join(order) for order in candidates)))


def _place_in_ring(field: str) -> tuple[int, int, str]:
    slot = _BRACKETS.search(field)
    part = _BRACKETS.sub("", field)
    known = [i for i, name in enumerate(_PARTS) if part == name or part.startswith(f"{name}.")]
    return (known[0] if known else len(_PARTS), int(slot[1]) if slot else 0, field)
