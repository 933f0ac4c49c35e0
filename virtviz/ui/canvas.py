"""A widget that shows a part of the screen's grid and sends only what differs from what it showed before.

Textual sends a changed row of a widget from the widget's left edge on. So the screen is cut into tiles, along the
edges of what changes together, and each tile is a widget: a step changes a few dozen cells of two thousand, and
little more than those is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from rich.segment import Segment
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from virtviz.ui.grid import runs_of, to_ascii

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual import events
    from textual.filter import LineFilter

    from virtviz.ui.grid import Grid
    from virtviz.ui.palette import Palette
    from virtviz.ui.plan import Rect

Zone = tuple[int, int, int, str]
"""Something that can be clicked: column, row, width, and the action, with `{x}` for the column within it."""


class Tile(Widget):
    """A rectangle of the screen.

    Args:
        rect: where it lies.

    Attributes:
        rect: where it lies.
        updates: rows redrawn so far; what tests count instead of time.
    """

    DEFAULT_CSS: ClassVar[str] = "Tile { position: absolute; }"
    can_focus = False

    class Clicked(Message):
        """The screen was clicked at a cell."""

        def __init__(self, x: int, y: int) -> None:
            super().__init__()
            self.x, self.y = x, y

    def __init__(self, rect: Rect) -> None:
        super().__init__()
        self.updates = 0
        self._rows: list[tuple[Sequence[str], Sequence[str]]] = []
        self._strips: list[Strip] = []
        self._rendered: tuple[Region, list[LineFilter], list[Strip]] | None = None
        self.place(rect)

    def place(self, rect: Rect) -> None:
        """Move the tile to a rectangle; it is empty until something is shown."""
        self.rect = rect
        self.styles.offset = (rect.x, rect.y)
        self.styles.width, self.styles.height = rect.width, rect.height
        self.forget()

    def forget(self) -> None:
        """Draw everything again at the next `show`."""
        self._rows = [((), ())] * self.rect.height
        self._strips = [Strip.blank(self.rect.width)] * self.rect.height

    def show(self, grid: Grid, palette: Palette, *, plain: bool = False) -> None:
        """Show the tile's part of the screen.

        Args:
            grid: the whole screen.
            palette: what the styles look like.
            plain: translate into ASCII.
        """
        rect, style, regions = self.rect, palette.style, []
        for y in range(rect.height):
            new = grid.row(rect.x, rect.y + y, rect.width)
            old = self._rows[y]
            if new == old:
                continue
            chars, styles = new
            segments = [
                Segment(to_ascii(text) if plain else text, style(name)) for text, name in runs_of(chars, styles)
            ]
            self._strips[y] = Strip(segments, rect.width)
            self._rows[y] = new
            regions.append(Region(0, y, _last_difference(old, new), 1))
        if regions:
            self.updates += len(regions)
            self.refresh(*regions)

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Render again before the next frame; all that changes how a tile looks ends up here."""
        self._rendered = None
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

    def notify_style_update(self) -> None:
        """Render again, because the styles are others."""
        self._rendered = None
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        """Give all rows. Textual asks every tile in the neighbourhood of one that changed; most have not."""
        kept, filters = self._rendered, [*self.get_line_filters()]
        if kept is None or kept[:2] != (crop, filters):
            kept = self._rendered = crop, filters, super().render_lines(crop)
        return kept[2]

    def render_line(self, y: int) -> Strip:
        """Give a row."""
        return self._strips[y] if y < len(self._strips) else Strip.blank(self.size.width)

    def on_click(self, event: events.Click) -> None:
        """Say which cell was clicked."""
        event.stop()
        self.post_message(self.Clicked(self.rect.x + event.x, self.rect.y + event.y))


def _last_difference(old: tuple[Sequence[str], Sequence[str]], new: tuple[Sequence[str], Sequence[str]]) -> int:
    """Give the column behind the last cell that differs."""
    (old_chars, old_styles), (chars, styles) = old, new
    end = len(chars)
    if len(old_chars) != end:
        return end
    while end and chars[end - 1] == old_chars[end - 1] and styles[end - 1] == old_styles[end - 1]:
        end -= 1
    return end
