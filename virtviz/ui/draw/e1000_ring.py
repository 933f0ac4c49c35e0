"""The descriptor ring of an e1000: descriptors under their slots, then whose they are, by head and tail.

The driver writes descriptors, and moves the tail; the device reports in them, and moves the head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.ui.draw.ring_parts import FULL_ROWS, LABEL, Drawing

if TYPE_CHECKING:
    from virtviz.ui.grid import Grid
    from virtviz.view.frame import Cell, E1000RingFrame, Frame

_REGISTERS: Final = {"out": ("TDH", "TDT"), "in": ("RDH", "RDT")}
_LABELS: Final = {"addr": "desc addr", "len": "     len", "status": "     status"}
_WORDS: Final = {"out": "     cmd", "in": "     errors"}


def draw_e1000_ring(frame: Frame, width: int, rows: int) -> Grid:
    """Draw the ring of a frame."""
    return (_Full if rows >= FULL_ROWS else _Small)(frame, width, rows).draw()


class _Small(Drawing):
    ring: E1000RingFrame
    fields = ("addr", "len", "word", "status")

    def draw(self) -> Grid:
        self.title()
        self.owners("desc owner")
        self.detail()
        self._field("len")
        self._field("status")
        self._device_side()
        self._driver_side()
        return self.grid

    def _field(self, name: str) -> None:
        self.label(_WORDS[self.ring.direction] if name == "word" else _LABELS[name])
        self.cells(name)
        self.y += 1

    def named(self, name: str) -> str:
        """Say how a field is called."""
        return _WORDS[self.ring.direction].strip() if name == "word" else name

    def _device_side(self) -> None:
        """Write the device's two registers, and mark where they point."""
        ring = self.ring
        head, tail = _REGISTERS[ring.direction]
        self._pair((head, ring.head), (tail, ring.tail))
        self._marks("is_head", "is_tail", ("↑head", "↑tail"), ("↑he", "↑ta"), "host")

    def _driver_side(self) -> None:
        """Write where the driver goes on: which descriptor it fills next, and which it takes back next."""
        ring = self.ring
        self._pair(("fill", ring.next_to_use), ("take", ring.next_to_clean))
        self._marks("is_use_next", "is_clean_next", ("↑fill", "↑take"), ("↑fi", "↑tk"), "guest")

    def _pair(self, *words: tuple[str, Cell]) -> None:
        at = 0
        for name, cell in words:
            at = self.grid.put(at, self.y, f"{name} ", "dim", LABEL - at)
            at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell), LABEL - at) + 1

    def _marks(self, one: str, other: str, whole: tuple[str, str], short: tuple[str, str], style: str) -> None:
        names = whole if self.cell > len(whole[0]) else short
        for column, slot in enumerate(self.slots):
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
        for name in self.fields:
            self._field(name)
        self.owners("owner")
        self._device_side()
        self._driver_side()
        self.detail()
        self.grid.put(0, self.y, f"free descriptors {ring.unused} of {ring.size}; one always stays empty", "dim")
        return self.grid
