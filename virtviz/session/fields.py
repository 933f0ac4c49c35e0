"""Fields by name: what a lesson calls `avail.idx` or `vm1.transmitq1.used.ring[3].id`, in memory or among the cells."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.lesson.conditions import is_called
from virtviz.ring.split import SplitLayout

if TYPE_CHECKING:
    from virtviz.paths.describe import QueueInfo
    from virtviz.session.run import Run

_OF_RING: Final = re.compile(
    r"^(?:(?P<queue>.+)\.)?"
    r"(?P<field>(?:avail|used)\.(?:flags|idx)|used_event|avail_event|(?:desc|avail\.ring|used\.ring)\[\d{1,5}\](?:\.\w+)?)$"
)
_WITH_SLOT: Final = re.compile(r"^(desc|avail\.ring|used\.ring)\[(\d+)\](?:\.(\w+))?$")
_DESC_PARTS: Final = {"addr": (0, 8), "len": (8, 4), "flags": (12, 2), "next": (14, 2)}
"""Offset and bytes of a descriptor's parts. Source: virtio 1.4, 2.7.5."""
_USED_PARTS: Final = {"id": (0, 4), "len": (4, 4)}
"""Offset and bytes of a used element's parts. Source: virtio 1.4, 2.7.8."""


class Field(Struct, frozen=True):
    """A field that can be looked up at any position.

    Attributes:
        queue: the virtqueue it belongs to, None for a cell.
        cell: the cell's number; -1 for a field in memory.
        addr, size: where in the queue's region, and how many bytes; 0 for a cell.
        is_index: it is a free-running 16-bit index, not a slot.
    """

    queue: QueueInfo | None
    cell: int = -1
    addr: int = 0
    size: int = 0
    is_index: bool = False

    @property
    def high(self) -> int:
        """The highest value it can have."""
        return (1 << 8 * (self.size or 8)) - 1

    def value(self, run: Run, position: int) -> int:
        """Give its value at a position."""
        run.machine.seek(position)
        state = run.machine.state
        if self.queue is None:
            return int(state.value(self.cell))
        region = next(region for region in state.regions if region.name == self.queue.region)
        return int.from_bytes(region.read(self.addr, self.size), "little")


def find_field(run: Run, name: str, position: int) -> Field | None:
    """Find a field by its name; None if there is none of that name.

    A name may begin with the queue it is in (`vm1.transmitq1.avail.idx`, or without the machine's name); else it is the
    queue that the step at this position works on, or the last one before it that was worked on. A cell is given by its
    full name, with or without that of the machine.
    """
    match = _OF_RING.match(name)
    if match is None:
        return _cell(run, name)
    queues = list(run.header.queues)
    if match["queue"]:
        meant = [queue for queue in queues if is_called(queue.name, match["queue"])]
    else:
        worked_on = next((q for q in (run.arc(n).op.routine.queue for n in range(position, 0, -1)) if q), "")
        meant = [queue for queue in queues if queue.name == worked_on] or queues
    return _in_queue(meant[0], match["field"]) if meant else None


def _cell(run: Run, name: str) -> Field | None:
    """Find a cell by its name."""
    machines = dict.fromkeys(queue.name.partition(".")[0] for queue in run.header.queues)
    for full in (name, *(f"{machine}.{name}" for machine in machines)):
        with suppress(ValueError):
            return Field(None, run.machine.state.names.index(full))
    return None


def _in_queue(queue: QueueInfo, name: str) -> Field | None:
    """Find a field of a queue, by the names of virtio 1.4, 2.7."""
    layout = SplitLayout(queue.size, queue.desc, queue.avail, queue.used)
    words = {
        "avail.flags": layout.avail_flags,
        "avail.idx": layout.avail_idx,
        "used_event": layout.used_event,
        "used.flags": layout.used_flags,
        "used.idx": layout.used_idx,
        "avail_event": layout.avail_event,
    }
    if name in words:
        return Field(queue, addr=words[name], size=2, is_index=not name.endswith("flags"))
    match = _WITH_SLOT.match(name)
    if match is None or int(match[2]) >= queue.size:
        return None
    part, slot, inner = match[1], int(match[2]), match[3] or ""
    if part == "avail.ring":
        return None if inner else Field(queue, addr=layout.avail_ring(slot), size=2)
    base, parts = (layout.desc + 16 * slot, _DESC_PARTS) if part == "desc" else (layout.used_ring(slot), _USED_PARTS)
    if inner not in parts:
        return None
    offset, size = parts[inner]
    return Field(queue, addr=base + offset, size=size)
