"""A packed virtqueue as people see it, decoded from the bytes of guest memory; see `ring.py` for split ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.ring.packed import DESC_BYTES, OFFSET, PackedLayout, is_available, is_used
from virtviz.spec.virtio import (
    RING_EVENT_FLAG_NAMES,
    RING_EVENT_FLAGS_DESC,
    VIRTQ_DESC_F_AVAIL,
    VIRTQ_DESC_F_USED,
    VIRTQ_PACKED_DESC,
    VIRTQ_PACKED_EVENT,
)
from virtviz.view.frame import Cell, EventFrame, PackedRingFrame, PackedSlotFrame
from virtviz.view.machines import pool_of
from virtviz.view.ring import NOTHING, Marks, flag_letters

if TYPE_CHECKING:
    from virtviz.paths.describe import QueueInfo
    from virtviz.view.frame import Source

_OTHERS: Final = ~(VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED)
_PRIVATE: Final = {
    "avail_wrap": ("driver", "avail_wrap"),
    "next_avail": ("driver", "next_avail"),
    "used_wrap": ("driver", "used_wrap"),
    "last_used": ("driver", "last_used"),
    "num_free": ("driver", "num_free"),
    "device_wrap": ("device", "avail_wrap"),
    "device_next": ("device", "next_avail"),
    "device_used_wrap": ("device", "used_wrap"),
    "device_used": ("device", "next_used"),
}
"""Number that one side keeps to itself -> whose it is, and its cell."""


def turn_letters(flags: int) -> str:
    """Give a packed descriptor's flags: A for AVAIL, U for USED, a dash for each that is not set, then the others."""
    avail, used = "A" if flags & VIRTQ_DESC_F_AVAIL else "-", "U" if flags & VIRTQ_DESC_F_USED else "-"
    return avail + used + flag_letters(flags & _OTHERS).replace("-", "")


