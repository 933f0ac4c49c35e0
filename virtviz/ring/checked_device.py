"""The device's side of a split virtqueue as QEMU reads it, or as someone does who lets nothing pass.

`SplitDevice` is vhost. This one takes the same steps and is used in the same way; it differs in what it notices, and in
how it reads indirect tables: by their `next` fields, not in sequence, and, for QEMU, only where the head refers to one.

Source: virtio 1.4, 2.7; QEMU hw/virtio/virtio.c (virtqueue_split_pop, virtqueue_split_get_avail_bytes,
virtio_queue_split_set_notification).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from virtviz.engine.cells import cells
from virtviz.ring.index import U16, pending
from virtviz.ring.pieces import Pieces
from virtviz.ring.split import DESC_BYTES
from virtviz.ring.split_device import DeviceCells, SplitDevice
from virtviz.spec.virtio import (
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
    from virtviz.ring.verdicts import BackEnd, Malformed


@cells
class CheckedCells(DeviceCells):
    """What the device keeps to itself, beside what vhost keeps.

    Attributes:
        in_flight: buffers taken and not yet returned.
        visited: entries of the indirect table read so far.
        lent: see `PieceCells`.
    """

    in_flight: int = 0
    visited: int = 0
    lent: int = 0


class CheckedSplitDevice(SplitDevice):
    """Device side of one split virtqueue; it is a `DeviceRing`, and one that can say beforehand how much room waits.

    Args:
        state: where its cells are made.
        name: such as `qemu-4002.transmitq1`.
        memory: guest memory.
        layout: where the queue lies.
        back_end: whose checks it makes, `qemu` or `strict`.
        event_idx: VIRTIO_RING_F_EVENT_IDX was negotiated.
        indirect: VIRTIO_RING_F_INDIRECT_DESC was negotiated.
        start: the index to begin at, u16.
    """

    cells: CheckedCells
    _cells = CheckedCells

    def __init__(
        self,
        state: State,
        name: str,
        memory: Port,
        layout: SplitLayout,
        *,
        back_end: BackEnd,
        event_idx: bool,
        indirect: bool,
        start: int = 0,
    ) -> None:
        super().__init__(state, name, memory, layout, event_idx=event_idx, indirect=indirect, start=start)
        self.back_end = back_end
        self._found = Pieces(self.cells, memory, back_end)

    # Taking buffers

    def read_avail_idx(self) -> Literal["new", "empty"] | Malformed:
        """Read avail.idx."""
        mine = self.cells
        index = self._u16[self._avail_idx]
        if mine.avail_idx != index:
            mine.avail_idx = index
        if index == mine.last_avail_idx:
            return "empty"
        if pending(index, mine.last_avail_idx) > self._size:
            mine.expected, mine.seen = mine.last_avail_idx, index
            return self._found.refuse("avail.idx jumped") or "new"
        return "new"

    def read_head(self) -> Literal["head"] | Malformed:
        """Read the next head from the available ring, and begin with its chain."""
        mine = self.cells
        if mine.in_flight >= self._size:
            return "too many in flight"
        head = self._u16[self._avail_ring + (mine.last_avail_idx & self._mask)]
        if head > self._mask:
            mine.seen = head
            return "head out of range"
        mine.head = mine.index = head
        if mine.found:
            mine.found = 0
        if mine.entries:
            mine.entries = 0
        self._found.begin()
        return "head"

    def move_kick_event(self) -> bool:
        """Ask for the kick after this buffer, while kicks are asked for; answers whether that was written."""
        mine = self.cells
        if not self.event_idx or mine.used_flags & VIRTQ_USED_F_NO_NOTIFY:
            return False
        self._u16[self._avail_event] = (mine.last_avail_idx + 1) & U16
        return True

    def read_desc(self) -> Literal["last", "next", "indirect"] | Malformed:
        """Read one descriptor of the chain, or one entry of its indirect table, and note the piece it describes."""
        mine = self.cells
        if mine.entries:
            return self._read_entry()
        address, length, flags, following = self._read_desc(self._desc + DESC_BYTES * mine.index)
        if flags & VIRTQ_DESC_F_INDIRECT:
            if not mine.found or self.back_end != "qemu":
                return self._enter(address, length, flags)
            self._found.refuse_nothing("indirect later in a chain")
        problem = self._found.note(address, length, flags)
        if problem:
            return problem
        mine.found += 1
        if mine.found > self._size:
            return "descriptor loop"
        return self._follow(flags, following, self._size)

    def _follow(self, flags: int, following: int, limit: int) -> Literal["last", "next"] | Malformed:
        mine = self.cells
        if flags & VIRTQ_DESC_F_NEXT:
            if following >= limit:
                mine.seen = following
                return "next out of range"
            mine.index = following
            return "next"
        if mine.entries:
            mine.entries = 0
        mine.last_avail_idx = (mine.last_avail_idx + 1) & U16
        mine.in_flight += 1
        return "last"

    def _enter(self, address: int, length: int, flags: int) -> Literal["indirect"] | Malformed:
        mine = self.cells
        problem = self._found.refuse_table(address, length, flags, allowed=self.indirect, size=self._size)
        if problem:
            return problem
        mine.table, mine.entries, mine.index, mine.visited = address, length // DESC_BYTES, 0, 0
        return "indirect"

    def _read_entry(self) -> Literal["last", "next"] | Malformed:
        mine = self.cells
        address, length, flags, following = self._read_desc(mine.table + DESC_BYTES * mine.index)
        problem = self._found.refuse("indirect inside indirect") if flags & VIRTQ_DESC_F_INDIRECT else None
        problem = problem or self._found.note(address, length, flags)
        if problem:
            return problem
        mine.visited += 1
        if mine.visited > mine.entries:
            return "descriptor loop"
        return self._follow(flags, following, mine.entries)

    def put_back(self, heads: Sequence[int]) -> None:
        """Take the buffers taken last as not taken."""
        super().put_back(heads)
        self.cells.in_flight -= len(heads)

    def pieces(self) -> list[tuple[int, int]]:
        """Give address and length of each piece of the buffer just read; one of them may lie outside memory."""
        return self._found.found()

    def gather(self) -> bytearray:
        """Copy the bytes of all pieces of the buffer just read; zeros stand for what lies outside memory."""
        memory = self.memory
        parts = (memory.read(at, size) if memory.holds(at, size) else bytes(size) for at, size in self.pieces())
        return bytearray().join(parts)

    def room(self, wanted: int) -> Literal["enough", "short"] | Malformed:
        """Say whether the buffers that wait can take so many bytes, by walking their chains without taking them.

        QEMU does this before it receives into mergeable buffers. It is the one place where it compares avail.idx with
        the queue's size, and it counts the descriptors of all chains together against that size.
        """
        mine = self.cells
        index, total, counted = mine.last_avail_idx, 0, 0
        while True:
            avail_idx = self._u16[self._avail_idx]
            if mine.avail_idx != avail_idx:
                mine.avail_idx = avail_idx
            heads = pending(avail_idx, index)
            if heads > self._size:
                mine.expected, mine.seen = index, avail_idx
                return "avail.idx jumped"
            if not heads:
                return "short"
            head = self._u16[self._avail_ring + (index & self._mask)]
            index = (index + 1) & U16
            if head > self._mask:
                mine.seen = head
                return "head out of range"
            answer, total, counted = self._walk(head, wanted, total, counted)
            if answer != "short":
                return answer

    def _walk(
        self, at: int, wanted: int, total: int, counted: int
    ) -> tuple[Literal["enough", "short"] | Malformed, int, int]:
        """Walk one chain; answers with the room and the number of descriptors counted so far."""
        table, limit, steps = self._desc, self._size, counted
        address, length, flags, following = self._read_desc(table + DESC_BYTES * at)
        indirect = bool(flags & VIRTQ_DESC_F_INDIRECT)
        if indirect:
            problem = self._found.wrong_table(address, length)
            if problem or steps >= limit:
                return problem or "descriptor loop", total, counted
            table, limit, steps = address, length // DESC_BYTES, 0
            _, length, flags, following = self._read_desc(table)
        while True:
            steps += 1
            if steps > limit:
                return "descriptor loop", total, counted
            if flags & VIRTQ_DESC_F_WRITE:
                total += length
            if total >= wanted:
                return "enough", total, counted
            if not flags & VIRTQ_DESC_F_NEXT:
                return "short", total, counted + 1 if indirect else steps
            if following >= limit:
                self.cells.seen = following
                return "next out of range", total, counted
            _, length, flags, following = self._read_desc(table + DESC_BYTES * following)

    # Returning them

    def write_used(self, heads: Sequence[int], written: Sequence[int]) -> None:
        """Write used elements; see `SplitDevice.write_used`."""
        super().write_used(heads, written)
        self.cells.in_flight -= len(heads)

    # Asking for kicks, or not

    def enable_kicks(self) -> bool:
        """Ask for the next kick; with EVENT_IDX also where it was asked for already, for the place may have moved."""
        mine = self.cells
        was_off = bool(mine.used_flags & VIRTQ_USED_F_NO_NOTIFY)
        mine.used_flags &= ~VIRTQ_USED_F_NO_NOTIFY & U16
        if self.event_idx:
            mine.avail_idx = self._u16[self._avail_idx]
            self._u16[self._avail_event] = mine.avail_idx
        elif was_off:
            self._u16[self._used_flags] = mine.used_flags
        return was_off or self.event_idx
