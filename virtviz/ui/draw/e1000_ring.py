"""The descriptor ring of an e1000: descriptors under their slots, then whose they are, by head and tail.

The driver writes descriptors, and moves the tail; the device reports in them, and moves the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.ui.draw.ring import _OWNERS as OWNERS
from virtviz.ui.draw.ring import FULL_ROWS, LABEL, READ, WRITTEN
from virtviz.ui.draw.ring import _Drawing as Drawing
from virtviz.ui.grid import fit

if TYPE_CHECKING:
    from virtviz.ui.grid import Grid
    from virtviz.view.frame import Cell, E1000RingFrame, Frame

_REGISTERS: Final = {"out": ("TDH", "TDT"), "in": ("RDH", "RDT")}
_WORDS: Final = {"out": "cmd", "in": "errors"}


def draw_e1000_ring(frame: Frame, width: int, rows: int) -> Grid:
    """Draw the ring of a frame."""
    return (_Full if rows >= FULL_ROWS else _Small)(frame, width, rows).draw()


class _Small(Drawing):
    ring: E1000RingFrame

    def draw(self) -> Grid:
        self.title()
        self.owners("owner")
        self._detail()
        for name, label in (("length", "desc length"), ("status", "     status")):
            self._field(name, label)
        self._device_side()
        self._driver_side()
        return self.grid

    def _field(self, name: str, label: str) -> None:
        self.label(label)
        for column, slot in enumerate(self.ring.slots):
            cell: Cell = getattr(slot, name)
            self.put(column, cell.text, self.style(cell), self.sign(cell))
        self.y += 1

    def owners(self, name: str) -> None:
        self.label(name)
        for column, slot in enumerate(self.ring.slots):
            text, style = OWNERS[slot.owner]
            if slot.owner == "driver" and not slot.addr.live:
                text, style = "·", "faint"
            written, read = any(c.written for c in slot.cells), any(c.read for c in slot.cells)
            sign = WRITTEN if written else READ if read else ""
            style = "changed" if written else "read bold" if read else style
            self.put(column, text, style, sign)
        self.y += 1

    def _detail(self) -> None:
        """Spell out the descriptor that was worked on last."""
        ring = self.ring
        slot = next((slot for slot in ring.slots if slot.slot == ring.desc), None)
        at = self.grid.put(0, self.y, f" desc {slot.slot if slot else '-'}  ", "dim")
        if slot is not None:
            for name, label in (
                ("addr", "addr"),
                ("length", "len"),
                ("word", _WORDS[ring.direction]),
                ("status", "status"),
            ):
                cell: Cell = getattr(slot, name)
                at = self.grid.put(at, self.y, f"{label} ", "dim")
                at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell)) + 1
            if slot.packet:
                name = next((p.name for p in self.frame.packets if p.number == slot.packet), "")
                self.grid.put(at, self.y, fit(f"■{name}", self.grid.width - at) if name else "", "dim")
        self.y += 1

    def _device_side(self) -> None:
        """Write the device's two registers, and mark where they point."""
        ring = self.ring
        head, tail = _REGISTERS[ring.direction]
        self._pair((head, ring.head), (tail, ring.tail))
        self._marks("is_head", "is_tail", ("↑head", "↑tail"), ("↑he", "↑ta"), "host")

    def _driver_side(self) -> None:
        """Write where the driver goes on: where it fills, and where it cleans."""
        ring = self.ring
        self._pair(("fill", ring.next_to_use), ("clean", ring.next_to_clean))
        self._marks("is_use_next", "is_clean_next", ("↑fill", "↑clean"), ("↑fi", "↑cl"), "guest")

    def _pair(self, *words: tuple[str, Cell]) -> None:
        at = 0
        for name, cell in words:
            at = self.grid.put(at, self.y, f"{name} ", "dim", LABEL - at)
            at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell), LABEL - at) + 1

    def _marks(self, one: str, other: str, whole: tuple[str, str], short: tuple[str, str], style: str) -> None:
        names = whole if self.cell > len(max(whole, key=len)) else short
        for column, slot in enumerate(self.ring.slots):
            is_one, is_other = getattr(slot, one), getattr(slot, other)
            if is_one and is_other:
                self.put(column, "↑both" if names is whole else "↑", style)
            elif is_one or is_other:
                self.put(column, names[0] if is_one else names[1], style)
        self.y += 1


class _Full(_Small):
    def draw(self) -> Grid:
        ring = self.ring
        self.title()
        self._field("addr", "desc addr")
        self._field("length", "     length")
        self._field("word", f"     {_WORDS[ring.direction]}")
        self._field("status", "     status")
        self.owners("owner")
        self._device_side()
        self._driver_side()
        self._detail()
        self.grid.put(0, self.y, f"free descriptors {ring.unused} of {ring.size}; one always stays empty", "dim")
        return self.grid
