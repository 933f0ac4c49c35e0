"""A descriptor ring of an e1000 as people see it, decoded from the bytes of guest memory and the device's registers.

Whose a descriptor is, no bit in it says: it is the device's from head to tail, and the driver's elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.spec.e1000 import (
    DESC_BYTES,
    E1000_RX_DESC,
    E1000_RXD_STAT_EOP,
    E1000_TX_DESC,
    E1000_TXD_STAT_DD,
    cmd_letters,
)
from virtviz.view.frame import Cell, E1000RingFrame, E1000SlotFrame
from virtviz.view.ring import NOTHING, Marks

if TYPE_CHECKING:
    from virtviz.paths.describe import QueueInfo
    from virtviz.view.frame import Source

_REGISTERS: Final = {"out": ("tdh", "tdt"), "in": ("rdh", "rdt")}


def e1000_ring_frame(source: Source, position: int, queue: QueueInfo, slots: int, desc: int) -> E1000RingFrame:
    """Decode a window on a descriptor ring.

    Args:
        source: where bytes and cells come from.
        position: which moment.
        queue: the ring.
        slots: width of the window; no more than the ring has.
        desc: the descriptor worked on last, -1 for none; the window is the page it is on.
    """
    slots = min(slots, queue.size)
    step = source.step(position) if position else None
    marks = Marks(step, queue.region)
    head_name, tail_name = _REGISTERS[queue.direction]

    def cell(owner: str, name: str) -> tuple[int, Cell]:
        value = source.cell(position, f"{owner}.{name}")
        return value, marks.private(value, f"{owner}.{name}")

    head, head_cell = cell(queue.device, head_name)
    tail, tail_cell = cell(queue.device, tail_name)
    use, use_cell = cell(queue.driver, "next_to_use")
    clean, clean_cell = cell(queue.driver, "next_to_clean")
    at = desc if desc >= 0 else clean
    first = at // slots * slots
    shown = []
    for slot in range(first, first + slots):
        is_device = (slot - head) % queue.size < (tail - head) % queue.size
        is_outstanding = (slot - clean) % queue.size < (use - clean) % queue.size
        token = source.cell(position, f"{queue.driver}.tokens[{slot}]")
        fields, is_done = _fields(source, position, queue, slot, marks, live=is_outstanding)
        shown.append(
            E1000SlotFrame(
                slot=slot,
                **fields,
                owner="device" if is_device else "used" if is_outstanding and is_done else "driver",
                packet=_packet(source, position, queue, token) if is_outstanding else 0,
                is_head=slot == head,
                is_tail=slot == tail,
                is_use_next=slot == use,
                is_clean_next=slot == clean,
            )
        )
    return E1000RingFrame(
        queue=queue.name,
        direction=queue.direction,
        size=queue.size,
        slots=tuple(shown),
        desc=desc,
        head=head_cell,
        tail=tail_cell,
        next_to_use=use_cell,
        next_to_clean=clean_cell,
        unused=(clean - use - 1) % queue.size,
        changed=step is not None and step.queue == queue.name,
    )


def _fields(
    source: Source, position: int, queue: QueueInfo, slot: int, marks: Marks, *, live: bool
) -> tuple[dict[str, Cell], bool]:
    """Decode one descriptor; answers its fields, and whether it is done."""
    address = queue.desc + DESC_BYTES * slot
    data = source.memory(position, queue.region, address, DESC_BYTES)
    if queue.direction == "out":
        addr, length, _, cmd, status, _, _ = E1000_TX_DESC.unpack(data)
        word, word_at = cmd_letters(cmd), 11
    else:
        addr, length, _, status, errors, _ = E1000_RX_DESC.unpack(data)
        word, word_at = str(errors), 13
    if not (addr or length):
        empty = {
            name: marks.cell(NOTHING, address, DESC_BYTES, live=False) for name in ("addr", "len", "word", "status")
        }
        return empty, False
    fields = {
        "addr": marks.cell(f"{addr:x}", address, 8, live=live),
        "len": marks.cell(str(length), address + 8, 2, live=live),
        "word": marks.cell(word, address + word_at, 1, live=live),
        "status": marks.cell(_status(status, queue.direction), address + 12, 1, live=live),
    }
    return fields, bool(status & E1000_TXD_STAT_DD)


def _status(status: int, direction: str) -> str:
    """Give a status byte in words: DD done, EOP end of packet; a dash for neither."""
    if status & E1000_TXD_STAT_DD:
        return "DD"
    return "EOP" if direction == "in" and status & E1000_RXD_STAT_EOP else "-"


def _packet(source: Source, position: int, queue: QueueInfo, token: int) -> int:
    """Give the number of the packet that a descriptor's buffer holds; 0 if none."""
    if not token:
        return 0
    vm = queue.name.partition(".")[0]
    pool = "skb" if queue.direction == "out" else "rx_buffers"
    return source.cell(position, f"{vm}.{pool}.packet[{token}]")