def packed_ring_frame(source: Source, position: int, queue: QueueInfo, slots: int, desc: int) -> PackedRingFrame:
    """Decode a window on a packed queue.

    Args:
        source: where bytes and cells come from.
        position: which moment.
        queue: the queue.
        slots: width of the window; no more than the queue has.
        desc: the descriptor worked on last, -1 for none; the window is the page it is on.
    """
    size, layout = queue.size, queue.layout
    assert isinstance(layout, PackedLayout)
    slots = min(slots, size)
    desc = desc if desc < size else -1
    step = source.step(position) if position else None
    marks = Marks(step, queue.region)
    ring = source.memory(position, queue.region, layout.ring, DESC_BYTES * size)
    table = list(VIRTQ_PACKED_DESC.iter_unpack(ring))
    private = {name: source.cell(position, f"{getattr(queue, side)}.{cell}") for name, (side, cell) in _PRIVATE.items()}
    cells = {
        name: marks.private(private[name], f"{getattr(queue, side)}.{cell}") for name, (side, cell) in _PRIVATE.items()
    }
    driver_event, driver_wants = _event(source, position, queue, layout.driver_event, marks)
    device_event, device_wants = _event(source, position, queue, layout.device_event, marks)
    turns = _Turns(source, position, queue, table, private)
    shown = desc if desc >= 0 else private["next_avail" if queue.direction == "out" else "last_used"]
    first = min(shown // slots * slots, size - slots)
    return PackedRingFrame(
        queue=queue.name,
        direction=queue.direction,
        size=size,
        slots=tuple(
            PackedSlotFrame(
                slot=slot,
                **_descriptor(layout.desc(slot), table[slot], turns, slot, marks),
                owner=turns.owner[slot],
                packet=turns.packet(slot),
                is_avail_next=slot == private["next_avail"],
                is_device_next=slot == private["device_next"],
                is_used_next=slot == private["device_used"],
                is_driver_next=slot == private["last_used"],
                driver_event=driver_wants >> 15 if driver_wants & OFFSET == slot else -1,
                device_event=device_wants >> 15 if device_wants & OFFSET == slot else -1,
            )
            for slot in range(first, first + slots)
        ),
        desc=desc,
        event_idx=queue.event_idx,
        changed=step is not None and step.queue == queue.name,
        driver_event=driver_event,
        device_event=device_event,
        **cells,
    )


def _event(source: Source, position: int, queue: QueueInfo, at: int, marks: Marks) -> tuple[EventFrame, int]:
    """Decode an event suppression structure; answers also its place, or one that no slot has if that is not meant."""
    place, flags = VIRTQ_PACKED_EVENT.unpack(source.memory(position, queue.region, at, VIRTQ_PACKED_EVENT.size))
    meant = flags == RING_EVENT_FLAGS_DESC
    event = EventFrame(
        place=marks.cell(f"{place & OFFSET} w{place >> 15}", at, 2, live=meant),
        flags=marks.cell(RING_EVENT_FLAG_NAMES.get(flags, str(flags)), at + 2, 2),
    )
    return event, place if meant else OFFSET


def _descriptor(address: int, desc: tuple[int, ...], turns: _Turns, slot: int, marks: Marks) -> dict[str, Cell]:
    addr, length, buffer_id, flags = desc
    live = turns.is_outstanding(slot)
    turn = marks.cell(turn_letters(flags), address + 14, 2, live=live)
    if not (addr or length):
        nothing = {name: marks.cell(NOTHING, address, 14, live=False) for name in ("addr", "len", "id")}
        return {**nothing, "flags": turn}
    return {
        # A used descriptor has no address: what stands there is left over.
        "addr": marks.cell(f"{addr:x}", address, 8, live=live and turns.owner[slot] != "used"),
        "len": marks.cell(str(length), address + 8, 4, live=live),
        "id": marks.cell(str(buffer_id), address + 12, 2, live=live),
        "flags": turn,
    }


class _Turns:
    """Whose turn each slot is, and whose buffer it holds.

    What is outstanding lies in a row from where the driver reads next to where it writes next. Of that, what is marked
    as used is on its way back, and what is marked as available the device has.

    Attributes:
        owner: for each slot `driver`, `device` or `used`.
    """

    def __init__(
        self,
        source: Source,
        position: int,
        queue: QueueInfo,
        table: list[tuple[int, ...]],
        private: dict[str, int],
    ) -> None:
        self._source, self._position, self._queue = source, position, queue
        size = queue.size
        self.owner = ["driver"] * size
        self._ids: dict[int, int] = {}
        slot, wrap = private["last_used"], private["used_wrap"]
        left = size - private["num_free"]
        while left > 0:
            _, _, buffer_id, flags = table[slot]
            # In a malformed ring there may be ids that the queue has not, or that nobody offered.
            known = buffer_id < size and self._cell(f"tokens[{buffer_id}]") != 0
            count = max(1, self._cell(f"chain[{buffer_id}]")) if known else 1
            owner = "used" if is_used(flags, wrap) else "device" if is_available(flags, wrap) else "driver"
            for _ in range(min(count, left)):
                self.owner[slot] = owner
                if known:
                    self._ids[slot] = buffer_id
                slot, wrap = (slot + 1, wrap) if slot + 1 < size else (0, 1 - wrap)
            left -= count

    def is_outstanding(self, slot: int) -> bool:
        """Say whether a slot holds a buffer, or part of one, that the driver has not got back."""
        return slot in self._ids

    def packet(self, slot: int) -> int:
        """Give the number of the packet that a slot's buffer holds; 0 if none."""
        if slot not in self._ids:
            return 0
        pool = pool_of(self._queue.name, "skb" if self._queue.direction == "out" else "rx_buffers")
        token = self._cell(f"tokens[{self._ids[slot]}]")
        return self._source.cell(self._position, f"{pool}.packet[{token}]")

    def _cell(self, name: str) -> int:
        return self._source.cell(self._position, f"{self._queue.driver}.{name}")
