"""The ring: descriptors, available ring and used ring as three bands with the same slots under one another.

What the last step wrote has an asterisk and a colour of its own, what it read a degree sign. Each band is written by
one side only: the first two by the driver, the third by the device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.ui.grid import Grid, fit

if TYPE_CHECKING:
    from virtviz.view.frame import Cell, Frame, RingFrame, SlotFrame

LABEL: Final = 20
"""Width of the names at the left."""
SMALL_ROWS: Final = 7
FULL_ROWS: Final = 12
WRITTEN, READ = "*", "°"
_OWNERS: Final = {"driver": ("drv", "guest"), "device": ("dev", "host"), "used": ("usd", "host bold")}
"""Owner -> three letters, which leave a gap to the next slot in the narrowest column, and a style."""


def slots_for(width: int, rows: int) -> int:
    """Say how many slots a panel of that size shows: a power of two, so that pages end where the ring ends."""
    room = (width - LABEL) // cell_width(rows)
    slots = 1
    while slots * 2 <= room:
        slots *= 2
    return min(slots, 32)


def cell_width(rows: int) -> int:
    """Cells a slot takes; the full drawing shows lengths and addresses in it."""
    return 4 if rows < FULL_ROWS else 7


def draw_ring(frame: Frame, width: int, rows: int) -> Grid:
    """Draw the ring of a frame."""
    return (_Full if rows >= FULL_ROWS else _Small)(frame, width, rows).draw()


class _Drawing:
    def __init__(self, frame: Frame, width: int, rows: int) -> None:
        self.frame, self.ring = frame, frame.ring
        self.grid = Grid(width, rows)
        self.cell = cell_width(rows)
        self.y = 0

    def sign(self, cell: Cell) -> str:
        return WRITTEN if cell.written else READ if cell.read else ""

    def style(self, cell: Cell) -> str:
        if cell.written:
            return "changed"
        if cell.read:
            return "read bold"
        return "text" if cell.live else "faint" if cell.text == "·" else "dim"

    def label(self, text: str, style: str = "dim") -> None:
        self.grid.put(0, self.y, fit(text, LABEL), style)

    def word(self, name: str, cell: Cell, *, index: bool = False, meaning: bool = True) -> None:
        """Write a field that is not in a slot: its name and value, and for an index its slot."""
        value = cell.text + (f"→{int(cell.text) % self.ring.size}" if index else "")
        at = self.grid.put(0, self.y, f"{name} ", "dim" if meaning else "faint")
        style = self.style(cell) if meaning or cell.written else "faint"
        self.grid.put(at, self.y, value + self.sign(cell), style, LABEL - at)

    def put(self, column: int, text: str, style: str, sign: str = "") -> None:
        """Write into a slot's column, to the right, with the sign behind."""
        x = LABEL + column * self.cell
        shown = fit(text, self.cell - len(sign)) + sign
        # The sign stands to the right of the digits, so that it does not move them.
        self.grid.put(x + self.cell - len(shown) - (0 if sign or len(shown) == self.cell else 1), self.y, shown, style)

    def cells(self, name: str) -> None:
        for column, slot in enumerate(self.ring.slots):
            cell: Cell = getattr(slot, name)
            text = f"({cell.text})" if name == "next" and _next_means_nothing(slot) else cell.text
            self.put(column, text, self.style(cell), self.sign(cell))

    def title(self) -> None:
        ring = self.ring
        arrow = "→" if ring.direction == "out" else "←"
        self.grid.put(0, self.y, f"{ring.title} {arrow}", "text bold")
        at = LABEL - 5
        self.grid.put(at, self.y, "slot", "dim")
        for column, slot in enumerate(ring.slots):
            self.put(column, str(slot.slot), "dim")
        self.y += 1

    def owners(self, name: str) -> None:
        first = self.ring.slots[0]
        apart = first.desc != first.slot
        self.label(f"{name} {first.desc}…" if apart else name)
        for column, slot in enumerate(self.ring.slots):
            text, style = _OWNERS[slot.owner]
            if slot.owner == "driver" and not slot.addr.live:
                text, style = "·", "faint"
            written = any(c.written for c in (slot.addr, slot.len, slot.flags, slot.next))
            read = any(c.read for c in (slot.addr, slot.len, slot.flags, slot.next))
            sign = WRITTEN if written else READ if read else ""
            style = "changed" if written else "read bold" if read else style
            self.put(column, text, style, sign)
        self.y += 1

    def pointers(self, driver: str, device: str) -> None:
        """Mark where each side goes on: the driver's and the device's own positions."""
        whole = self.cell > len("driver")
        for column, slot in enumerate(self.ring.slots):
            mine, theirs = getattr(slot, driver), getattr(slot, device)
            if mine and theirs:
                self.put(column, "↑both" if whole else "↑", "dim")
            elif mine:
                self.put(column, "↑driver" if whole else "↑dr", "guest")
            elif theirs:
                self.put(column, "↑device" if whole else "↑de", "host")


class _Small(_Drawing):
    def draw(self) -> Grid:
        ring = self.ring
        self.title()
        self.owners("desc owner")
        self._detail()
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

    def _detail(self) -> None:
        """Spell out the descriptor that was worked on last."""
        slot = _worked_on(self.ring)
        at = self.grid.put(0, self.y, f" desc {slot.desc if slot else '-'}  ", "dim")
        if slot is not None:
            for name in ("addr", "len", "flags", "next"):
                cell: Cell = getattr(slot, name)
                nothing = name == "next" and _next_means_nothing(slot)
                at = self.grid.put(at, self.y, f"({name} " if nothing else f"{name} ", "dim")
                at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell))
                at = (self.grid.put(at, self.y, ")", "dim") if nothing else at) + 1
            if at > self.grid.width:
                # Numbers of a malformed ring can be longer than any real one.
                self.grid.put(self.grid.width - 1, self.y, "…", "dim")
            if slot.packet:
                name = next((p.name for p in self.frame.packets if p.number == slot.packet), "")
                self.grid.put(at, self.y, fit(f"■{name}", self.grid.width - at) if name else "", "dim")
        self.y += 1


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


def _next_means_nothing(slot: SlotFrame) -> bool:
    """Say whether a descriptor has a `next` in memory that its flags do not make part of a chain."""
    return slot.next.text.isdecimal() and "N" not in slot.flags.text


def _worked_on(ring: RingFrame) -> SlotFrame | None:
    """Give the descriptor that was worked on last, if the window shows it."""
    return next((slot for slot in ring.slots if slot.desc == ring.desc), None)
