"""The names that conditions and questions of a lesson may use, taken from the world that the lesson sets up.

Nothing is listed by hand: ops, outcomes and milestones come from the linked program, threads, queues and packets from
the simulation, fields from its memory and cells. So a lesson that names something the model does not have is found out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.ops import pick
from virtviz.lesson.conditions import is_field
from virtviz.ring.e1000 import RX_FIELDS, TX_FIELDS

if TYPE_CHECKING:
    from virtviz.engine.program import Arc
    from virtviz.paths.describe import Header
    from virtviz.paths.wiring import Simulation

_INDEX: Final = re.compile(r"\[(\d*)\]")
RING_FIELDS: Final = {
    "split": (
        *("desc", "desc.addr", "desc.len", "desc.flags", "desc.next"),
        *("avail.flags", "avail.idx", "avail.ring", "used_event"),
        *("used.flags", "used.idx", "used.ring", "used.ring.id", "used.ring.len", "avail_event"),
    ),
    "packed": (
        *("desc", "desc.addr", "desc.len", "desc.id", "desc.flags"),
        *("driver_event.desc", "driver_event.flags", "device_event.desc", "device_event.flags"),
    ),
    "e1000": ("desc", *(f"desc.{field}" for field in {**TX_FIELDS, **RX_FIELDS})),
}
"""Fields of a queue by its format, without the slot.

Source: virtio 1.4, 2.7.5, 2.7.6, 2.7.8, 2.8.13, 2.8.14; Intel's 8254x manual.
"""
_WRITTEN_WHOLE: Final = {
    "split": ("desc.", "used.ring."),
    "packed": ("desc.addr",),
    "e1000": ("desc.length", "desc.cmd", "desc.special", "desc.errors"),
}
"""Beginnings of fields that are part of a record; steps write the whole record."""


class Arrow(Struct, frozen=True):
    """What one outcome of one op is, as far as a condition can ask about it without running anything."""

    op: str
    outcome: str
    place: str
    domain: str
    queue: str
    milestone: str
    crossing: str
    effect: str


class Names(Struct, frozen=True):
    """Everything that a lesson may name.

    Attributes:
        arrows: every outcome of every op.
        threads, queues, packets: by their full names; packets in the order of their numbers.
        cells: names of cells with a value of their own, without index.
        pools: names of packet memories, whose fields are called `slot[n]`.
        size: slots of the queues.
        format: their format: `split`, `packed` or `e1000`.
    """

    arrows: tuple[Arrow, ...]
    threads: tuple[str, ...]
    queues: tuple[str, ...]
    packets: tuple[str, ...]
    cells: frozenset[str]
    pools: tuple[str, ...]
    size: int
    format: str

    @classmethod
    def of(cls, simulation: Simulation, header: Header) -> Names:
        """Collect the names of a world."""
        state = simulation.machine.state
        return cls(
            arrows=tuple(map(_arrow, simulation.machine.program.arcs)),
            threads=tuple(thread.name for thread in header.threads),
            queues=tuple(queue.name for queue in header.queues),
            packets=tuple(packet.name for packet in header.packets),
            cells=frozenset(_INDEX.sub("", name) for name in state.names),
            pools=tuple(simulation.pools),
            size=header.queues[0].size if header.queues else 0,
            format=header.queues[0].format if header.queues else "split",
        )

    def every(self, key: str) -> list[str]:
        """Give all values that a key of a condition can have, sorted."""
        return sorted({getattr(arrow, key) for arrow in self.arrows} - {""})

    def written_fields(self) -> list[str]:
        """Give the full names of all fields that a step can write, without index."""
        fields = [f for f in RING_FIELDS[self.format] if not f.startswith(_WRITTEN_WHOLE[self.format])]
        rings = [f"{queue}.{field}" for queue in self.queues for field in fields]
        return [*rings, *sorted(self.cells), *(f"{pool}.slot" for pool in self.pools)]

    def is_written(self, wanted: str) -> bool:
        """Say whether a field of that name is written by some step."""
        bare = _INDEX.sub("", wanted)
        return any(is_field(name, bare) for name in self.written_fields())

    def can_be_read(self, wanted: str) -> bool:
        """Say whether a field has a value that can be asked for: a ring's field with its slot, or a cell."""
        bare = _INDEX.sub("", wanted)
        slots = _INDEX.findall(wanted)
        if bare in self.cells:
            return True
        if not any(is_field(f"{queue}.{field}", bare) for queue in self.queues for field in RING_FIELDS[self.format]):
            return False
        has_slot = re.search(r"(^|\.)(desc|ring)(\.|$)", bare) is not None
        return len(slots) == int(has_slot) and all(slot and int(slot) < self.size for slot in slots)


def _arrow(arc: Arc) -> Arrow:
    op = arc.op
    return Arrow(
        op=op.name,
        outcome=arc.outcome,
        place=op.place.name,
        domain=str(op.place.domain),
        queue=op.routine.queue,
        milestone=pick(op.spec.milestone, arc.outcome),
        crossing=str(arc.crossing or ""),
        effect=str(arc.effect or ""),
    )
