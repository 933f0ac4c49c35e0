"""The driver's side of a split virtqueue, one memory access at a time.

The order in which these are called is the caller's; what each does, and which private copies the driver keeps, follows
Linux. The free list is kept in private cells and never read back from the descriptor table, so that a hostile device
cannot corrupt it.

Source: virtio 1.4, 2.7.13 and 2.7.14; Linux drivers/virtio/virtio_ring.c.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from virtviz.engine.cells import Cells, cells
from virtviz.ring.driver import FREE, Driver
from virtviz.ring.index import U16, need_event
from virtviz.ring.split import DESC_BYTES, USED_ELEM_BYTES
from virtviz.spec.virtio import (
    VIRTQ_AVAIL_F_NO_INTERRUPT,
    VIRTQ_DESC,
    VIRTQ_DESC_F_INDIRECT,
    VIRTQ_DESC_F_NEXT,
    VIRTQ_DESC_F_WRITE,
    VIRTQ_USED_ELEM,
    VIRTQ_USED_F_NO_NOTIFY,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.state import State
    from virtviz.ring.driver import Segment
    from virtviz.ring.split import SplitLayout
    from virtviz.ring.verdicts import DriverMalformed


@cells
class DriverCells(Cells):
    """What the driver keeps to itself.

    Attributes:
        free_head: first descriptor of the free list.
        num_free: its length.
        avail_idx_shadow: the driver's own copy of avail.idx.
        num_added: entries published since a kick was last considered.
        last_used_idx: the next used entry to look at.
        avail_flags_shadow: the driver's own copy of avail.flags; with EVENT_IDX it says whether callbacks are wanted.
        event_triggered: 1 from an interrupt until callbacks are enabled again; meanwhile disabling need not write.
        broken: 1 once the device has returned something impossible.
        head: the head being added or just taken back.
        written: length the device reported for the buffer just taken back.
        token: what the driver had noted for it.
        next: free list, descriptor -> next descriptor.
        chain: descriptors that each outstanding head uses.
        tokens: what the driver noted for each outstanding head; 0 for none.
    """

    free_head: int = 0
    num_free: int = 0
    avail_idx_shadow: int = 0
    num_added: int = 0
    last_used_idx: int = 0
    avail_flags_shadow: int = 0
    event_triggered: int = 0
    broken: int = 0
    head: int = 0
    written: int = 0
    token: int = 0
    next: list[int]
    chain: list[int]
    tokens: list[int]


class SplitDriver(Driver):
    """Driver side of one split virtqueue; it is a `DriverRing`.

    Args:
        state: where its cells are made.
        name: the queue's name, such as `vm1.transmitq1`.
        memory: guest memory.
        layout: where the queue lies.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated.
        start: the index to begin at, u16.
    """

    cells: DriverCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: SplitLayout,
        *,
        event_idx: bool,
        indirect: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__(name, memory, event_idx=event_idx, indirect=indirect)
        size = layout.size
        self.layout = layout
        self.cells = state.add(
            DriverCells,
            name,
            num_free=size,
            avail_idx_shadow=start,
            last_used_idx=start,
            next=[(i + 1) % size for i in range(size)],
            chain=[0] * size,
            tokens=[FREE] * size,
        )
        self._mask = size - 1
        self._desc, self._used_ring = layout.desc, layout.used_ring(0)
        self.reach_by(memory)
        # Where the 16-bit fields lie in `u16`.
        self._avail_ring = layout.avail_ring(0) // 2
        self._avail_idx, self._used_idx = layout.avail_idx // 2, layout.used_idx // 2
        self._used_event, self._avail_event = layout.used_event // 2, layout.avail_event // 2
        self._avail_flags, self._used_flags = layout.avail_flags // 2, layout.used_flags // 2

    def reach_by(self, memory: Port) -> None:
        """Reach guest memory in another way from now on."""
        self.memory, self._u16 = memory, memory.u16
        self._write_desc, self._read_used = memory.writer(VIRTQ_DESC), memory.reader(VIRTQ_USED_ELEM)

    def through(self, memory: Port) -> SplitDriver:
        """Give the same driver's side as another CPU has it: what it keeps is one, the way to memory another.

        Args:
            memory: guest memory, as that CPU reaches it.
        """
        other = copy(self)
        other.reach_by(memory)
        return other

    # Offering buffers (2.7.13)

    def write_chain(self, segments: Sequence[Segment], writable: int, token: int) -> int:
        """Write a chain of descriptors into the table; answers its head. The device cannot see it yet.

        Args:
            segments: pieces of the buffer, those the device reads first.
            writable: how many of them, at the end, the device writes.
            token: what to give back when the buffer comes back, not 0.
        """
        mine = self.cells
        head = index = mine.free_head
        last = len(segments) - 1
        first_writable = len(segments) - writable
        for i, (address, length) in enumerate(segments):
            flags = VIRTQ_DESC_F_WRITE if i >= first_writable else 0
            following = mine.next[index]
            if i < last:
                flags |= VIRTQ_DESC_F_NEXT
            self.write_desc(index, address, length, flags, following)
            index = following
        self._take(head, index, last + 1, token)
        return head

    def write_single(self, address: int, length: int, flags: int, token: int) -> None:
        """Write the descriptor of a buffer of one piece; as `write_chain`, and quicker."""
        mine = self.cells
        head = mine.free_head
        following = mine.next[head]
        self._write_desc(self._desc + DESC_BYTES * head, address, length, flags, following)
        mine.num_free -= 1
        mine.free_head = following
        mine.tokens[head] = token
        mine.head = head
        if mine.chain[head] != 1:
            mine.chain[head] = 1

    def write_indirect(self, table: int, segments: Sequence[Segment], writable: int) -> None:
        """Write an indirect table of chained descriptors at an address of the driver's own."""
        last = len(segments) - 1
        first_writable = len(segments) - writable
        for i, (address, length) in enumerate(segments):
            flags = VIRTQ_DESC_F_WRITE if i >= first_writable else 0
            flags |= VIRTQ_DESC_F_NEXT if i < last else 0
            self._write_desc(table + DESC_BYTES * i, address, length, flags, i + 1)

    def write_indirect_desc(self, table: int, entries: int, token: int) -> int:
        """Write the one descriptor that refers to an indirect table; answers the head."""
        head = self.cells.free_head
        following = self.cells.next[head]
        self.write_desc(head, table, DESC_BYTES * entries, VIRTQ_DESC_F_INDIRECT, following)
        self._take(head, following, 1, token)
        return head

    def write_desc(self, index: int, address: int, length: int, flags: int, following: int) -> None:
        """Write one descriptor. `next` means something only with NEXT, but Linux fills it in always."""
        self._write_desc(self._desc + DESC_BYTES * index, address, length, flags, following)

    def _take(self, head: int, free_head: int, count: int, token: int) -> None:
        mine = self.cells
        mine.num_free -= count
        mine.free_head = free_head
        if mine.chain[head] != count:
            mine.chain[head] = count
        mine.tokens[head] = token
        mine.head = head

    def write_avail_ring(self) -> None:
        """Write the head into the available ring; still invisible."""
        mine = self.cells
        self._u16[self._avail_ring + (mine.avail_idx_shadow & self._mask)] = mine.head

    def publish_avail_idx(self) -> None:
        """Move avail.idx on: from here on the device may take the buffer."""
        mine = self.cells
        shadow = (mine.avail_idx_shadow + 1) & U16
        mine.avail_idx_shadow = shadow
        mine.num_added += 1
        self._u16[self._avail_idx] = shadow

    list_head = write_avail_ring
    publish = publish_avail_idx

    def kick_needed(self) -> bool:
        """Decide whether what was published since the last time has to be told (2.7.13.4, 2.7.10)."""
        mine = self.cells
        new = mine.avail_idx_shadow
        old = (new - mine.num_added) & U16
        if mine.num_added:
            mine.num_added = 0
        if self.event_idx:
            return need_event(self._u16[self._avail_event], new, old)
        return not self._u16[self._used_flags] & VIRTQ_USED_F_NO_NOTIFY

    # Getting them back (2.7.14)

    def more_used(self) -> bool:
        """Read used.idx: say whether the device has returned something not yet looked at."""
        return self._u16[self._used_idx] != self.cells.last_used_idx

    def too_many_used(self) -> bool:
        """Read used.idx: say whether more came back than a delayed interrupt was asked for; never of a broken queue."""
        mine = self.cells
        if mine.broken:
            return False
        last_used = mine.last_used_idx
        came_back = self._u16[self._used_idx] - last_used & U16
        return came_back > (mine.avail_idx_shadow - last_used & U16) * 3 // 4

    def take_used(self) -> bool:
        """Read one used element and take its descriptors back.

        Answers False, and marks the queue broken, if the id is no head of an outstanding buffer.
        """
        mine = self.cells
        used = mine.last_used_idx
        tokens, following = mine.tokens, mine.next
        element = self._used_ring + USED_ELEM_BYTES * (used & self._mask)
        head, written = self._read_used(element)
        if head > self._mask or tokens[head] == FREE:
            mine.broken = 1
            return False
        mine.token = tokens[head]
        mine.head = head
        mine.written = written
        tokens[head] = FREE
        count = mine.chain[head]
        last = head
        if count > 1:
            for _ in range(count - 1):
                last = following[last]
        following[last] = mine.free_head
        mine.free_head = head
        mine.num_free += count
        mine.last_used_idx = (used + 1) & U16
        return True

    def peek_token(self) -> int:
        """Give the token of the next used element without taking it; 0 if it is nonsense. For people only."""
        element = self.layout.used_ring(self.cells.last_used_idx & self._mask)
        head = int.from_bytes(self.memory.read(element, 4), "little")
        return self.cells.tokens[head] if head <= self._mask else FREE

    def peek_used(self) -> list[tuple[int, int]]:
        """Give token and length of all buffers that have come back and were not yet taken. For people only."""
        mine, layout, memory = self.cells, self.layout, self.memory
        used, found = int.from_bytes(memory.read(layout.used_idx, 2), "little"), []
        for ahead in range(min(used - mine.last_used_idx & U16, layout.size)):
            element = memory.read(layout.used_ring(mine.last_used_idx + ahead & self._mask), USED_ELEM_BYTES)
            head, written = VIRTQ_USED_ELEM.unpack(element)
            found.append((mine.tokens[head] if head <= self._mask else FREE, written))
        return found

    def broken_by(self) -> tuple[DriverMalformed, int]:
        """Say what is wrong with the next used element's id, and which it is. For people only."""
        element = self.layout.used_ring(self.cells.last_used_idx & self._mask)
        seen = int.from_bytes(self.memory.read(element, 4), "little")
        return "used id out of range" if seen > self._mask else "used id not outstanding", seen

    # Asking for interrupts, or not (2.7.7)

    def disable_callbacks(self) -> str:
        """Ask not to be interrupted; answers `event`, `flag` or `nothing`, by what was written.

        With EVENT_IDX Linux has no way to say never: it points used_event at 0, far behind or far ahead. It writes
        nothing if callbacks were off already, or if an interrupt has come since they were enabled, for then the device
        will not send another.
        """
        mine = self.cells
        if mine.avail_flags_shadow & VIRTQ_AVAIL_F_NO_INTERRUPT:
            return "nothing"
        mine.avail_flags_shadow |= VIRTQ_AVAIL_F_NO_INTERRUPT
        if mine.event_triggered:
            return "nothing"
        if self.event_idx:
            self._u16[self._used_event] = 0
            return "event"
        self._u16[self._avail_flags] = mine.avail_flags_shadow
        return "flag"

    def enable_callbacks(self) -> None:
        """Ask to be interrupted at the next used entry; the caller then has to look once more."""
        self._wanted()
        self._u16[self._used_event] = self.cells.last_used_idx

    def enable_callbacks_delayed(self) -> None:
        """Ask to be interrupted when three quarters of what is outstanding have come back."""
        self._wanted()
        mine = self.cells
        last_used = mine.last_used_idx
        delayed = (mine.avail_idx_shadow - last_used & U16) * 3 // 4
        self._u16[self._used_event] = last_used + delayed & U16

    def move_used_event(self) -> bool:
        """While callbacks are on, ask again after each buffer taken back; answers whether that was written."""
        if self.cells.avail_flags_shadow & VIRTQ_AVAIL_F_NO_INTERRUPT:
            return False
        self._u16[self._used_event] = self.cells.last_used_idx
        return True

    def _wanted(self) -> None:
        mine = self.cells
        if mine.event_triggered:
            mine.event_triggered = 0
        if mine.avail_flags_shadow & VIRTQ_AVAIL_F_NO_INTERRUPT:
            mine.avail_flags_shadow &= ~VIRTQ_AVAIL_F_NO_INTERRUPT & U16
            if not self.event_idx:
                self._u16[self._avail_flags] = mine.avail_flags_shadow

    def begin_awaiting(self) -> None:
        """Do nothing: used_event, or the flags, are as they are where a driver waits; see `SplitLayout.begin_at`."""

    def begin_silenced(self) -> None:
        """Begin where a driver is that no longer wants interrupts, once its very first has come."""
        self.cells.avail_flags_shadow = self.cells.event_triggered = 1
        if not self.event_idx:
            self._u16[self._avail_flags] = VIRTQ_AVAIL_F_NO_INTERRUPT
