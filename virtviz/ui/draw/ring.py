"""The ring: descriptors, available ring and used ring as three bands with the same slots under one another.

What the last step wrote has an asterisk and a colour of its own, what it read a degree sign. Each band is written by
one side only: the first two by the driver, the third by the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.ui.draw.ring_parts import FULL_ROWS, Drawing
from virtviz.ui.grid import Grid
from virtviz.view.frame import E1000RingFrame, RingFrame, SlotFrame

if TYPE_CHECKING:
    from virtviz.view.frame import AnySlot, Frame


def draw_ring(frame: Frame, width: int, rows: int) -> Grid:
    """Draw the ring of a frame, of whatever kind; where there is none, say so."""
    if frame.ring is None:
        return _draw_no_ring(width, rows)
    if isinstance(frame.ring, E1000RingFrame):
        from virtviz.ui.draw.e1000_ring import draw_e1000_ring  # noqa: PLC0415 - where a world has it

        return draw_e1000_ring(frame, width, rows)
    if not isinstance(frame.ring, RingFrame):
        from virtviz.ui.draw.packed_ring import draw_packed_ring  # noqa: PLC0415 - where a world has it

        return draw_packed_ring(frame, width, rows)
    return (_Full if rows >= FULL_ROWS else _Small)(frame, width, rows).draw()


def _draw_no_ring(width: int, rows: int) -> Grid:
    """Say why there is no ring to be seen."""
    grid = Grid(width, rows)
    lines = (
        "No ring: there is no virtual machine here.",
        "",
        "A program of the host has the device's descriptor.",
        "Each packet is a system call of its own, and a copy:",
        "write() brings one in, read() takes one out.",
    )
    for y, line in enumerate(lines[:rows]):
        grid.put(1, y, line, "dim")
    return grid


class _Small(Drawing):
    ring: RingFrame
    fields = ("addr", "len", "flags", "next")

    def shown(self, slot: AnySlot, name: str) -> str:
        text = super().shown(slot, name)
        return f"({text})" if self.means_nothing(slot, name) else text

    def means_nothing(self, slot: AnySlot, name: str) -> bool:
        # `next` may be filled in without being part of a chain.
        return (
            name == "next" and isinstance(slot, SlotFrame) and slot.next.text.isdecimal() and "N" not in slot.flags.text
        )

    def draw(self) -> Grid:
        ring = self.ring
        self.title()
        self.owners("desc owner")
        self.detail()
        self.word("avail.idx", ring.avail_idx, index=True)
        self.cells("avail")
        self.y += 1
        self._driver_wish()
        self.pointers("is_avail_next", "is_device_next")
        self.y += 1
        self.word("used.idx ", ring.used_idx, index=True)
        self.cells("used_id")
        self.y += 1
        self._device_wish()
        self.pointers("is_driver_next", "is_used_next")
        return self.grid

    def _driver_wish(self) -> None:
        ring = self.ring
        if ring.event_idx:
            self.word(" used_event", ring.used_event)
        else:
            self.word(" avail.flags", ring.avail_flags)

    def _device_wish(self) -> None:
        ring = self.ring
        if ring.event_idx:
            self.word(" avail_event", ring.avail_event)
        else:
            self.word(" used.flags", ring.used_flags)


class _Full(_Small):
    def draw(self) -> Grid:
        ring = self.ring
        self.title()
        for name in ("addr", "len", "flags", "next"):
            self.label({"addr": "desc addr"}.get(name, f"     {name}"))
            self.cells(name)
            self.y += 1
        self.owners("owner")
        self.word("avail.idx", ring.avail_idx, index=True)
        self.cells("avail")
        self.y += 1
        self._driver_wish()
        self.pointers("is_avail_next", "is_device_next")
        self.y += 1
        self.word("used.idx ", ring.used_idx, index=True)
        self.cells("used_id")
        self.y += 1
        self.label("     len")
        self.cells("used_len")
        self.y += 1
        self._device_wish()
        self.pointers("is_driver_next", "is_used_next")
        self.y += 1
        at = 0
        for side, name, cell in (
            ("driver: ", "num_free", ring.num_free),
            ("", "last_used_idx", ring.last_used_idx),
            ("device: ", "last_avail_idx", ring.last_avail_idx),
        ):
            at = self.grid.put(at, self.y, f"{side}{name} ", "dim")
            at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell)) + 2
        return self.grid
