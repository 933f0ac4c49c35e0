"""The device's side of a packed virtqueue as DPDK's vhost library has it.

It counts the buffers that are available by their flags, and returns what it has taken in two ways. Of a burst that it
sent, every used descriptor is written at once but the first, whose flags come last: until then the driver sees none.
What it filled is noted, and written for four slots at a time, a cache line.

A chain that it cannot follow is returned as far as it was followed, if it came from a transmit queue; the rest of it is
then taken for a buffer of its own. In a receive queue it stays where it is.

DPDK has a shorter way for four descriptors that share a cache line, need no chains, and are all available. It leaves
the same bytes behind, and is not taken here.

Source: DPDK lib/vhost/virtio_net.c (fill_vec_buf_packed, get_nb_avail_entries_packed,
vhost_shadow_dequeue_single_packed, vhost_flush_dequeue_shadow_packed, vhost_shadow_enqueue_single_packed,
vhost_flush_enqueue_shadow_packed), lib/vhost/vhost.h (vhost_vring_call_packed), lib/vhost/vhost.c
(vhost_enable_notify_packed).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from virtviz.engine.cells import cells
from virtviz.ring.dpdk_device import PIECES_MAX
from virtviz.ring.index import U16
from virtviz.ring.packed import DESC_BYTES, TURN, USED, is_available
from virtviz.ring.packed_device import PackedDevice, PackedDeviceCells
from virtviz.ring.verdicts import NAMES
from virtviz.spec.virtio import (
    RING_EVENT_FLAGS_DESC,
    RING_EVENT_FLAGS_DISABLE,
    VIRTQ_DESC_F_INDIRECT,
    VIRTQ_DESC_F_NEXT,
    VIRTQ_DESC_F_WRITE,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port, Region, Words
    from virtviz.engine.state import State
    from virtviz.ring.packed import PackedLayout
    from virtviz.ring.verdicts import Malformed

LINE: Final = 4
"""Descriptors in a cache line of 64 bytes (PACKED_BATCH_SIZE)."""


@cells
class DpdkPackedCells(PackedDeviceCells):
    """What the library keeps besides.

    Attributes:
        goes_on: 1 if the descriptor that refers to the table being read says NEXT.
        hidden_id: id of the used descriptor whose flags come last.
    """

    goes_on: int = 0
    hidden_id: int = 0


class DpdkPackedDevice(PackedDevice):
    """Device side of one packed virtqueue, as DPDK's vhost library has it; it is a `DpdkRing`.

    Args:
        region: the guest memory itself, which a poll looks at; `memory` is how the polling thread's CPU reaches it.
    """

    _cells = DpdkPackedCells
    cells: DpdkPackedCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: PackedLayout,
        *,
        region: Region,
        event_idx: bool,
        indirect: bool,
        start: int = 0,
    ) -> None:
        super().__init__(
            state, name, memory, layout, back_end="dpdk", event_idx=event_idx, indirect=indirect, start=start
        )
        self.region = region

    # Looking

    def has_something(self) -> bool:
        """Say whether a poll would find a buffer; nothing is journaled."""
        return bool(self._count(self.region.plain_u16, 1))

    def available(self, most: int) -> int:
        """Count the buffers that are available, by the flags of their descriptors."""
        return self._count(self._u16, most)

    def _count(self, words: Words, most: int) -> int:
        mine, count = self.cells, 0
        slot, wrap = mine.next_avail, mine.avail_wrap
        while count < most:
            flags = words[self._flags + DESC_BYTES // 2 * slot]
            if not is_available(flags, wrap):
                break
            count += not flags & VIRTQ_DESC_F_NEXT
            slot, wrap = (slot + 1, wrap) if slot + 1 < self._size else (0, 1 - wrap)
        return count

    def peek_next_address(self) -> int:
        """Give the address in the next descriptor to be taken. For people only."""
        return int.from_bytes(self.memory.read(self.layout.desc(self.cells.next_avail), 8), "little")

    # Taking buffers

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read one descriptor of the buffer, or one entry of its table, and note the piece; see `PackedDevice`."""
        mine = self.cells
        if mine.entries:
            return self._read_entry()
        if mine.found >= self._size:
            return "descriptor loop"
        address, length, mine.head, flags = self._read_desc(self._ring + DESC_BYTES * mine.slot)
        self._pass_slot()
        if flags & VIRTQ_DESC_F_INDIRECT:
            return self._begin_table(address, length, flags)
        return self._note_piece(address, length, flags) or self._go_on(flags)

    def _begin_table(self, address: int, length: int, flags: int) -> Literal["last", "next", "indirect"] | Malformed:
        mine, entries = self.cells, length // DESC_BYTES
        if not self.memory.holds(address, length):
            return "table outside memory"
        if entries >= self._size:
            return "longer than the queue"
        if length % DESC_BYTES or not entries:
            self._let_pass("indirect length")
        if not self.indirect:
            self._let_pass("indirect not negotiated")
        if not entries:
            return self._go_on(flags)
        mine.table, mine.entries, mine.entry = address, entries, 0
        mine.goes_on = int(bool(flags & VIRTQ_DESC_F_NEXT))
        return "indirect"

    def _read_entry(self) -> Literal["last", "next"] | Malformed:
        mine = self.cells
        address, length, _, flags = self._read_desc(mine.table + DESC_BYTES * mine.entry)
        problem = self._note_piece(address, length, flags)
        if problem:
            return problem
        mine.entry += 1
        if mine.entry < mine.entries:
            return "next"
        mine.entries = 0
        return self._go_on(mine.goes_on * VIRTQ_DESC_F_NEXT)

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
        mine.address[count], mine.length[count] = address, length
        if flags & VIRTQ_DESC_F_WRITE:
            mine.writable += 1
        else:
            mine.readable += 1
        return None

    def _go_on(self, flags: int) -> Literal["last", "next"]:
        if flags & VIRTQ_DESC_F_NEXT:
            return "next"
        self._finish(self.cells.head)
        return "last"

    def _let_pass(self, problem: Malformed) -> None:
        self.cells.overlooked = NAMES.index(problem) + 1

    def give_up(self) -> None:
        """Take a chain that could not be followed as far as it was: up to the descriptor that leads nowhere."""
        self.cells.entries = 0
        self._finish(self.cells.head)

    # Returning them

    def return_sent(self) -> bool:
        """Return the buffer just taken, unseen; answers False if nothing was written, because it is a burst's first.

        Only the bits that say whose turn it is change in the flags.
        """
        mine, words = self.cells, self._u16
        slot, handle = mine.next_used, mine.head
        at = self._flags + DESC_BYTES // 2 * slot
        flags = words[at] & ~TURN | USED[mine.used_wrap]
        first = not mine.hidden
        if first:
            mine.hidden, mine.hidden_slot, mine.hidden_flags, mine.hidden_id = 1, slot, flags, handle & U16
        else:
            words[at - 1] = handle & U16
            self._write_len(self._ring + DESC_BYTES * slot + 8, 0)
            words[at] = flags
        self._pass_used(handle >> 16)
        return not first

    def write_first_id(self) -> None:
        """Write the id of the burst's first buffer; its length stays as the driver wrote it."""
        mine = self.cells
        self._u16[self._flags - 1 + DESC_BYTES // 2 * mine.hidden_slot] = mine.hidden_id

    def line_full(self, heads: Sequence[int]) -> bool:
        """Say whether buffers that are noted to be returned, with what lies before them, fill a cache line."""
        return self.cells.next_used % LINE + sum(handle >> 16 for handle in heads) >= LINE

    def interrupt_wanted(self) -> bool:
        """Decide whether what was published has to be told; without event indices every wish but never counts."""
        if self.event_idx:
            return super().interrupt_wanted()
        return self._read_event(self.layout.driver_event)[1] != RING_EVENT_FLAGS_DISABLE

    def calls_unasked(self) -> bool:
        """Say whether the next call comes whatever place the guest wishes it at; see `DpdkRing`."""
        first = self.event_idx and not self.cells.signalled_used_valid
        return first and self._u16[self.layout.driver_event // 2 + 1] == RING_EVENT_FLAGS_DESC

    # Kicks

    def never_ask_for_kicks(self) -> None:
        """Leave memory as it is once the device is new and polled (vhost_enable_notify_packed, enable = 0)."""
        self.region.plain_u16[self._event_flags] = RING_EVENT_FLAGS_DISABLE
        self.cells.kicks_off = 1

    def stop_asking(self, memory: Port) -> bool:
        """Say for good that no kick is wanted, by way of another thread; see `DpdkRing`."""
        self.cells.kicks_off = 1
        memory.u16[self._event_flags] = RING_EVENT_FLAGS_DISABLE
        return True

    def base(self) -> int:
        """Give the next slot to take, and from bit 16 the next to return, each with its wrap counter above it."""
        mine = self.cells
        return mine.next_avail | mine.avail_wrap << 15 | (mine.next_used | mine.used_wrap << 15) << 16
