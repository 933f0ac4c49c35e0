"""The device's side of a split virtqueue as DPDK's vhost library has it.

It goes through a ring in bursts: it reads avail.idx once, follows as many chains as it wants, and publishes all used
elements with one addition to used.idx. It checks where a chain leads, so that it never reads or writes outside guest
memory, and nothing else: not the order of the pieces, not who may write them, not how far avail.idx has moved.

Source: DPDK lib/vhost/virtio_net.c (fill_vec_buf_split, flush_shadow_used_ring_split), lib/vhost/vhost.h
(vhost_vring_call_split).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from zlib import crc32

from virtviz.engine.cells import cells
from virtviz.ring.index import U16, pending
from virtviz.ring.split import DESC_BYTES
from virtviz.ring.split_device import DeviceCells, SplitDevice
from virtviz.spec.virtio import VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, VIRTQ_USED_F_NO_NOTIFY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port, Region
    from virtviz.engine.state import State
    from virtviz.ring.split import SplitLayout
    from virtviz.ring.verdicts import Malformed

PIECES_MAX = 256
"""Pieces of guest memory that one packet may lie in (BUF_VECTOR_MAX)."""


@cells
class DpdkCells(DeviceCells):
    """What the library keeps besides.

    Attributes:
        flushed: used elements written and not yet published.
        stuck: what the driver's part of the ring looked like when a chain could not be followed; 0 if none was.
    """

    flushed: int = 0
    stuck: int = 0


class DpdkDevice(SplitDevice):
    """Device side of one split virtqueue, as DPDK's vhost library has it; it is a `DpdkRing`.

    Args:
        region: the guest memory itself, which a poll looks at; `memory` is how the polling thread's CPU reaches it.
    """

    _cells = DpdkCells
    cells: DpdkCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: SplitLayout,
        *,
        region: Region,
        event_idx: bool,
        indirect: bool,
        start: int = 0,
    ) -> None:
        super().__init__(state, name, memory, layout, event_idx=event_idx, indirect=indirect, start=start)
        self.region = region

    # Looking

    def has_something(self) -> bool:
        """Say whether a poll would find an entry that was not found impossible before; nothing is journaled."""
        mine = self.cells
        if self.region.plain_u16[self._avail_idx] == mine.last_avail_idx:
            return False
        return not mine.stuck or mine.stuck != self._driver_part()

    def _driver_part(self) -> int:
        """Give a fingerprint of what the driver writes of the ring; never 0."""
        return 1 + crc32(memoryview(self.region.bytes)[self._desc : self.layout.used_event])

    def available(self, most: int) -> int:
        """Read avail.idx; answers how many entries it says there are."""
        mine = self.cells
        if mine.stuck:
            mine.stuck = 0
        mine.avail_idx = index = self._u16[self._avail_idx]
        # A real ring is longer than a burst; here it can be shorter, and then avail.idx may lie.
        return min(pending(index, mine.last_avail_idx), most, self._size)

    def give_up(self) -> None:
        """Note that the next entry leads nowhere: polling it again is useless until the driver changes something."""
        self.cells.stuck = self._driver_part()

    def peek_next_address(self) -> int:
        """Give the address in the next available head's descriptor, -1 if that is nonsense. For people only."""
        slot = self.cells.last_avail_idx & self._mask
        head = int.from_bytes(self.region.read(self.layout.avail_ring(slot), 2), "little")
        if head > self._mask:
            return -1
        return int.from_bytes(self.region.read(self.layout.desc + DESC_BYTES * head, 8), "little")

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read one descriptor of the chain and note the piece it describes; see `SplitDevice.read_desc`."""
        mine = self.cells
        found, table = mine.found, mine.table
        if not found and not table:
            self._set_counts(0, 0)
            mine.index = mine.head
        limit = mine.entries if table else self._size
        if found >= limit:
            return "descriptor loop" if limit else "indirect length"
        if mine.index >= limit:
            return "next out of range"
        address, length, flags, following = self._read_desc((table or self._desc) + DESC_BYTES * mine.index)
        if flags & VIRTQ_DESC_F_INDIRECT:
            if not found and not table:
                return self._begin_table(address, length, flags)
            self._let_pass("indirect inside indirect" if table else "indirect later in a chain")
        problem = self._note_piece(address, length, flags)
        if problem:
            return problem
        if flags & VIRTQ_DESC_F_NEXT:
            mine.found, mine.index = found + 1, following
            return "next"
        mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
        return "last"

    def _begin_table(self, address: int, length: int, flags: int) -> Literal["indirect"] | Malformed:
        mine = self.cells
        entries = length // DESC_BYTES
        if entries > self._size:
            return "longer than the queue"
        if not self.memory.holds(address, length):
            return "table outside memory"
        if not entries:
            return "indirect length"
        if length % DESC_BYTES:
            self._let_pass("indirect length")
        if not self.indirect:
            self._let_pass("indirect not negotiated")
        if flags & VIRTQ_DESC_F_NEXT:
            self._let_pass("indirect and next")
        mine.table, mine.entries, mine.index = address, entries, 0
        return "indirect"

    def _note_piece(self, address: int, length: int, flags: int) -> Malformed | None:
        mine = self.cells
        count = mine.readable + mine.writable
        if not length:
            self._let_pass("zero length")
            return None
        if count >= PIECES_MAX:
            return "too many pieces"
        if not self.memory.holds(address, length):
            return "address outside memory"
        if mine.address[count] != address:
            mine.address[count] = address
        if mine.length[count] != length:
            mine.length[count] = length
        if flags & VIRTQ_DESC_F_WRITE:
            mine.writable += 1
        else:
            mine.readable += 1
        return None

    # Returning buffers

    def write_used(self, heads: Sequence[int], written: Sequence[int]) -> None:
        """Write used elements; see `SplitDevice.write_used`."""
        super().write_used(heads, written)
        self.cells.flushed = len(heads)

    def publish_used_idx(self) -> None:
        """Add what was written to used.idx, whatever stands there."""
        words = self._u16
        words[self._used_idx] = (words[self._used_idx] + self.cells.flushed) & U16

    publish = publish_used_idx

    def calls_unasked(self) -> bool:
        """Say whether the next call comes whatever the guest wishes; see `DpdkRing`."""
        return self.event_idx and not self.cells.signalled_used_valid

    # Kicks

    def never_ask_for_kicks(self) -> None:
        """Leave memory as it is once the device is new and polled (vhost_enable_notify_split, enable = 0).

        With EVENT_IDX nothing is written: avail_event keeps the 0 with which the driver made the ring.
        """
        words = self.region.plain_u16
        words[self._avail_event] = 0
        if not self.event_idx:
            words[self._used_flags] = VIRTQ_USED_F_NO_NOTIFY
        self.cells.used_flags = VIRTQ_USED_F_NO_NOTIFY

    def stop_asking(self, memory: Port) -> bool:
        """Say for good that no kick is wanted, by way of another thread; see `DpdkRing`."""
        self.cells.used_flags = VIRTQ_USED_F_NO_NOTIFY
        if not self.event_idx:
            memory.u16[self._used_flags] = VIRTQ_USED_F_NO_NOTIFY
        return not self.event_idx

    def base(self) -> int:
        """Give the index of the next entry to be taken."""
        return self.cells.last_avail_idx
