"""What drawings of rings of all kinds share: names at the left, slots to the right, and how marks look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from virtviz.ui.grid import Grid, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from virtviz.view.frame import AnyRing, AnySlot, Cell, Frame

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


class Drawing:
    """A drawing of a window on a ring, row by row.

    Args:
        frame: what is drawn.
        width, rows: room for it.
    """

    ring: AnyRing
    fields: tuple[str, ...]
    """Those of a descriptor."""

    def __init__(self, frame: Frame, width: int, rows: int) -> None:
        assert frame.ring is not None, "whoever draws a ring has one"
        self.frame, self.ring = frame, frame.ring
        self.slots: Sequence[AnySlot] = frame.ring.slots
        self.grid = Grid(width, rows)
        self.cell = cell_width(rows)
        self.y = 0

    def sign(self, cell: Cell) -> str:
        """Give the sign of a field that was written or read."""
        return WRITTEN if cell.written else READ if cell.read else ""

    def style(self, cell: Cell) -> str:
        """Give the style of a field."""
        if cell.written:
            return "changed"
        if cell.read:
            return "read bold"
        return "text" if cell.live else "faint" if cell.text == "·" else "dim"

    def label(self, text: str, style: str = "dim") -> None:
        """Write the name at the left."""
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
        """Write a field of every slot."""
        for column, slot in enumerate(self.slots):
            cell: Cell = getattr(slot, name)
            self.put(column, self.shown(slot, name), self.style(cell), self.sign(cell))

    def shown(self, slot: AnySlot, name: str) -> str:
        """Say how a field of a slot is shown."""
        return str(getattr(slot, name).text)

    def title(self) -> None:
        """Write the queue's name and direction, and the numbers of the slots."""
        ring = self.ring
        arrow = "→" if ring.direction == "out" else "←"
        self.grid.put(0, self.y, f"{ring.title} {arrow}", "text bold")
        at = LABEL - 5
        self.grid.put(at, self.y, "slot", "dim")
        for column, slot in enumerate(self.slots):
            self.put(column, str(slot.slot), "dim")
        self.y += 1

    def owners(self, label: str) -> None:
        """Write who may touch each descriptor."""
        first = self.slots[0]
        apart = first.desc != first.slot
        self.label(f"{label} {first.desc}…" if apart else label)
        for column, slot in enumerate(self.slots):
            text, style = _OWNERS[slot.owner]
            if slot.owner == "driver" and not slot.addr.live:
                text, style = "·", "faint"
            fields = [getattr(slot, name) for name in self.fields]
            written, read = any(cell.written for cell in fields), any(cell.read for cell in fields)
            sign = WRITTEN if written else READ if read else ""
            style = "changed" if written else "read bold" if read else style
            self.put(column, text, style, sign)
        self.y += 1

    def pointers(self, driver: str, device: str) -> None:
        """Mark where each side goes on: the driver's and the device's own positions."""
        whole = self.cell > len("driver")
        for column, slot in enumerate(self.slots):
            mine, theirs = getattr(slot, driver), getattr(slot, device)
            if mine and theirs:
                self.put(column, "↑both" if whole else "↑", "dim")
            elif mine:
                self.put(column, "↑driver" if whole else "↑dr", "guest")
            elif theirs:
                self.put(column, "↑device" if whole else "↑de", "host")

    def detail(self) -> None:
        """Spell out the descriptor that was worked on last."""
        slot = next((slot for slot in self.slots if slot.desc == self.ring.desc), None)
        at = self.grid.put(0, self.y, f" desc {slot.desc if slot else '-'}  ", "dim")
        if slot is not None:
            for name in self.fields:
                cell: Cell = getattr(slot, name)
                nothing = self.means_nothing(slot, name)
                called = self.named(name)
                at = self.grid.put(at, self.y, f"({called} " if nothing else f"{called} ", "dim")
                at = self.grid.put(at, self.y, cell.text + self.sign(cell), self.style(cell))
                at = (self.grid.put(at, self.y, ")", "dim") if nothing else at) + 1
            if at > self.grid.width:
                # Numbers of a malformed ring can be longer than any real one.
                self.grid.put(self.grid.width - 1, self.y, "…", "dim")
            if slot.packet:
                name = next((p.name for p in self.frame.packets if p.number == slot.packet), "")
                self.grid.put(at, self.y, fit(f"■{name}", self.grid.width - at) if name else "", "dim")
        self.y += 1

    def named(self, name: str) -> str:
        """Say how a field of a descriptor is called."""
        return name

    def means_nothing(self, slot: AnySlot, name: str) -> bool:  # noqa: ARG002 - as a split ring's
        """Say whether a field of a descriptor stands in memory, but its flags say that it is not to be read."""
        return False
