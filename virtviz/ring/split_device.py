"""The device's side of a split virtqueue, one memory access at a time, as Linux's vhost does it.

Everything read from the ring was written by the other side and may be nonsense. What is wrong is answered as a word,
never raised: the caller decides what its back-end does about it.

Source: virtio 1.4, 2.7.5 to 2.7.10; Linux drivers/vhost/vhost.c.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Literal

from virtviz.engine.cells import Cells, cells
from virtviz.ring.index import U16, need_event, pending
from virtviz.ring.split import DESC_BYTES, USED_ELEM_BYTES
from virtviz.ring.verdicts import NAMES
from virtviz.spec.virtio import (
    VIRTQ_AVAIL_F_NO_INTERRUPT,
    VIRTQ_DESC,
    VIRTQ_DESC_F_INDIRECT,
    VIRTQ_DESC_F_NEXT,
    VIRTQ_DESC_F_WRITE,
    VIRTQ_USED_F_NO_NOTIFY,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.engine.memory import Port
    from virtviz.engine.state import State
    from virtviz.ring.split import SplitLayout
    from virtviz.ring.verdicts import Malformed

IOV_MAX = 1024
"""Pieces that one buffer may have on the device's side: UIO_MAXIOV."""
INDIRECT_MAX = 65536
"""Entries of an indirect table that vhost accepts: USHRT_MAX + 1. The specification allows as many as the queue has."""

_NONE = 0x10000
"""No descriptor: one more than a `next` field can say."""


@cells
class DeviceCells(Cells):
    """What the device keeps to itself.

    Attributes:
        last_avail_idx: the next available entry to take.
        avail_idx: avail.idx as last read.
        last_used_idx: the next used entry to write.
        signalled_used: last_used_idx when an interrupt was last considered.
        signalled_used_valid: 0 until the first time, and when 65536 entries went by unsignalled.
        used_flags: the device's own copy of used.flags; with EVENT_IDX it only says whether kicks are wanted.
        head: head of the chain being read.
        index: descriptor to read next.
        found: descriptors of the table that this chain has gone past.
        table: address of the indirect table being read, 0 for none.
        entries: its length in descriptors.
        entry: the table entry to read next.
        resume: where the chain goes on after the table, 65536 if it ends there.
        readable, writable: pieces found so far.
        seen, expected: numbers of the last thing found wrong, for its message; vhost has none.
        overlooked: place in `NAMES`, from 1, of the last state that was let pass; 0 for none.
        address, length: the pieces, readable ones first.
    """

    last_avail_idx: int = 0
    avail_idx: int = 0
    last_used_idx: int = 0
    signalled_used: int = 0
    signalled_used_valid: int = 0
    used_flags: int = 0
    head: int = 0
    index: int = _NONE
    found: int = 0
    table: int = 0
    entries: int = 0
    entry: int = 0
    resume: int = _NONE
    readable: int = 0
    writable: int = 0
    seen: int = 0
    expected: int = 0
    overlooked: int = 0
    address: list[int]
    length: list[int]


