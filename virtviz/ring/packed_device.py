"""The device's side of a packed virtqueue, one memory access at a time.

The device reads descriptors where it stands, and writes one used descriptor a buffer where it stands with those: at the
slot of the first descriptor of the buffer it returns, if it returns them in order. What else the ring holds between the
two stays as the driver wrote it.

A buffer is named by a number that holds its id and how many slots it takes, for the device has to pass over as many
when it returns the buffer: `handle = slots << 16 | id`.

Source: virtio 1.4, 2.8; QEMU hw/virtio/virtio.c (virtqueue_packed_pop, virtqueue_packed_flush,
virtio_packed_should_notify). In-kernel vhost has no packed rings; `vhost` here means a back-end that stops where QEMU
wants a reset, as in-kernel vhost does with split rings.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal

from virtviz.engine.cells import Cells, cells
from virtviz.ring.index import U16, need_event
from virtviz.ring.packed import DESC_BYTES, OFFSET, USED, is_available, position_of
from virtviz.ring.pieces import Pieces
from virtviz.ring.split_device import IOV_MAX
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
    from virtviz.ring.packed import PackedLayout
    from virtviz.ring.verdicts import BackEnd, Malformed

_LEN: Final = struct.Struct("<I")


@cells
class PackedDeviceCells(Cells):
    """What the device keeps to itself.

    Attributes:
        next_avail: slot of the next descriptor to take.
        avail_wrap: the wrap counter it is to be read with.
        next_used: slot of the next used descriptor to write.
        used_wrap: the device's wrap counter.
        signalled_used: next_used when an interrupt was last considered.
        signalled_used_valid: 0 until the first time.
        filled, filled_wrap: as far as the ring was seen to be filled: where the next kick is wanted.
        kicks_off: 1 while the device asks not to be kicked.
        hidden: 1 while used descriptors are written whose first is not yet marked as used.
        hidden_slot: slot of that first one.
        hidden_flags: flags that will mark it.
        in_flight: descriptors taken and not yet returned.
        head: the buffer being read: id, and above it, from bit 16, its slots.
        slot, wrap: the descriptor to read next, and the wrap counter that it is to be read with.
        found: descriptors of the ring that this buffer has gone past.
        table: address of the indirect table being read.
        entries: its length in descriptors, 0 for none.
        entry: the table entry to read next.
        readable, writable, lent, seen, expected, overlooked, address, length: see `PieceCells`.
    """

    next_avail: int = 0
    avail_wrap: int = 1
    next_used: int = 0
    used_wrap: int = 1
    signalled_used: int = 0
    signalled_used_valid: int = 0
    filled: int = 0
    filled_wrap: int = 1
    kicks_off: int = 0
    hidden: int = 0
    hidden_slot: int = 0
    hidden_flags: int = 0
    in_flight: int = 0
    head: int = 0
    slot: int = 0
    wrap: int = 1
    found: int = 0
    table: int = 0
    entries: int = 0
    entry: int = 0
    readable: int = 0
    writable: int = 0
    lent: int = 0
    seen: int = 0
    expected: int = 0
    overlooked: int = 0
    address: list[int]
    length: list[int]


class PackedDevice:
    """Device side of one packed virtqueue; it is a `DeviceRing`, and one that can say beforehand how much room waits.

    Args:
        state: where its cells are made.
        name: such as `qemu-4002.transmitq1`.
        memory: guest memory.
        layout: where the queue lies.
        back_end: whose checks it makes.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated.
        in_order: VIRTIO_F_IN_ORDER was negotiated; then a batch of buffers that were only read comes back as one.
        start: descriptors that have gone through the ring already; see `position_of`.
    """

    _cells: type[PackedDeviceCells] = PackedDeviceCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: PackedLayout,
        *,
        back_end: BackEnd,
        event_idx: bool,
        indirect: bool,
        in_order: bool = False,
        start: int = 0,
    ) -> None:
        self.name = name
        self.layout = layout
        self.back_end = back_end
        self.event_idx = event_idx
        self.indirect = indirect
        self.in_order = in_order
        slot, wrap = position_of(start, layout.size)
        self.cells = state.add(
            self._cells,
            name,
            next_avail=slot,
            avail_wrap=wrap,
            next_used=slot,
            used_wrap=wrap,
            signalled_used=slot,
            filled=slot,
            filled_wrap=wrap,
            address=[0] * IOV_MAX,
            length=[0] * IOV_MAX,
        )
        self._size = layout.size
        self._ring = layout.ring
        # Where the flags of the descriptors lie in `u16`, and the device's event suppression structure.
        self._flags = (layout.ring + 14) // 2
        self._event_place, self._event_flags = layout.device_event // 2, layout.device_event // 2 + 1
        self.reach_by(memory)

    def reach_by(self, memory: Port) -> None:
        """Reach guest memory in another way from now on."""
        self.memory, self._u16 = memory, memory.u16
        self._found = Pieces(self.cells, memory, self.back_end)
        self._read_desc = memory.reader(VIRTQ_PACKED_DESC)
        self._read_event = memory.reader(VIRTQ_PACKED_EVENT)
        self._write_len = memory.writer(_LEN)

    # Taking buffers (2.8.21, seen from the other side)

    def waiting(self) -> bool:
        """Say whether a buffer is known to wait: never, for nothing but the descriptor itself tells of it."""
        return False

    def look(self) -> Literal["new", "empty"] | Malformed:
        """Read the flags of the next descriptor."""
        mine = self.cells
        flags = self._u16[self._flags + 8 * mine.next_avail]
        return "new" if is_available(flags, mine.avail_wrap) else "empty"

    def begin(self) -> Literal["head"] | Malformed:
        """Begin with the buffer that was found; nothing is read."""
        mine = self.cells
        if mine.in_flight >= self._size:
            problem = self._found.refuse("too many in flight")
            if problem:
                return problem
        if mine.slot != mine.next_avail:
            mine.slot = mine.next_avail
        if mine.wrap != mine.avail_wrap:
            mine.wrap = mine.avail_wrap
        if mine.found:
            mine.found = 0
        if mine.entries:
            mine.entries = 0
        self._found.begin()
        return "head"

    def move_kick_event(self) -> bool:
        """Do nothing: with a packed ring the place of the next kick is told only when kicks are asked for."""
        return False

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read one descriptor of the buffer, or one entry of its indirect table, and note the piece it describes."""
        mine = self.cells
        if mine.entries:
            return self._read_entry()
        address, length, buffer_id, flags = self._read_desc(self._ring + DESC_BYTES * mine.slot)
        if mine.found and not is_available(flags, mine.wrap):
            problem = self._found.refuse("chain not available")
            if problem:
                return problem
        if flags & VIRTQ_DESC_F_INDIRECT:
            if not mine.found or self.back_end != "qemu":
                return self._enter(address, length, buffer_id, flags)
            self._found.refuse_nothing("indirect later in a chain")
        problem = self._found.note(address, length, flags)
        if problem:
            return problem
        if not self._pass_slot():
            return "descriptor loop"
        if flags & VIRTQ_DESC_F_NEXT:
            return "next"
        self._finish(buffer_id)
        return "last"

    def _pass_slot(self) -> bool:
        """Go on to the next slot; answers False if the buffer already takes as many as there are."""
        mine = self.cells
        if mine.found == self._size:
            return False
        mine.found += 1
        slot = mine.slot + 1
        if slot == self._size:
            slot = 0
            mine.wrap = 1 - mine.wrap
        mine.slot = slot
        return True

    def _finish(self, buffer_id: int) -> None:
        # The buffer's id is the one in its last descriptor (2.8.6).
        mine = self.cells
        mine.head = mine.found << 16 | buffer_id
        slot, wrap = mine.slot, mine.wrap
        mine.next_avail = mine.filled = slot
        if mine.avail_wrap != wrap:
            mine.avail_wrap = wrap
        if mine.filled_wrap != wrap:
            mine.filled_wrap = wrap
        mine.in_flight += mine.found

    def _enter(self, address: int, length: int, buffer_id: int, flags: int) -> Literal["indirect"] | Malformed:
        mine = self.cells
        problem = self._found.refuse_table(address, length, flags, allowed=self.indirect, size=self._size)
        if problem:
            return problem
        if not self._pass_slot():
            return "descriptor loop"
        mine.table, mine.entries, mine.entry, mine.head = address, length // DESC_BYTES, 0, buffer_id
        return "indirect"

    def _read_entry(self) -> Literal["last", "next"] | Malformed:
        # The entries follow one another; of their flags only WRITE means anything (2.8.7).
        mine = self.cells
        address, length, _, flags = self._read_desc(mine.table + DESC_BYTES * mine.entry)
        problem = self._found.refuse("indirect inside indirect") if flags & VIRTQ_DESC_F_INDIRECT else None
        problem = problem or self._found.note(address, length, flags)
        if problem:
            return problem
        mine.entry += 1
        if mine.entry < mine.entries:
            return "next"
        mine.entries = 0
        self._finish(mine.head)
        return "last"

    def put_back(self, heads: Sequence[int]) -> None:
        """Take the buffers taken last as not taken; nothing in memory changes.

        The next kick is still wanted behind them: that they are there is known.
        """
        mine = self.cells
        slots = sum(handle >> 16 for handle in heads)
        mine.in_flight -= slots
        slot = mine.next_avail - slots
        while slot < 0:
            slot += self._size
            mine.avail_wrap = 1 - mine.avail_wrap
        mine.next_avail = slot

    def pieces(self) -> list[tuple[int, int]]:
        """Give address and length of each piece of the buffer just read; one of them may lie outside memory."""
        return self._found.found()

    def room(self, wanted: int) -> Literal["enough", "short"] | Malformed:
        """Say whether the buffers that wait can take so many bytes, by walking them without taking them."""
        mine = self.cells
        slot, wrap, total, goes_on = mine.next_avail, mine.avail_wrap, 0, False
        for _ in range(self._size):
            address, length, _, flags = self._read_desc(self._ring + DESC_BYTES * slot)
            if not goes_on and not is_available(flags, wrap):
                break
            if flags & VIRTQ_DESC_F_INDIRECT and not goes_on:
                problem = self._found.wrong_table(address, length)
                if problem:
                    return problem
                total += self._table_room(address, length)
            else:
                total += length if flags & VIRTQ_DESC_F_WRITE else 0
                goes_on = bool(flags & VIRTQ_DESC_F_NEXT)
            if total >= wanted:
                return "enough"
            slot, wrap = (slot + 1, wrap) if slot + 1 < self._size else (0, 1 - wrap)
        mine.filled, mine.filled_wrap = slot, wrap
        return "descriptor loop" if goes_on else "short"

    def _table_room(self, address: int, length: int) -> int:
        entries = [self._read_desc(at) for at in range(address, address + length, DESC_BYTES)]
        return sum(part for _, part, _, flags in entries if flags & VIRTQ_DESC_F_WRITE)

    # Returning them (2.8.22)

    def write_used(self, heads: Sequence[int], written: Sequence[int]) -> None:
        """Write used descriptors; the first is not yet marked as used, so the driver sees none of them.

        Args:
            heads: the buffers, in the order in which they were taken.
            written: bytes written into each.
        """
        mine = self.cells
        if self.in_order and not any(written):
            # Of buffers that were only read, the last one tells of all (2.8.9).
            heads = [sum(handle >> 16 for handle in heads) << 16 | heads[-1] & U16]
        for handle, length in zip(heads, written, strict=False):
            slot, wrap = mine.next_used, mine.used_wrap
            flags = USED[wrap]
            if length and self.back_end != "qemu":
                # QEMU never sets it; nobody minds.
                flags |= VIRTQ_DESC_F_WRITE
            # QEMU's order: id, length, flags.
            self._u16[self._flags - 1 + 8 * slot] = handle & U16
            self._write_len(self._ring + DESC_BYTES * slot + 8, length)
            if mine.hidden:
                self._u16[self._flags + 8 * slot] = flags
            else:
                mine.hidden, mine.hidden_slot, mine.hidden_flags = 1, slot, flags
            self._pass_used(handle >> 16)

    def _pass_used(self, slots: int) -> None:
        """Go on to where the next used descriptor is written."""
        mine = self.cells
        mine.in_flight -= slots
        slot = mine.next_used + slots
        if slot >= self._size:
            slot -= self._size
            mine.used_wrap = 1 - mine.used_wrap
            if self.back_end == "qemu":
                # Slots of two laps cannot be compared, so that QEMU gives up comparing once a lap.
                mine.signalled_used_valid = 0
        mine.next_used = slot

    def publish(self) -> None:
        """Mark the first used descriptor as used: the driver goes through them in order, so this shows them all."""
        mine = self.cells
        if mine.hidden:
            mine.hidden = 0
            self._u16[self._flags + 8 * mine.hidden_slot] = mine.hidden_flags

    def interrupt_wanted(self) -> bool:
        """Decide whether what was published has to be told (2.8.10).

        The slots are made into a running count before they are compared, as DPDK does it. QEMU takes flags that mean
        nothing for a wish by descriptor, and, once a lap, sends an interrupt to whoever wishes by descriptor.
        """
        mine = self.cells
        off_wrap, flags = self._read_event(self.layout.driver_event)
        old, valid, new = mine.signalled_used, mine.signalled_used_valid, mine.next_used
        mine.signalled_used, mine.signalled_used_valid = new, 1
        meaning_nothing = self.back_end == "qemu" and flags > RING_EVENT_FLAGS_DESC
        if flags != RING_EVENT_FLAGS_DESC and not meaning_nothing:
            return flags != RING_EVENT_FLAGS_DISABLE
        if new <= old:
            old -= self._size
        event = (off_wrap & OFFSET) - (self._size if off_wrap >> 15 != mine.used_wrap else 0)
        return not valid or need_event(event & U16, new, old & U16)

    # Asking for kicks, or not (2.8.10)

    def disable_kicks(self) -> bool:
        """Stop asking for kicks; answers whether they were on. Memory is written in either case."""
        mine = self.cells
        were_on = not mine.kicks_off
        if were_on:
            mine.kicks_off = 1
        self._u16[self._event_flags] = RING_EVENT_FLAGS_DISABLE
        return were_on

    def enable_kicks(self) -> bool:
        """Ask for the next kick; the caller then has to look once more. Answers False if they were on already."""
        was_off = bool(self.cells.kicks_off)
        self.place_kick_event()
        self.want_kicks()
        return was_off or self.event_idx

    def place_kick_event(self) -> bool:
        """Say where a kick is wanted: behind what is known to be there. Without EVENT_IDX nothing is written."""
        mine = self.cells
        if self.event_idx:
            self._u16[self._event_place] = mine.filled | mine.filled_wrap << 15
        return self.event_idx

    def want_kicks(self) -> None:
        """Say that kicks are wanted; after the place, for the driver must not see flags that refer to an older one."""
        if self.cells.kicks_off:
            self.cells.kicks_off = 0
        self._u16[self._event_flags] = RING_EVENT_FLAGS_DESC if self.event_idx else RING_EVENT_FLAGS_ENABLE
