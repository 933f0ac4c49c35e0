"""A descriptor ring of an e1000: descriptors of 16 bytes, and who works on which.

There is nothing but the descriptors in memory. How far each side has come is known to the card by two registers, head
and tail: what lies from head up to, not including, tail is the device's, the rest is the driver's. One descriptor is
always left out, for equal registers mean that the device has none.

Source: Linux 6.12 drivers/net/ethernet/intel/e1000/e1000.h (E1000_DESC_UNUSED), e1000_main.c.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from virtviz.engine.cells import Cells, cells
from virtviz.spec.e1000 import DESC_BYTES, E1000_RX_DESC, E1000_TX_DESC, RX_STATUS_AT, TX_STATUS_AT, TX_UPPER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from virtviz.engine.memory import Port, Region
    from virtviz.engine.state import State

TX_FIELDS: Final[Mapping[str, tuple[int, int]]] = {
    "addr": (0, 8),
    "length": (8, 2),
    "cmd": (11, 1),
    "status": (12, 1),
    "special": (14, 2),
}
RX_FIELDS: Final[Mapping[str, tuple[int, int]]] = {
    "addr": (0, 8),
    "length": (8, 2),
    "status": (12, 1),
    "errors": (13, 1),
    "special": (14, 2),
}
"""Field of a descriptor -> where in it it lies, and its length in bytes."""
_FIELD: Final = re.compile(r"desc\[(\d{1,5})\]\.([a-z]+)")


class E1000Layout(Struct, frozen=True):
    """Where one descriptor ring lies in guest memory.

    Attributes:
        desc: address of the first descriptor, a multiple of 16.
        size: number of descriptors, a multiple of 8.
        fields: the fields of a descriptor: `TX_FIELDS` or `RX_FIELDS`.
    """

    desc: int
    size: int
    fields: Mapping[str, tuple[int, int]]

    @property
    def end(self) -> int:
        """The address behind the last descriptor."""
        return self.desc + DESC_BYTES * self.size

    def at(self, slot: int) -> int:
        """Give the address of a descriptor."""
        return self.desc + DESC_BYTES * slot

    def field_place(self, field: str) -> tuple[int, int]:
        """Give address and length in bytes of a field by its name, such as `desc[3].status`.

        Raises:
            ValueError: there is no such field in a ring of this size.
        """
        match = _FIELD.fullmatch(field)
        if match is None or match[2] not in self.fields:
            raise ValueError(f"a ring of an e1000 has no such field; it has desc[n].{'/'.join(self.fields)}")
        if int(match[1]) >= self.size:
            raise ValueError(f"slot {int(match[1])} is behind the end of a ring of {self.size} descriptors")
        offset, length = self.fields[match[2]]
        return self.at(int(match[1])) + offset, length

    def name_fields(self, memory: Region, ring: str) -> None:
        """Tell a region how the ring's fields are called, for people."""
        memory.name_stretch(self.desc, DESC_BYTES * self.size, ring, self._field)

    def _field(self, offset: int, size: int) -> str:
        name = f"desc[{offset // DESC_BYTES}]"
        if size >= DESC_BYTES:
            return name
        found = next((f for f, (at, _) in self.fields.items() if at == offset % DESC_BYTES), "")
        return f"{name}.{found}" if found else name


@cells
class RingCells(Cells):
    """What a driver keeps of a ring.

    Attributes:
        next_to_use: the descriptor that is filled next.
        next_to_clean: the descriptor that comes back next.
        tokens: the packet slot that the driver noted for each descriptor; 0 for none.
        watch: for the first descriptor of a packet, the last one of it.
    """

    next_to_use: int = 0
    next_to_clean: int = 0
    tokens: list[int]
    watch: list[int]


class E1000Ring:
    """The driver's side of one ring.

    Args:
        state: where its cells are made.
        name: the ring's name, such as `vm1.tx_ring`.
        memory: guest memory, as the driver's CPU reaches it.
        layout: where the ring lies.
    """

    def __init__(self, state: State, name: str, memory: Port, layout: E1000Layout) -> None:
        self.name = name
        self.memory = memory
        self.layout = layout
        self.size = layout.size
        self.cells = state.add(RingCells, name, tokens=[0] * layout.size, watch=[0] * layout.size)
        self.write_tx = memory.writer(E1000_TX_DESC)
        self.read_tx = memory.reader(E1000_TX_DESC)
        self.read_rx = memory.reader(E1000_RX_DESC)

    def after(self, slot: int) -> int:
        """Give the slot behind a slot."""
        return slot + 1 if slot + 1 < self.size else 0

    def unused(self) -> int:
        """Count the descriptors that can be filled; one always stays empty (E1000_DESC_UNUSED)."""
        mine = self.cells
        return (mine.next_to_clean - mine.next_to_use - 1) % self.size

    def clear_status(self, slot: int) -> None:
        """Make a descriptor one that is not done."""
        if self.layout.fields is TX_FIELDS:
            self.memory.write(self.layout.at(slot) + TX_STATUS_AT, bytes(TX_UPPER.size))
        else:
            self.memory.write(self.layout.at(slot) + RX_STATUS_AT, b"\0")
