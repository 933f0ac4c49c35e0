"""A virtqueue as people see it, decoded from the bytes of guest memory.

Three stretches of memory are read: descriptor table, available ring, used ring. What the two sides keep to themselves
(their positions, what is outstanding) comes from their cells. What the step read and wrote comes from the step.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from virtviz.ring.index import pending
from virtviz.ring.split import SplitLayout
from virtviz.spec.virtio import VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE
from virtviz.view.frame import Cell, RingFrame, SlotFrame
from virtviz.view.machines import pool_of

if TYPE_CHECKING:
    from virtviz.engine.trace import Step
    from virtviz.paths.describe import QueueInfo
    from virtviz.view.frame import Source

_DESC: Final = struct.Struct("<QIHH")
_ELEM: Final = struct.Struct("<II")
_FLAG_LETTERS: Final = ((VIRTQ_DESC_F_NEXT, "N"), (VIRTQ_DESC_F_WRITE, "W"), (VIRTQ_DESC_F_INDIRECT, "I"))
NOTHING: Final = "·"
"""What is shown of a field that was never written."""


def flag_letters(flags: int) -> str:
    """Give a descriptor's flags as letters: N next, W device-writable, I indirect; a dash for none."""
    return "".join(letter for bit, letter in _FLAG_LETTERS if flags & bit) or "-"


class Marks:
    """Which addresses a step wrote and read in one region."""

    def __init__(self, step: Step | None, region: str) -> None:
        self.written: list[tuple[int, int]] = []
        self.read: list[tuple[int, int]] = []
        self.cells: set[str] = set()
        if step is not None:
            self.written = [(w.addr, w.addr + w.size) for w in step.writes if w.region == region]
            self.read = [(r.addr, r.addr + r.size) for r in step.reads if r.region == region]
            self.cells = {w.field for w in step.writes if not w.region}

    def cell(self, text: str, addr: int, size: int, *, live: bool = True) -> Cell:
        """Make the cell of a field, with its marks."""
        written = any(start < addr + size and addr < end for start, end in self.written)
        read = not written and any(start < addr + size and addr < end for start, end in self.read)
        return Cell(text, written, read, live)

    def private(self, value: int, name: str) -> Cell:
        """Make the cell of a number that one side keeps to itself."""
        return Cell(str(value), written=name in self.cells)


def ring_frame(source: Source, position: int, queue: QueueInfo, slots: int, desc: int, slot: int) -> RingFrame:
    """Decode a window on a split queue.

    Args:
        source: where bytes and cells come from.
        position: which moment.
        queue: the queue.
        slots: width of the window; no more than the queue has.
        desc: the descriptor worked on last, -1 for none; one that the queue has not counts as none.
        slot: the slot worked on last, -1 for none; the window is the page it is on.
    """
    size = queue.size
    slots = min(slots, size)
    desc = desc if desc < size else -1
    step = source.step(position) if position else None
    marks = Marks(step, queue.region)
    at = SplitLayout(size, queue.desc, queue.avail, queue.used)

    def word(address: int) -> int:
        return int.from_bytes(source.memory(position, queue.region, address, 2), "little")

    def private(owner: str, name: str) -> tuple[int, Cell]:
        value = source.cell(position, f"{owner}.{name}")
        return value, marks.private(value, f"{owner}.{name}")

    avail_idx, used_idx = word(at.avail_idx), word(at.used_idx)
    last_used, last_used_cell = private(queue.driver, "last_used_idx")
    last_avail, last_avail_cell = private(queue.device, "last_avail_idx")
    next_used = source.cell(position, f"{queue.device}.last_used_idx")
    _, num_free = private(queue.driver, "num_free")
    start = _start(source)
    if slot < 0:
        slot = (avail_idx if queue.direction == "out" else used_idx) % size
    first_slot = slot // slots * slots
    first_desc = max(desc, 0) // slots * slots if desc >= 0 else (avail_idx - start) % size // slots * slots
    if queue.direction == "in" and desc < 0:
        first_desc = 0

    owners = _Owners(source, position, queue, at, avail_idx, used_idx, last_used)
    columns = tuple(
        SlotFrame(
            slot=s,
            desc=d,
            **_descriptor(source, position, queue, at, d, marks),
            **_entries(source, position, queue, at, s, marks, (avail_idx, last_avail, used_idx, last_used, start)),
            owner=owners.of(d),
            packet=owners.packet(d),
            is_avail_next=s == avail_idx % size,
            is_device_next=s == last_avail % size,
            is_used_next=s == next_used % size,
            is_driver_next=s == last_used % size,
        )
        for s, d in zip(range(first_slot, first_slot + slots), range(first_desc, first_desc + slots), strict=True)
    )
    words = {
        name: marks.cell(str(word(getattr(at, name))), getattr(at, name), 2)
        for name in ("avail_flags", "avail_idx", "used_event", "used_flags", "used_idx", "avail_event")
    }
    return RingFrame(
        queue=queue.name,
        direction=queue.direction,
        size=size,
        slots=columns,
        desc=desc,
        event_idx=queue.event_idx,
        last_used_idx=last_used_cell,
        last_avail_idx=last_avail_cell,
        num_free=num_free,
        changed=step is not None and step.queue == queue.name,
        **words,
    )


