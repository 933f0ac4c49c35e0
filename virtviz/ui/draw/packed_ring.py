"""A packed ring: one row of descriptors, which both sides write, and what each side wishes to be told of.

Of the flags of each descriptor AVAIL and USED come first, as `A` and `U`. A wish by descriptor is marked in the slot it
names, with its wrap counter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from virtviz.ui.draw.ring_parts import FULL_ROWS, LABEL, Drawing

if TYPE_CHECKING:
    from virtviz.ui.grid import Grid
    from virtviz.view.frame import Cell, EventFrame, Frame, PackedRingFrame


def draw_packed_ring(frame: Frame, width: int, rows: int) -> Grid:
    """Draw the packed ring of a frame."""
    return (_Full if rows >= FULL_ROWS else _Small)(frame, width, rows).draw()


class _Small(Drawing):
    ring: PackedRingFrame
    fields = ("addr", "len", "id", "flags")

    def draw(self) -> Grid:
        self.title()
        self.owners("desc owner")
        self.detail()
        self.label(" flags AVAIL USED")
        self.cells("flags")
        self.y += 1
        self._laps()
        self._wish("driver_event", self.ring.driver_event)
        self._wish("device_event", self.ring.device_event)
        return self.grid

    def _laps(self) -> None:
        """Show where each side goes on with what is available, and its wrap counter."""
        ring = self.ring
        at = self._number(0, "wrap drv", ring.avail_wrap)
        self._number(at, "dev", ring.device_wrap)
        self.pointers("is_avail_next", "is_device_next")
        self.y += 1

    def _number(self, at: int, name: str, cell: Cell) -> int:
        at = self.grid.put(at, self.y, f"{name} ", "dim")
        return self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell)) + 1

    def _wish(self, name: str, event: EventFrame) -> None:
        """Write what a side wishes, and mark the slot that it means."""
        self.word(name, event.flags)
        for column, slot in enumerate(self.ring.slots):
            wrap: int = getattr(slot, name)
            if wrap >= 0:
                self.put(column, f"!w{wrap}", self.style(event.place), self.sign(event.place))
        self.y += 1


class _Full(_Small):
    def draw(self) -> Grid:
        ring = self.ring
        self.title()
        for name in self.fields:
            self.label({"addr": "desc addr", "flags": "flags AVAIL USED"}.get(name, f"     {name}"))
            self.cells(name)
            self.y += 1
        self.owners("owner")
        self._lap("available", ring.avail_wrap, ring.device_wrap)
        self.pointers("is_avail_next", "is_device_next")
        self.y += 1
        self._lap("used     ", ring.used_wrap, ring.device_used_wrap)
        self.pointers("is_driver_next", "is_used_next")
        self.y += 1
        self._wish("driver_event", ring.driver_event)
        self._wish("device_event", ring.device_event)
        self._private(
            "driver", (("next_avail", ring.next_avail), ("last_used", ring.last_used), ("num_free", ring.num_free))
        )
        self._private("device", (("next_avail", ring.device_next), ("next_used", ring.device_used)))
        return self.grid

    def _lap(self, name: str, driver: Cell, device: Cell) -> None:
        at = self._number(self.grid.put(0, self.y, f"{name} ", "dim"), "wrap", driver)
        # The two differ only while one side is a lap ahead.
        if device.text != driver.text and at + 2 < LABEL:
            self._number(at - 1, "/", device)

    def _private(self, side: str, numbers: tuple[tuple[str, Cell], ...]) -> None:
        at = self.grid.put(0, self.y, f"{side}: ", "dim")
        for name, cell in numbers:
            at = self._number(at, name, cell) + 1
        self.y += 1
