"""The device's side of a split virtqueue as QEMU's virtio-net uses it: what it takes for known, and by which thread.

What QEMU notices in a ring is in `checked_device.py`. Here is how it looks for buffers: it keeps a shadow of avail.idx,
as vhost does, but refreshes it also whenever it turns kicks on or off. And two threads of QEMU may work on one queue,
each behind its own CPU.

Source: QEMU hw/virtio/virtio.c (virtio_queue_split_set_notification, virtio_queue_empty_rcu).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal

from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.index import U16, pending
from virtviz.ring.pieces import Pieces
from virtviz.spec.virtio import VIRTQ_DESC, VIRTQ_USED_F_NO_NOTIFY

if TYPE_CHECKING:
    from virtviz.engine.memory import Port
    from virtviz.ring.verdicts import Malformed


class QemuDevice(CheckedSplitDevice):
    """Device side of one split virtqueue, as QEMU's virtio-net uses it."""

    def through(self, memory: Port) -> QemuDevice:
        """Give the same device side as another thread of QEMU has it: what it keeps is one, the way to memory another.

        Args:
            memory: guest memory, as that thread's CPU reaches it.
        """
        other = copy(self)
        other.reach_by(memory)
        return other

    def reach_by(self, memory: Port) -> None:
        """Reach guest memory in another way from now on."""
        self.memory, self._u16 = memory, memory.u16
        self._read_desc, self._write = memory.reader(VIRTQ_DESC), memory.write
        self._found = Pieces(self.cells, memory, self.back_end)

    @property
    def wants_kicks(self) -> bool:
        """Whether kicks are on."""
        return not self.cells.used_flags & VIRTQ_USED_F_NO_NOTIFY

    def take_unread(self) -> None:
        """Take the buffer whose head was read, whatever it is, and ask for the kick after it (virtqueue_drop_all)."""
        mine = self.cells
        mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
        mine.in_flight += 1
        if self.event_idx:
            self._u16[self._avail_event] = mine.last_avail_idx

    def take_over(self, index: int) -> None:
        """Go on at an entry where another device side has stopped; what it has used stands in memory."""
        mine = self.cells
        mine.last_avail_idx = mine.avail_idx = index
        mine.last_used_idx = mine.signalled_used = self._u16[self._used_idx]
        mine.signalled_used_valid = 0

    def find(self) -> Literal["known", "new", "empty"] | Malformed:
        """See whether a buffer is available; avail.idx is read only if the shadow of it is used up.

        An index further ahead than the queue is long is let pass, however it became known.
        """
        if not self.waiting():
            return self.look()
        mine = self.cells
        if pending(mine.avail_idx, mine.last_avail_idx) > self._size:
            mine.expected, mine.seen = mine.last_avail_idx, mine.avail_idx
            self._found.refuse_nothing("avail.idx jumped")
        return "known"

    def reread_avail_idx(self) -> int:
        """Read avail.idx, whatever is known of it."""
        self.cells.avail_idx = index = self._u16[self._avail_idx]
        return index

    def disable_kicks(self) -> bool:
        """Stop asking for kicks; answers whether memory was written. With EVENT_IDX only the shadow is refreshed."""
        if not self.event_idx:
            return super().disable_kicks()
        self.cells.used_flags = VIRTQ_USED_F_NO_NOTIFY
        self.reread_avail_idx()
        return False
