"""The device's side of a split virtqueue as QEMU does it: where it differs from vhost.

QEMU keeps a shadow of avail.idx, as vhost does, but refreshes it also whenever it turns kicks on or off. While kicks
are wanted, taking a buffer moves avail_event along; vhost leaves it where it was.

Source: QEMU 10.0 hw/virtio/virtio.c (virtio_queue_split_set_notification, virtqueue_split_pop,
virtqueue_split_get_avail_bytes, virtio_split_should_notify).
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Literal

from virtviz.ring.index import U16, pending
from virtviz.ring.split import DESC_BYTES
from virtviz.ring.split_device import INDIRECT_MAX, SplitDevice
from virtviz.spec.virtio import (
    VIRTQ_DESC,
    VIRTQ_DESC_F_INDIRECT,
    VIRTQ_DESC_F_NEXT,
    VIRTQ_DESC_F_WRITE,
    VIRTQ_USED_F_NO_NOTIFY,
)

if TYPE_CHECKING:
    from virtviz.engine.memory import Port

Look = Literal["known", "new", "empty", "avail.idx jumped"]
"""What a look at the available ring can find."""


class QemuDevice(SplitDevice):
    """Device side of one split virtqueue, QEMU's way.

    What the cell `used_flags` says is QEMU's `vq->notification`, turned round: NO_NOTIFY is set while kicks are off.
    """

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

    @property
    def wants_kicks(self) -> bool:
        """Whether kicks are on."""
        return not self.cells.used_flags & VIRTQ_USED_F_NO_NOTIFY

    def look(self) -> Look:
        """See whether a buffer is available; avail.idx is read only if the shadow of it is used up."""
        mine = self.cells
        if mine.avail_idx == mine.last_avail_idx:
            return self.read_avail_idx()
        # The shadow may have been refreshed without a check.
        return "known" if pending(mine.avail_idx, mine.last_avail_idx) <= self._size else "avail.idx jumped"

    def reread_avail_idx(self) -> int:
        """Read avail.idx, whatever is known of it."""
        self.cells.avail_idx = index = self._u16[self._avail_idx]
        return index

    def read_head(self) -> Literal["head", "head out of range"]:
        """Read the next head; while kicks are on, ask to be kicked for the entry after it."""
        answer = super().read_head()
        if answer == "head" and self.event_idx and self.wants_kicks:
            self._u16[self._avail_event] = (self.cells.last_avail_idx + 1) & U16
        return answer

    def has_room(self, wanted: int) -> Literal["room", "too little", "bad"]:
        """Add up the bytes of the available buffers, without taking any, until they are as many as wanted.

        Args:
            wanted: bytes that a packet needs, its header included.
        """
        mine = self.cells
        found, index = 0, mine.last_avail_idx
        while found < wanted:
            if index == mine.avail_idx:
                mine.avail_idx = self._u16[self._avail_idx]
            if pending(mine.avail_idx, mine.last_avail_idx) > self._size:
                return "bad"
            if index == mine.avail_idx:
                return "too little"
            room = self._writable_bytes(self._u16[self._avail_ring + (index & self._mask)])
            if room < 0:
                return "bad"
            found += room
            index = (index + 1) & U16
        return "room"

    def _writable_bytes(self, head: int) -> int:
        """Give the bytes of a buffer that the device may write; -1 if the chain makes no sense."""
        table, entries, at, total = self._desc, self._size, head, 0
        for _ in range(self._size):
            if at >= entries:
                return -1
            address, length, flags, following = self._read_desc(table + DESC_BYTES * at)
            if flags & VIRTQ_DESC_F_INDIRECT:
                if table != self._desc or length % DESC_BYTES or not self.memory.holds(address, length):
                    return -1
                table, entries, at = address, min(length // DESC_BYTES, INDIRECT_MAX), 0
                continue
            if flags & VIRTQ_DESC_F_WRITE:
                total += length
            if not flags & VIRTQ_DESC_F_NEXT:
                return total
            at = following
        return -1

    def disable_kicks(self) -> bool:
        """Stop asking for kicks; answers whether memory was written. With EVENT_IDX only the shadow is refreshed."""
        mine = self.cells
        mine.used_flags = VIRTQ_USED_F_NO_NOTIFY
        if self.event_idx:
            mine.avail_idx = self._u16[self._avail_idx]
            return False
        self._u16[self._used_flags] = mine.used_flags
        return True

    def enable_kicks(self) -> bool:
        """Ask for the next kick; the caller has to look once more then. With EVENT_IDX avail.idx is read first."""
        mine = self.cells
        mine.used_flags = 0
        if self.event_idx:
            mine.avail_idx = self._u16[self._avail_idx]
            self._u16[self._avail_event] = mine.avail_idx
        else:
            self._u16[self._used_flags] = 0
        return True