class SplitDevice:
    """Device side of one split virtqueue.

    Args:
        state: where its cells are made.
        name: such as `vhost-4002.transmitq1`.
        memory: guest memory.
        layout: where the queue lies.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated; vhost does not care, but notes what it lets pass.
        start: the index to begin at, u16.
    """

    _cells: type[DeviceCells] = DeviceCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: SplitLayout,
        *,
        event_idx: bool,
        indirect: bool = True,
        start: int = 0,
    ) -> None:
        self.name = name
        self.layout = layout
        self.memory = memory
        self.event_idx = event_idx
        self.indirect = indirect
        self.cells = state.add(
            self._cells,
            name,
            last_avail_idx=start,
            avail_idx=start,
            last_used_idx=start,
            signalled_used=start,
            address=[0] * IOV_MAX,
            length=[0] * IOV_MAX,
        )
        self._size = layout.size
        self._mask = layout.size - 1
        self._desc, self._used_ring = layout.desc, layout.used_ring(0)
        self._memory_size = memory.size
        self._read_desc, self._write = memory.reader(VIRTQ_DESC), memory.write
        # Where the 16-bit fields lie in `u16`.
        self._u16 = memory.u16
        self._avail_ring = layout.avail_ring(0) // 2
        self._avail_idx, self._used_idx = layout.avail_idx // 2, layout.used_idx // 2
        self._used_event, self._avail_event = layout.used_event // 2, layout.avail_event // 2
        self._avail_flags, self._used_flags = layout.avail_flags // 2, layout.used_flags // 2

    # Taking buffers (2.7.13, seen from the other side)

    def waiting(self) -> bool:
        """Say whether avail.idx, as last read, already told of a buffer not yet taken."""
        return self.cells.avail_idx != self.cells.last_avail_idx

    def read_avail_idx(self) -> Literal["new", "empty"] | Malformed:
        """Read avail.idx; an index further ahead than the queue is long cannot be right."""
        mine = self.cells
        index = self._u16[self._avail_idx]
        if pending(index, mine.last_avail_idx) > self._size:
            return "avail.idx jumped"
        if index == mine.avail_idx:
            return "empty"
        mine.avail_idx = index
        return "new"

    def is_empty(self) -> bool:
        """Say whether nothing is available, whatever is known of it (vhost_vq_avail_empty)."""
        return self._u16[self._avail_idx] == self.cells.last_avail_idx

    def look(self) -> Literal["new", "empty"] | Malformed:
        """Read avail.idx; see `read_avail_idx`."""
        return self.read_avail_idx()

    def read_head(self) -> Literal["head"] | Malformed:
        """Read the next head from the available ring, and begin with its chain."""
        mine = self.cells
        head = self._u16[self._avail_ring + (mine.last_avail_idx & self._mask)]
        if head > self._mask:
            return "head out of range"
        mine.head = head
        if mine.found:
            mine.found = 0
        if mine.table:
            mine.table = 0
        return "head"

    def begin(self) -> Literal["head"] | Malformed:
        """Read the next head; see `read_head`."""
        return self.read_head()

    def move_kick_event(self) -> bool:
        """Do nothing: vhost asks for a kick only when it has nothing left to do."""
        return False

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read one descriptor of the chain, or one entry of its indirect table, and note the piece it describes.

        Answers `last` when the chain is complete, `next` when it goes on, `indirect` when it goes on in a table.
        """
        mine = self.cells
        if mine.table:
            return self._read_table_entry()
        found = mine.found
        index = mine.index if found else mine.head
        if index > self._mask:
            return "next out of range"
        if found >= self._size:
            return "descriptor loop"
        address, length, flags, following = self._read_desc(self._desc + DESC_BYTES * index)
        in_memory = 0 < length <= self._memory_size - address
        if not (flags or found) and in_memory and mine.readable == 1 and not mine.writable:
            # A buffer in one piece for the device to read, like the one before: nearly always so.
            if mine.address[0] != address:
                mine.address[0] = address
            if mine.length[0] != length:
                mine.length[0] = length
            mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
            return "last"
        if flags & VIRTQ_DESC_F_INDIRECT:
            return self._enter_table(address, length, following if flags & VIRTQ_DESC_F_NEXT else _NONE)
        problem = self._note_piece(address, length, flags)
        if problem:
            return problem
        if flags & VIRTQ_DESC_F_NEXT:
            mine.found += 1
            mine.index = following
            return "next"
        mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
        return "last"

    def _enter_table(self, address: int, length: int, after: int) -> Literal["indirect"] | Malformed:
        mine = self.cells
        if length % DESC_BYTES or length // DESC_BYTES > INDIRECT_MAX:
            return "indirect length"
        if not self.memory.holds(address, length):
            return "address outside memory"
        mine.table, mine.entries, mine.entry, mine.resume = address, length // DESC_BYTES, 0, after
        if not self.indirect:
            self._let_pass("indirect not negotiated")
        if after != _NONE:
            self._let_pass("indirect and next")
        if mine.found:
            self._let_pass("indirect later in a chain")
        if mine.entries > self._size:
            self._let_pass("longer than the queue")
        if not mine.found:
            self._set_counts(0, 0)
        return "indirect"

    def _read_table_entry(self) -> Literal["last", "next"] | Malformed:
        mine = self.cells
        if mine.entry >= mine.entries:
            return "descriptor loop"
        # As in the kernel, entries are read in sequence while NEXT is set, whatever their next fields say.
        address, length, flags, _ = self._read_desc(mine.table + DESC_BYTES * mine.entry)
        if flags & VIRTQ_DESC_F_INDIRECT:
            return "indirect inside indirect"
        problem = self._note_piece(address, length, flags)
        if problem:
            return problem
        mine.entry += 1
        if flags & VIRTQ_DESC_F_NEXT:
            return "next"
        mine.table = 0
        if mine.resume != _NONE:
            mine.found += 1
            mine.index = mine.resume
            return "next"
        mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
        return "last"

    def _note_piece(self, address: int, length: int, flags: int) -> Malformed | None:
        mine = self.cells
        # The counts are those of the buffer before until the first descriptor of this one has been read.
        readable, writable = (mine.readable, mine.writable) if mine.found or mine.table else (0, 0)
        count = readable + writable
        if not length:
            if not count:
                self._set_counts(0, 0)
            self._let_pass("zero length")
            return None
        if count >= IOV_MAX:
            return "too many pieces"
        if address + length > self._memory_size:
            return "address outside memory"
        if flags & VIRTQ_DESC_F_WRITE:
            writable += 1
        elif writable:
            return "readable after writable"
        else:
            readable += 1
        if mine.address[count] != address:
            mine.address[count] = address
        if mine.length[count] != length:
            mine.length[count] = length
        self._set_counts(readable, writable)
        return None

    def _let_pass(self, problem: Malformed) -> None:
        self.cells.overlooked = NAMES.index(problem) + 1

    def _set_counts(self, readable: int, writable: int) -> None:
        mine = self.cells
        if mine.readable != readable:
            mine.readable = readable
        if mine.writable != writable:
            mine.writable = writable

    def peek_address(self) -> int:
        """Give the address in the head's descriptor without reading it as the device would. For people only."""
        at = self.layout.desc + DESC_BYTES * self.cells.head
        return int.from_bytes(self.memory.read(at, 8), "little")

    def give_back(self, heads: int) -> None:
        """Take the last heads as not taken; nothing in memory changes (vhost_discard_vq_desc)."""
        self.cells.last_avail_idx = (self.cells.last_avail_idx - heads) & U16

    def put_back(self, heads: Sequence[int]) -> None:
        """Take the buffers taken last as not taken."""
        self.give_back(len(heads))

    def total(self) -> int:
        """Give the length of all pieces of the buffer just read."""
        mine = self.cells
        count = mine.readable + mine.writable
        return mine.length[0] if count == 1 else sum(mine.length[:count])

    def gather(self) -> bytearray:
        """Copy the bytes of all pieces of the buffer just read."""
        return bytearray().join(self.memory.read(address, length) for address, length in self.pieces())

    def pieces(self) -> list[tuple[int, int]]:
        """Give address and length of each piece of the buffer just read."""
        mine = self.cells
        count = mine.readable + mine.writable
        return list(zip(mine.address[:count], mine.length[:count], strict=True))

    # Returning them (2.7.8)

    def write_used(self, heads: Sequence[int], written: Sequence[int]) -> None:
        """Write used elements, in one go up to the end of the ring; invisible until used.idx is published.

        Args:
            heads: heads of the buffers, at most as many as the queue has descriptors.
            written: bytes written into each.
        """
        mine = self.cells
        used, count = mine.last_used_idx, len(heads)
        words = [0] * (2 * count)
        words[::2], words[1::2] = heads, written
        elements = struct.pack(f"<{2 * count}I", *words)
        slot = used & self._mask
        before_end = USED_ELEM_BYTES * (self._size - slot)
        self._write(self._used_ring + USED_ELEM_BYTES * slot, elements[:before_end])
        if len(elements) > before_end:
            self._write(self._used_ring, elements[before_end:])
        mine.last_used_idx = (used + count) & U16
        # Nobody was signalled for 65536 entries: what was noted then means nothing any more.
        if pending(used + count, mine.signalled_used) < count:
            mine.signalled_used_valid = 0

    def used_idx_in_memory(self) -> int:
        """Read used.idx, which only a device side that begins anew has to."""
        return self._u16[self._used_idx]

    def publish_used_idx(self) -> None:
        """Publish all used elements written since the last time."""
        self._u16[self._used_idx] = self.cells.last_used_idx

    publish = publish_used_idx

    def interrupt_wanted(self) -> bool:
        """Decide whether what was published has to be told (2.7.7.2)."""
        if not self.event_idx:
            return not self._u16[self._avail_flags] & VIRTQ_AVAIL_F_NO_INTERRUPT
        mine = self.cells
        old, valid = mine.signalled_used, mine.signalled_used_valid
        mine.signalled_used = mine.last_used_idx
        mine.signalled_used_valid = 1
        return not valid or need_event(self._u16[self._used_event], mine.last_used_idx, old)

    # Asking for kicks, or not (2.7.10)

    def disable_kicks(self) -> bool:
        """Stop asking for kicks; answers whether memory was written. With EVENT_IDX avail_event is left to go stale."""
        mine = self.cells
        if mine.used_flags & VIRTQ_USED_F_NO_NOTIFY:
            return False
        mine.used_flags |= VIRTQ_USED_F_NO_NOTIFY
        if self.event_idx:
            return False
        self._u16[self._used_flags] = mine.used_flags
        return True

    def enable_kicks(self) -> bool:
        """Ask for the next kick; the caller has to read avail.idx once more then. Answers False if they were on."""
        mine = self.cells
        if not mine.used_flags & VIRTQ_USED_F_NO_NOTIFY:
            return False
        mine.used_flags &= ~VIRTQ_USED_F_NO_NOTIFY & U16
        if self.event_idx:
            self._u16[self._avail_event] = mine.avail_idx
        else:
            self._u16[self._used_flags] = mine.used_flags
        return True
