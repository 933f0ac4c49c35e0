"""The device's side of a virtqueue as QEMU's virtio-net uses it: what it takes for known, and by which thread.

What QEMU notices in a ring is in `checked_device.py` and `packed_device.py`. Here is how it looks for buffers. Of a
split ring it keeps a shadow of avail.idx, as vhost does, but refreshes it also whenever it turns kicks on or off. Of a
packed ring it knows how far it was filled when it was last gone through. And two threads of QEMU may work on one queue,
each behind its own CPU.

Source: QEMU hw/virtio/virtio.c (virtio_queue_split_set_notification, virtio_queue_empty_rcu, virtio_queue_split_poll,
virtio_queue_packed_set_notification, virtio_queue_packed_empty_rcu, virtio_queue_packed_poll).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal

from virtviz.ring.checked_device import CheckedSplitDevice
from virtviz.ring.index import U16, pending
from virtviz.ring.packed import DESC_BYTES, OFFSET, is_available
from virtviz.ring.packed_device import PackedDevice
from virtviz.ring.pieces import Pieces
from virtviz.spec.virtio import VIRTQ_DESC, VIRTQ_DESC_F_NEXT, VIRTQ_USED_F_NO_NOTIFY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port
    from virtviz.ring.verdicts import Malformed


class QemuDevice(CheckedSplitDevice):
    """Device side of one split virtqueue, as QEMU's virtio-net uses it; it is a `QemuRing`."""

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

    def let_go(self, heads: Sequence[int]) -> None:
        """Forget buffers that were taken and are never returned (virtqueue_detach_element)."""
        self.cells.in_flight -= len(heads)

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

    def mark(self) -> int:
        """Give avail.idx as last read."""
        return self.cells.avail_idx

    def more_since(self, mark: int) -> bool:
        """Read avail.idx: say whether it has moved since."""
        return self.reread_avail_idx() != mark

    def peek_next_address(self) -> int:
        """Give the address in the next available head's descriptor, -1 if that is nonsense. For people only."""
        slot = self.cells.last_avail_idx & self._mask
        head = int.from_bytes(self.memory.read(self.layout.avail_ring(slot), 2), "little")
        if head > self._mask:
            return -1
        return int.from_bytes(self.memory.read(self.layout.desc + DESC_BYTES * head, 8), "little")


class QemuPackedDevice(PackedDevice):
    """Device side of one packed virtqueue, as QEMU's virtio-net uses it; it is a `QemuRing`."""

    def through(self, memory: Port) -> QemuPackedDevice:
        """Give the same device side as another thread of QEMU has it; see `QemuRing`."""
        other = copy(self)
        other.reach_by(memory)
        return other

    @property
    def wants_kicks(self) -> bool:
        """Whether kicks are on."""
        return not self.cells.kicks_off

    def take_unread(self) -> None:
        """Take the buffer begun with, whatever it is: as many slots as follow one another by NEXT.

        QEMU itself forgets to count them as in flight (virtqueue_packed_drop_all), and so stops after the first.
        """
        mine, flags = self.cells, VIRTQ_DESC_F_NEXT
        while flags & VIRTQ_DESC_F_NEXT and mine.found < self._size:
            _, _, buffer_id, flags = self._read_desc(self._ring + DESC_BYTES * mine.slot)
            self._pass_slot()
        self._finish(buffer_id)

    def let_go(self, heads: Sequence[int]) -> None:
        """Forget buffers that were taken and are never returned (virtqueue_detach_element)."""
        self.cells.in_flight -= sum(handle >> 16 for handle in heads)

    def find(self) -> Literal["known", "new", "empty"] | Malformed:
        """Read the flags of the next descriptor; of an empty ring it is then known where it is empty."""
        found, mine = self.look(), self.cells
        if found == "empty" and (mine.filled, mine.filled_wrap) != (mine.next_avail, mine.avail_wrap):
            mine.filled, mine.filled_wrap = mine.next_avail, mine.avail_wrap
        return found

    def mark(self) -> int:
        """Give the slot up to which the ring was seen to be filled, and from bit 15 its wrap counter."""
        return self.cells.filled | self.cells.filled_wrap << 15

    def more_since(self, mark: int) -> bool:
        """Read the flags of the descriptor behind what was there: say whether it is available now."""
        return is_available(self._u16[self._flags + DESC_BYTES // 2 * (mark & OFFSET)], mark >> 15)

    def peek_address(self) -> int:
        """Give the address in the descriptor that is read next. For people only."""
        return self._address_in(self.cells.slot)

    def peek_next_address(self) -> int:
        """Give the address in the next descriptor to be taken. For people only."""
        return self._address_in(self.cells.next_avail)

    def _address_in(self, slot: int) -> int:
        return int.from_bytes(self.memory.read(self.layout.desc(slot), 8), "little")