def _start(source: Source) -> int:
    """Give the index at which the world's rings began."""
    start = source.header.world.get("queue.start", 0)
    return start if isinstance(start, int) else 0


def _descriptor(
    source: Source, position: int, queue: QueueInfo, at: SplitLayout, number: int, marks: Marks
) -> dict[str, Cell]:
    address = at.desc + _DESC.size * number
    addr, length, flags, following = _DESC.unpack(source.memory(position, queue.region, address, _DESC.size))
    live = bool(source.cell(position, f"{queue.driver}.tokens[{number}]"))
    if not (addr or length):
        return {name: marks.cell(NOTHING, address, _DESC.size, live=False) for name in ("addr", "len", "flags", "next")}
    return {
        "addr": marks.cell(f"{addr:x}", address, 8, live=live),
        "len": marks.cell(str(length), address + 8, 4, live=live),
        "flags": marks.cell(flag_letters(flags), address + 12, 2, live=live),
        "next": marks.cell(str(following), address + 14, 2, live=live and bool(flags & VIRTQ_DESC_F_NEXT)),
    }


def _entries(
    source: Source,
    position: int,
    queue: QueueInfo,
    at: SplitLayout,
    slot: int,
    marks: Marks,
    indices: tuple[int, int, int, int, int],
) -> dict[str, Cell]:
    """Decode one slot of the available and of the used ring.

    An entry is live from its publication until the other side has taken it, or while it is being written.
    """
    avail_idx, last_avail, used_idx, last_used, start = indices
    address = at.avail_ring(slot)
    (head,) = struct.unpack("<H", source.memory(position, queue.region, address, 2))
    avail_live = pending(slot - last_avail, 0) % at.size < pending(avail_idx, last_avail)
    avail = marks.cell(str(head), address, 2, live=avail_live)
    if not (avail.written or head or pending(slot - start, 0) % at.size < pending(avail_idx, start)):
        avail = Cell(NOTHING, live=False, read=avail.read)
    address = at.used_ring(slot)
    number, length = _ELEM.unpack(source.memory(position, queue.region, address, _ELEM.size))
    used_live = pending(slot - last_used, 0) % at.size < pending(used_idx, last_used)
    used_id = marks.cell(str(number), address, 4, live=used_live)
    used_len = marks.cell(str(length), address + 4, 4, live=used_live)
    if not (used_id.written or number or length or pending(slot - start, 0) % at.size < pending(used_idx, start)):
        used_id, used_len = (Cell(NOTHING, live=False, read=c.read) for c in (used_id, used_len))
    return {"avail": avail, "used_id": used_id, "used_len": used_len}


class _Owners:
    """Who may touch which descriptor.

    The driver notes what is outstanding. Of that, the device has what is published and not yet returned; what is in
    the used ring and not yet taken is on its way back. Descriptors of a chain belong to whoever has its head.
    """

    def __init__(
        self,
        source: Source,
        position: int,
        queue: QueueInfo,
        at: SplitLayout,
        avail_idx: int,
        used_idx: int,
        last_used: int,
    ) -> None:
        self._source, self._position, self._queue, self._size = source, position, queue, at.size
        region = queue.region
        self._back = {
            int.from_bytes(source.memory(position, region, at.used_ring((last_used + i) % at.size), 4), "little")
            for i in range(min(pending(used_idx, last_used), at.size))
        }
        free = source.cell(position, f"{queue.driver}.num_free")
        outstanding = at.size - free
        # The last so many heads that were published; one more descriptor is outstanding while it is being added.
        ring = struct.unpack(f"<{at.size}H", source.memory(position, region, at.avail_ring(0), 2 * at.size))
        count = min(outstanding, pending(avail_idx, last_used), at.size)
        published = {ring[(avail_idx - 1 - i) % at.size] for i in range(count)}
        # In a malformed ring there may be heads that the queue has not, or that nobody offered.
        self._published: set[int] = {head for head in published if head < at.size and self._token(head)}

    def _token(self, number: int) -> int:
        return self._source.cell(self._position, f"{self._queue.driver}.tokens[{number}]")

    def of(self, number: int) -> str:
        """Give `driver`, `device` or `used`."""
        head = self._head(number)
        if head < 0:
            return "driver"
        if head in self._back:
            return "used"
        return "device" if head in self._published else "driver"

    def packet(self, number: int) -> int:
        """Give the number of the packet that a descriptor's buffer holds; 0 if none."""
        head = self._head(number)
        if head < 0:
            return 0
        pool = pool_of(self._queue.name, "skb" if self._queue.direction == "out" else "rx_buffers")
        return self._source.cell(self._position, f"{pool}.packet[{self._token(head)}]")

    def _head(self, number: int) -> int:
        """Give the head of the outstanding chain that a descriptor belongs to; -1 if it is free."""
        if self._token(number):
            return number
        for head in self._published:
            index = head
            for _ in range(self._source.cell(self._position, f"{self._queue.driver}.chain[{head}]") - 1):
                index = self._source.cell(self._position, f"{self._queue.driver}.next[{index}]")
                if index == number:
                    return head
        return -1
