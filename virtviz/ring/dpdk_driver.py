"""The driver's side of a split virtqueue as DPDK's virtio driver has it.

It differs from Linux where it polls: interrupts are switched off once and for all, avail.idx is published once for a
whole burst, a slot of the available ring that says the right head already is not written again, and event indices are
not negotiated, so that used.flags alone says whether a kick is wanted.

Source: DPDK drivers/net/virtio/virtqueue.h (vq_update_avail_ring, vq_update_avail_idx, virtqueue_kick_prepare,
virtqueue_nused, virtqueue_disable_intr_split).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.ring.index import U16, pending
from virtviz.ring.split_driver import SplitDriver
from virtviz.spec.virtio import VIRTQ_AVAIL_F_NO_INTERRUPT, VIRTQ_USED_F_NO_NOTIFY

if TYPE_CHECKING:
    from virtviz.engine.memory import Region


class PollingDriver(SplitDriver):
    """Driver side of one split virtqueue that is polled."""

    def begin_polling(self, region: Region) -> None:
        """Switch interrupts off for good, as at the queue's set-up; `region` is guest memory itself."""
        self.cells.avail_flags_shadow = VIRTQ_AVAIL_F_NO_INTERRUPT
        region.plain_u16[self._avail_flags] = VIRTQ_AVAIL_F_NO_INTERRUPT

    def enter_head(self) -> bool:
        """Put the head into the next slot of the available ring, unseen; answers whether it had to be written."""
        mine = self.cells
        slot = self._avail_ring + (mine.avail_idx_shadow & self._mask)
        mine.avail_idx_shadow = (mine.avail_idx_shadow + 1) & U16
        if self._u16[slot] == mine.head:
            return False
        self._u16[slot] = mine.head
        return True

    def publish_all(self) -> None:
        """Make everything available that has been entered since the last time."""
        self._u16[self._avail_idx] = self.cells.avail_idx_shadow

    def kick_needed(self) -> bool:
        """Decide whether what was published has to be told."""
        return not self._u16[self._used_flags] & VIRTQ_USED_F_NO_NOTIFY

    def used_count(self) -> int:
        """Read used.idx; answers how many buffers have come back that were not looked at."""
        return pending(self._u16[self._used_idx], self.cells.last_used_idx)

    def finds_used(self, region: Region) -> bool:
        """Say whether a poll would find a buffer that has come back; nothing is journaled."""
        mine = self.cells
        return not mine.broken and region.plain_u16[self._used_idx] != mine.last_used_idx
