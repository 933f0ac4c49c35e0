"""The driver's side of a packed virtqueue, one memory access at a time.

The driver writes a buffer's descriptors into consecutive slots, all but the flags of the first; storing those makes the
whole buffer available at once. Buffer ids come from a free list in private cells, so a hostile device cannot corrupt
it.

Source: virtio 1.4, 2.8; Linux drivers/virtio/virtio_ring.c (the functions whose names end in `_packed`).
"""

from __future__ import annotations

import struct
from copy import copy
from typing import TYPE_CHECKING, Final

from virtviz.engine.cells import Cells, cells
from virtviz.ring.driver import FREE, Driver
from virtviz.ring.index import U16, need_event
from virtviz.ring.packed import AVAILABLE, DESC_BYTES, OFFSET, is_used, position_of
from virtviz.spec.virtio import (
    RING_EVENT_FLAGS_DESC,
    RING_EVENT_FLAGS_DISABLE,
    RING_EVENT_FLAGS_ENABLE,
    VIRTQ_DESC_F_INDIRECT,
    VIRTQ_DESC_F_NEXT,
    VIRTQ_DESC_F_WRITE,
    VIRTQ_PACKED_DESC,
    VIRTQ_PACKED_EVENT,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.state import State
    from virtviz.ring.driver import Segment
    from virtviz.ring.packed import PackedLayout
    from virtviz.ring.verdicts import DriverMalformed

_ALL_BUT_FLAGS: Final = struct.Struct("<QIH")
"""addr, len, id."""
_LEN_AND_ID: Final = struct.Struct("<IH")


@cells
class PackedDriverCells(Cells):
    """What the driver keeps to itself.

    Attributes:
        free_head: first buffer id of the free list.
        num_free: descriptors that can still be added.
        next_avail: slot of the next descriptor to write.
        avail_wrap: the driver's wrap counter.
        num_added: descriptors made available since a kick was last considered.
        last_used: slot of the next used descriptor to look at.
        used_wrap: the wrap counter it is to be read with.
        event_flags_shadow: the driver's own copy of the flags of its event suppression structure.
        event_triggered: 1 from an interrupt until callbacks are enabled again; meanwhile disabling need not write.
        broken: 1 once the device has returned something impossible.
        head_slot: slot of the first descriptor of the buffer being added.
        head_flags: flags that will make it available.
        head: id of the buffer being added or just taken back.
        written: length the device reported for the buffer just taken back.
        token: what the driver had noted for it.
        seen: the id that was impossible.
        batch: with IN_ORDER, 1 + the id that ends a batch of which a part has been taken back; 0 for none.
        batch_written: length reported for that last buffer.
        oldest: with IN_ORDER, place in `order` of the buffer offered first.
        outstanding: with IN_ORDER, buffers in the device's hands.
        next: free list, id -> next id.
        chain: descriptors of each outstanding buffer.
        last: the last id of those that each outstanding buffer holds; a buffer holds as many ids as descriptors.
        room: bytes that the device may write into each outstanding buffer.
        tokens: what the driver noted for each outstanding buffer; 0 for none.
        order: with IN_ORDER, ids in the order in which they were offered.
    """

    free_head: int = 0
    num_free: int = 0
    next_avail: int = 0
    avail_wrap: int = 1
    num_added: int = 0
    last_used: int = 0
    used_wrap: int = 1
    event_flags_shadow: int = RING_EVENT_FLAGS_ENABLE
    event_triggered: int = 0
    broken: int = 0
    head_slot: int = 0
    head_flags: int = 0
    head: int = 0
    written: int = 0
    token: int = 0
    seen: int = 0
    batch: int = 0
    batch_written: int = 0
    oldest: int = 0
    outstanding: int = 0
    next: list[int]
    chain: list[int]
    last: list[int]
    room: list[int]
    tokens: list[int]
    order: list[int]


class PackedDriver(Driver):
    """Driver side of one packed virtqueue; it is a `DriverRing`.

    Args:
        state: where its cells are made.
        name: the queue's name, such as `vm1.transmitq1`.
        memory: guest memory.
        layout: where the queue lies.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated.
        start: descriptors that have gone through the ring already; see `position_of`.
    """

    cells: PackedDriverCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: PackedLayout,
        *,
        event_idx: bool,
        indirect: bool = False,
        in_order: bool = False,
        start: int = 0,
    ) -> None:
        super().__init__(name, memory, event_idx=event_idx, indirect=indirect)
        size = layout.size
        self.layout = layout
        self.in_order = in_order
        slot, wrap = position_of(start, size)
        self.cells = state.add(
            PackedDriverCells,
            name,
            num_free=size,
            next_avail=slot,
            avail_wrap=wrap,
            last_used=slot,
            used_wrap=wrap,
            next=[(i + 1) % size for i in range(size)],
            chain=[0] * size,
            last=[0] * size,
            room=[0] * size,
            tokens=[FREE] * size,
            order=[0] * size,
        )
        self._size = size
        self._ring = layout.ring
        self.reach_by(memory)
        # Where the 16-bit fields lie in `u16`.
        self._flags = (layout.ring + 14) // 2
        self._off_wrap, self._event_flags = layout.driver_event // 2, layout.driver_event // 2 + 1

    def reach_by(self, memory: Port) -> None:
        """Reach guest memory in another way from now on."""
        self.memory, self._u16 = memory, memory.u16
        self._write_desc = memory.writer(VIRTQ_PACKED_DESC)
        self._write_all_but_flags = memory.writer(_ALL_BUT_FLAGS)
        self._read_used = memory.reader(_LEN_AND_ID)
        self._read_event = memory.reader(VIRTQ_PACKED_EVENT)

    def through(self, memory: Port) -> PackedDriver:
        """Give the same driver's side as another CPU has it; see `SplitDriver.through`."""
        other = copy(self)
        other.reach_by(memory)
        return other

    # Offering buffers (2.8.21)

    def write_chain(self, segments: Sequence[Segment], writable: int, token: int) -> int:
        """Write a buffer's descriptors into the ring; answers its id. The device cannot see it yet.

        Args:
            segments: pieces of the buffer, those the device reads first.
            writable: how many of them, at the end, the device writes.
            token: what to give back when the buffer comes back, not 0.
        """
        mine = self.cells
        buffer_id, count = mine.free_head, len(segments)
        slot, wrap = mine.next_avail, mine.avail_wrap
        room = 0
        for i, (address, length) in enumerate(segments):
            flags = AVAILABLE[wrap] | (VIRTQ_DESC_F_NEXT if i < count - 1 else 0)
            if i >= count - writable:
                flags |= VIRTQ_DESC_F_WRITE
                room += length
            if i:
                self._write_desc(self._ring + DESC_BYTES * slot, address, length, buffer_id, flags)
            else:
                self._begin(slot, address, length, flags)
            slot += 1
            if slot == self._size:
                slot, wrap = 0, 1 - wrap
        self._take(count, slot, wrap, room, token)
        return buffer_id

    def write_single(self, address: int, length: int, flags: int, token: int) -> None:
        """Write the descriptor of a buffer of one piece; as `write_chain`, and quicker."""
        self._write_one(address, length, flags, token, length if flags & VIRTQ_DESC_F_WRITE else 0)

    def write_indirect(self, table: int, segments: Sequence[Segment], writable: int) -> None:
        """Write an indirect table at an address of the driver's own; its entries simply follow one another."""
        first_writable = len(segments) - writable
        for i, (address, length) in enumerate(segments):
            flags = VIRTQ_DESC_F_WRITE if i >= first_writable else 0
            self._write_desc(table + DESC_BYTES * i, address, length, 0, flags)

    def write_indirect_desc(self, table: int, entries: int, token: int, room: int = 0) -> int:
        """Write the one descriptor that refers to an indirect table; answers the buffer's id.

        Args:
            table: the table's address.
            entries: its length in descriptors.
            token: what to give back when the buffer comes back, not 0.
            room: bytes that the device may write into its pieces.
        """
        return self._write_one(table, DESC_BYTES * entries, VIRTQ_DESC_F_INDIRECT, token, room)

    def _write_one(self, address: int, length: int, flags: int, token: int, room: int) -> int:
        mine = self.cells
        buffer_id, slot, wrap = mine.free_head, mine.next_avail, mine.avail_wrap
        self._begin(slot, address, length, flags | AVAILABLE[wrap])
        slot += 1
        if slot == self._size:
            slot, wrap = 0, 1 - wrap
        self._take(1, slot, wrap, room, token)
        return buffer_id

    def _begin(self, slot: int, address: int, length: int, flags: int) -> None:
        """Write the first descriptor, all but the flags: the buffer must not be seen before all of it is there."""
        mine = self.cells
        mine.head_slot = slot
        mine.head_flags = flags
        self._write_all_but_flags(self._ring + DESC_BYTES * slot, address, length, mine.free_head)

    def _take(self, count: int, slot: int, wrap: int, room: int, token: int) -> None:
        mine = self.cells
        buffer_id = last = mine.free_head
        for _ in range(count - 1):
            last = mine.next[last]
        mine.free_head = mine.next[last]
        mine.num_free -= count
        mine.next_avail = slot
        if mine.avail_wrap != wrap:
            mine.avail_wrap = wrap
        mine.head = buffer_id
        if mine.chain[buffer_id] != count:
            mine.chain[buffer_id] = count
        if mine.last[buffer_id] != last:
            mine.last[buffer_id] = last
        if mine.room[buffer_id] != room:
            mine.room[buffer_id] = room
        mine.tokens[buffer_id] = token
        if self.in_order:
            mine.order[(mine.oldest + mine.outstanding) % self._size] = buffer_id
            mine.outstanding += 1

    def list_head(self) -> None:
        """Do nothing: a packed ring has no list of heads."""

    def publish(self) -> None:
        """Store the flags of the first descriptor: from here on the device may take the buffer."""
        mine = self.cells
        mine.num_added += mine.chain[mine.head]
        self._u16[self._flags + 8 * mine.head_slot] = mine.head_flags

    def kick_needed(self) -> bool:
        """Decide whether what was published since the last time has to be told (2.8.21.3.1)."""
        mine = self.cells
        new, added = mine.next_avail, mine.num_added
        if added:
            mine.num_added = 0
        off_wrap, flags = self._read_event(self.layout.device_event)
        if flags != RING_EVENT_FLAGS_DESC:
            return flags != RING_EVENT_FLAGS_DISABLE
        event = (off_wrap & OFFSET) - (self._size if off_wrap >> 15 != mine.avail_wrap else 0)
        return need_event(event & U16, new, (new - added) & U16)

    # Getting them back (2.8.22)

    def more_used(self) -> bool:
        """Read the flags of the next descriptor: say whether the device has returned something not yet looked at."""
        mine = self.cells
        return bool(mine.batch) or is_used(self._u16[self._flags + 8 * mine.last_used], mine.used_wrap)

    def too_many_used(self) -> bool:
        """As `more_used`: here Linux looks whether anything came back since the delayed interrupt was asked for."""
        return self.more_used()

    def take_used(self) -> bool:
        """Read one used descriptor and take its buffer back; with IN_ORDER, the next of the batch that it ends.

        Answers False, and marks the queue broken, if the id is not that of an outstanding buffer.
        """
        mine = self.cells
        written, buffer_id = mine.batch_written, mine.batch - 1
        if not mine.batch:
            written, buffer_id = self._read_used(self._ring + DESC_BYTES * mine.last_used + 8)
            if buffer_id >= self._size or mine.tokens[buffer_id] == FREE:
                mine.seen = buffer_id
                mine.broken = 1
                return False
        if self.in_order:
            written, buffer_id = self._first_of_batch(written, buffer_id)
        mine.token = mine.tokens[buffer_id]
        mine.head = buffer_id
        mine.written = written
        mine.tokens[buffer_id] = FREE
        mine.next[mine.last[buffer_id]] = mine.free_head
        mine.free_head = buffer_id
        count = mine.chain[buffer_id]
        mine.num_free += count
        slot = mine.last_used + count
        if slot >= self._size:
            slot -= self._size
            mine.used_wrap = 1 - mine.used_wrap
        mine.last_used = slot
        return True

    def broken_by(self) -> tuple[DriverMalformed, int]:
        """Say what was wrong with the id that broke the queue, and which it was. For people only."""
        seen = self.cells.seen
        return "used id out of range" if seen >= self._size else "used id not outstanding", seen

    def _first_of_batch(self, written: int, last_id: int) -> tuple[int, int]:
        """Give the oldest outstanding buffer, which is the first of a batch that a used descriptor ends (2.8.9).

        The buffers before the last have no used descriptor of their own, and count as used completely.
        """
        mine = self.cells
        buffer_id = mine.order[mine.oldest]
        mine.oldest = (mine.oldest + 1) % self._size
        mine.outstanding -= 1
        if buffer_id == last_id:
            mine.batch = 0
            return written, buffer_id
        mine.batch = last_id + 1
        mine.batch_written = written
        return mine.room[buffer_id], buffer_id

    def peek_used(self) -> list[tuple[int, int]]:
        """Give token and length of all buffers that have come back and were not yet taken. For people only."""
        mine, memory = self.cells, self.memory
        slot, wrap = mine.last_used, mine.used_wrap
        found: list[tuple[int, int]] = []
        while len(found) < self._size:
            desc = memory.read(self._ring + DESC_BYTES * slot, DESC_BYTES)
            _, written, buffer_id, flags = VIRTQ_PACKED_DESC.unpack(desc)
            if not is_used(flags, wrap) or buffer_id >= self._size or mine.tokens[buffer_id] == FREE:
                break
            found.append((mine.tokens[buffer_id], written))
            slot += mine.chain[buffer_id]
            if slot >= self._size:
                slot, wrap = slot - self._size, 1 - wrap
        return found

    def peek_token(self) -> int:
        """Give the token of the next used buffer without taking it; 0 if it is nonsense. For people only."""
        at = self._ring + DESC_BYTES * self.cells.last_used + 12
        buffer_id = int.from_bytes(self.memory.read(at, 2), "little")
        return self.cells.tokens[buffer_id] if buffer_id < self._size else FREE

    # Asking for interrupts, or not (2.8.10)

    def disable_callbacks(self) -> str:
        """Ask not to be interrupted; answers `flag` or `nothing`, by what was written."""
        mine = self.cells
        if mine.event_flags_shadow == RING_EVENT_FLAGS_DISABLE:
            return "nothing"
        mine.event_flags_shadow = RING_EVENT_FLAGS_DISABLE
        if mine.event_triggered:
            return "nothing"
        self._u16[self._event_flags] = RING_EVENT_FLAGS_DISABLE
        return "flag"

    def enable_callbacks(self) -> None:
        """Ask to be interrupted at the next used descriptor; the caller then has to look once more."""
        self.place_event()
        self.want_callbacks()

    def enable_callbacks_delayed(self) -> None:
        """Ask to be interrupted when three quarters of the descriptors that are outstanding have come back."""
        self.place_event_late()
        self.want_callbacks()

    def place_event(self) -> bool:
        """Say where an interrupt is wanted: at the next used descriptor. Without EVENT_IDX nothing is written."""
        mine = self.cells
        return self._place(mine.last_used, mine.used_wrap)

    def place_event_late(self) -> bool:
        """The same: where three quarters of the descriptors that are outstanding have come back."""
        return self._place(*self.late())

    def late(self) -> tuple[int, int]:
        """Give the slot at which three quarters of what is outstanding have come back, and its wrap counter."""
        mine = self.cells
        slot, wrap = mine.last_used + (self._size - mine.num_free) * 3 // 4, mine.used_wrap
        return (slot, wrap) if slot < self._size else (slot - self._size, 1 - wrap)

    def want_callbacks(self) -> bool:
        """Say that interrupts are wanted, if the flags said the contrary; answers whether they were written."""
        mine = self.cells
        if mine.event_flags_shadow != RING_EVENT_FLAGS_DISABLE:
            return False
        mine.event_flags_shadow = RING_EVENT_FLAGS_DESC if self.event_idx else RING_EVENT_FLAGS_ENABLE
        self._u16[self._event_flags] = mine.event_flags_shadow
        return True

    def move_used_event(self) -> bool:
        """While callbacks are on, ask again after each buffer taken back; answers whether that was written."""
        mine = self.cells
        if mine.event_flags_shadow != RING_EVENT_FLAGS_DESC:
            return False
        self._u16[self._off_wrap] = mine.last_used | mine.used_wrap << 15
        return True

    def _place(self, slot: int, wrap: int) -> bool:
        # The place first: the device must not see flags that refer to an older one.
        if self.cells.event_triggered:
            self.cells.event_triggered = 0
        if self.event_idx:
            self._u16[self._off_wrap] = slot | wrap << 15
        return self.event_idx

    def begin_awaiting(self) -> None:
        """Begin where a driver is that has polled for the first time, found nothing, and waits for what comes."""
        if self.event_idx:
            self.cells.event_flags_shadow = RING_EVENT_FLAGS_DESC
            self.place_event()
            self._u16[self._event_flags] = RING_EVENT_FLAGS_DESC

    def begin_silenced(self) -> None:
        """Begin where a driver is that no longer wants interrupts, once its very first has come.

        With EVENT_IDX Linux then writes nothing, for it counts on the device not to interrupt again; but the flags,
        never written, still say ENABLE, and so it does.
        """
        mine = self.cells
        mine.event_flags_shadow = RING_EVENT_FLAGS_DISABLE
        if self.event_idx:
            mine.event_triggered = 1
        else:
            self._u16[self._event_flags] = RING_EVENT_FLAGS_DISABLE
