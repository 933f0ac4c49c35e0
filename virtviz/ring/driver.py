"""What the driver's side of a virtqueue does whatever its layout.

Source: Linux drivers/virtio/virtio_ring.c (virtqueue_use_indirect, vring_interrupt).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from virtviz.engine.memory import Port
    from virtviz.ring.rings import DriverRingCells

Segment = tuple[int, int]
"""Address and length of one piece of a buffer."""

FREE: Final = 0
"""In `tokens`: this descriptor or buffer id does not name an outstanding buffer."""


class Driver:
    """Driver side of one virtqueue: what both layouts share.

    Attributes:
        name: the queue's name, such as `vm1.transmitq1`.
        memory: guest memory.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated.
        cells: what the driver keeps to itself.
    """

    cells: DriverRingCells

    def __init__(self, name: str, memory: Port, *, event_idx: bool, indirect: bool) -> None:
        self.name = name
        self.memory = memory
        self.event_idx = event_idx
        self.indirect = indirect

    def fits(self, descriptors: int) -> bool:
        """Say whether a buffer of that many descriptors can be added."""
        return self.cells.num_free >= descriptors

    def uses_indirect(self, segments: int) -> bool:
        """Say whether a buffer of that many pieces goes into an indirect table, as Linux decides it."""
        return self.indirect and segments > 1 and self.cells.num_free > 0

    def note_interrupt(self) -> None:
        """An interrupt came with work: with EVENT_IDX Linux counts on none coming before it asks again."""
        if self.event_idx and not self.cells.event_triggered:
            self.cells.event_triggered = 1
