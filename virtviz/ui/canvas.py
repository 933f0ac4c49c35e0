"""A widget that shows a grid and sends to the terminal only what differs from what it showed before.

Each row is kept as a strip. When new rows come, those that are equal cost nothing; of the others, only the stretch from the first to the
last cell that differs is drawn again. A step changes a few dozen cells of two thousand, and those are what is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import get_character_cell_size
from rich.segment import Segment
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from virtviz.ui.grid import to_ascii

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events

    from virtviz.ui.grid import Run
    from virtviz.ui.palette import Palette

Zone = tuple[int, int, int, str]
"""Something that can be clicked: column, row, width, and the action it stands for."""


class Canvas(Widget):
    """A rectangle of styled text that is replaced as a whole and redrawn in parts.

    Attributes:
        updates: rows redrawn so far; what tests count instead of time.
    """

    DEFAULT_CSS: ClassVar[str] = "Canvas { position: absolute; }"
    can_focus = False

    class Clicked(Message):
        """A zone was clicked."""

        def __init__(self, action: str) -> None:
            super().__init__()
            self.action = action

    def __init__(self, *, id: str) -> None:  # noqa: A002 - Textual's name for it
        super().__init__(id=id)
        self._rows: list[tuple[Run, ...]] = []
        self._strips: list[Strip] = []
        self._zones: Sequence[Zone] = ()
        self.updates = 0

    def show(
        self, rows: Sequence[tuple[Run, ...]], palette: Palette, zones: Sequence[Zone] = (), *, plain: bool = False
    ) -> None:
        """Show new rows.

        Args:
            rows: the whole content, top first.
            palette: what the styles look like.
            zones: what can be clicked.
            plain: translate into ASCII.
        """
        self._zones = zones
        old = self._rows
        regions = []
        width = self.size.width
        style = palette.style
        strips = self._strips
        if len(old) != len(rows):
            strips = self._strips = [Strip.blank(width)] * len(rows)
            old = [()] * len(rows)
        for y, row in enumerate(rows):
            if row == old[y]:
                continue
            segments = [Segment(to_ascii(text) if plain else text, style(name)) for text, name in row]
            strip = Strip(segments)
            start, end = _difference(old[y], row) if old[y] else (0, width)
            strips[y] = strip
            regions.append(Region(start, y, end - start, 1))
        self._rows = list(rows)
        if regions:
            self.updates += len(regions)
            self.refresh(*regions)

    def forget(self) -> None:
        """Draw everything again at the next `show`, because what styles look like has changed."""
        self._rows = []

    def render_line(self, y: int) -> Strip:
        """Give a row."""
        width = self.size.width
        if y >= len(self._strips):
            return Strip.blank(width)
        return self._strips[y].adjust_cell_length(width)

    def on_click(self, event: events.Click) -> None:
        """Say which zone was clicked."""
        for x, y, width, action in self._zones:
            if event.y == y and x <= event.x < x + width:
                event.stop()
                self.post_message(self.Clicked(action))
                return

    def text(self) -> str:
        """Give what is shown, without styles."""
        return "\n".join("".join(text for text, _ in row) for row in self._rows)


def _difference(old: tuple[Run, ...], new: tuple[Run, ...]) -> tuple[int, int]:
    """Give the columns from the first to behind the last cell that differs."""
    before, after = _cells(old), _cells(new)
    if len(before) != len(after):
        return 0, max(len(before), len(after))
    start, end = 0, len(after)
    while start < end and before[start] == after[start]:
        start += 1
    while end > start and before[end - 1] == after[end - 1]:
        end -= 1
    return start, end


def _cells(row: tuple[Run, ...]) -> list[tuple[str, str]]:
    """Give a row cell by cell; a wide character fills two."""
    made: list[tuple[str, str]] = []
    for text, style in row:
        if text.isascii():
            made += [(c, style) for c in text]
            continue
        for c in text:
            made.append((c, style))
            if get_character_cell_size(c) > 1:
                made.append(("", style))
    return made
