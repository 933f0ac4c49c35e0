"""Fields by name: what a lesson calls `avail.idx` or `vm1.transmitq1.used.ring[3].id`, in memory or among the cells."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.lesson.conditions import is_called

if TYPE_CHECKING:
    from virtviz.paths.describe import QueueInfo
    from virtviz.session.run import Run

_OF_RING: Final = re.compile(
    r"^(?:(?P<queue>.+)\.)?"
    r"(?P<field>(?:avail|used)\.(?:flags|idx)|used_event|avail_event|(?:driver|device)_event\.\w+"
    r"|(?:desc|avail\.ring|used\.ring)\[\d{1,5}\](?:\.\w+)?)$"
)
_INDICES: Final = frozenset({"avail.idx", "used.idx", "used_event", "avail_event"})
"""Fields that are free-running indices: those of a split queue."""


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
    """Find a field of a queue, by the names of virtio 1.4, 2.7 and 2.8, or of an e1000's descriptors."""
    with suppress(ValueError):
        addr, size = queue.layout.field_place(name)
        return Field(queue, addr=addr, size=size, is_index=name in _INDICES)
    return None
