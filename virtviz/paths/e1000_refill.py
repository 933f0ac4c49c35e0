"""The driver gives receive buffers to the card: e1000_alloc_rx_buffers. Row 14 of path (a)'s way in.

The store to RDT is the one store for a packet that does not go to QEMU at once: QEMU has told KVM that this register
may wait, so KVM only notes what was stored, and QEMU sees it at the next access that does go there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.engine.ops import RETURN, Routine, call, goto, op
from virtviz.paths.e1000 import Adapter, AdapterRoutine
from virtviz.spec.citation import E1000

if TYPE_CHECKING:
    from virtviz.engine.places import Place
    from virtviz.paths.context import Context

ADDRESS_BYTES = 8


class RefillRing(AdapterRoutine):
    """Fill the receive descriptors that are not the card's.

    Args:
        store_tail: what a store to the register RDT leads to.
    """

    def __init__(self, name: str, place: Place, adapter: Adapter, store_tail: Routine) -> None:
        super().__init__(name, place, adapter, adapter.rx)
        self.store_tail = store_tail

    @op(
        "E1000-RX.14",
        "begin to refill",
        "e1000_alloc_rx_buffers",
        E1000,
        text={
            "buffers": "Descriptors to be filled again: {used_up}.",
            "nothing": "Every descriptor but one is the card's: there is nothing to refill.",
        },
        to={"buffers": goto("fill_desc"), "nothing": RETURN},
        private=True,
    )
    def begin(self, me: Context) -> str:
        unused = self.ring.unused()
        if self.mine.used_up != unused:
            self.mine.used_up = unused
        return "buffers" if unused else "nothing"

    @op(
        "E1000-RX.14",
        "write a buffer's address into a descriptor",
        "e1000_alloc_rx_buffers",
        E1000,
        text={
            "next": "A descriptor names an empty buffer; the old one, if its packet was copied out of it.",
            "last": "A descriptor names an empty buffer. It is the last one for now.",
        },
        to={"next": goto("fill_desc"), "last": goto("write_tail")},
    )
    def fill_desc(self, me: Context) -> str:
        ring, mine, buffers = self.ring, self.mine, self.adapter.buffers
        slot = ring.cells.next_to_use
        buffer = ring.cells.tokens[slot]
        if not buffer:
            buffer = ring.cells.tokens[slot] = buffers.take(0)
        ring.memory.write(ring.layout.at(slot), buffers.at[buffer].to_bytes(ADDRESS_BYTES, "little"))
        ring.cells.next_to_use = ring.after(slot)
        mine.used_up -= 1
        return "next" if mine.used_up else "last"

    @op(
        "E1000-RX.14",
        "store the new tail",
        "e1000_alloc_rx_buffers",
        E1000,
        text="The driver stores {value} to RDT: the card may fill the buffers up to there. QEMU need not know at once.",
        to=call("store_tail", None),
        cause="store to RDT",
        cost="kick",
    )
    def write_tail(self, me: Context) -> None:
        # The tail is the last descriptor that was filled: the one that stays empty is behind it.
        self.adapter.access.value = (self.ring.cells.next_to_use - 1) % self.ring.size

    def words(self, me: Context) -> dict[str, object]:
        """Give what is left to fill too."""
        return {**super().words(me), "used_up": self.mine.used_up}
