# ruff: noqa: INP001 - a script, no package
"""Draw the pictures of the documentation, by the program itself: the same board as on the screen, as SVG.

Every row is one text of a fixed length, and boxes and lines are drawn as lines, so that a picture looks the same with
whatever font there is.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from virtviz.lesson.loader import load
from virtviz.session.session import Session
from virtviz.ui.board import Board
from virtviz.ui.grid import runs_of
from virtviz.ui.palette import DARK, THEMES, palette_for
from virtviz.view import fold_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.style import Style

    from virtviz.ui.palette import Palette

ROOT: Final = Path(__file__).parents[1]
CELL: Final = (9, 20)
SIZE: Final = (112, 34)
EDGE: Final = 14
_ARMS: Final = {
    "─": "l1 r1",
    "━": "l2 r2",
    "═": "l2 r2",
    "╌": "d1",
    "│": "u1 d1",
    "┃": "u2 d2",
    "║": "u1 d1",
    "┌": "r1 d1",
    "┐": "l1 d1",
    "└": "r1 u1",
    "┘": "l1 u1",
    "┏": "r2 d2",
    "┓": "l2 d2",
    "┗": "r2 u2",
    "┛": "l2 u2",
    "┼": "l1 r1 u1 d1",
    "┴": "l1 r1 u1",
    "┷": "l2 r2 u1",
}
"""Box-drawing character -> its arms (left, right, up, down) and their weights."""


def lesson_picture() -> str:
    """Draw the moment at which the driver has kicked: the VM exit, the packet in the ring, what it cost."""
    session = Session.open(load(ROOT / "lessons" / "3-vhost.yaml"))
    kick = next(n for n in range(1, session.length + 1) if session.step(n).op == "kick")
    while session.go_to(kick) != kick:
        session.answer(None)
    session.answer(None)
    fold_of(session).at(session.length)
    board = Board(session)
    board.lay_out(*SIZE)
    board.draw()
    return draw(board, palette_for(THEMES[DARK], coloured=True))


def draw(board: Board, palette: Palette) -> str:
    """Give a board as SVG."""
    grid, (across, down) = board.grid, CELL
    width, height = grid.width * across + 2 * EDGE, grid.height * down + 2 * EDGE
    ground = palette.style("text").bgcolor
    assert ground is not None
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{ground.name}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="15">',
    ]
    for y in range(grid.height):
        x = 0
        for text, name in runs_of(*grid.row(0, y, grid.width)):
            style = palette.style(name)
            left, top = EDGE + x * across, EDGE + y * down
            if style.bgcolor is not None and style.bgcolor != ground:
                box = f'x="{left}" y="{top}" width="{len(text) * across}" height="{down}"'
                lines.append(f'<rect {box} fill="{style.bgcolor.name}"/>')
            lines += _characters(text, style, left, top)
            x += len(text)
    return "\n".join([*lines, "</g>", "</svg>", ""])


def _characters(text: str, style: Style, left: int, top: int) -> Iterator[str]:
    """Draw a stretch of one style: what is made of lines as lines, the rest as text."""
    across, down = CELL
    colour = style.color.name if style.color is not None else "#000000"
    path = "".join(_lines(c, left + i * across, top) for i, c in enumerate(text) if c in _ARMS)
    if path:
        yield f'<path d="{path}" stroke="{colour}" fill="none"/>'
    heavy = "".join(_lines(c, left + i * across, top, heavy=True) for i, c in enumerate(text) if c in _ARMS)
    if heavy:
        yield f'<path d="{heavy}" stroke="{colour}" stroke-width="3" fill="none"/>'
    weight = ' font-weight="bold"' if style.bold else ""
    start = 0
    plain = "".join(" " if c in _ARMS else c for c in text)
    for word in plain.split("  "):
        shown = word.strip()
        if shown:
            at = plain.index(shown, start)
            start = at + len(shown)
            yield (
                f'<text x="{left + at * across}" y="{top + down * 3 // 4}" textLength="{len(shown) * across}" '
                f'lengthAdjust="spacingAndGlyphs" fill="{colour}"{weight} xml:space="preserve">{escape(shown)}</text>'
            )


def _lines(character: str, x: int, y: int, *, heavy: bool = False) -> str:
    """Give the arms of a box-drawing character, either the light or the heavy ones."""
    across, down = CELL
    middle_x, middle_y = x + across / 2, y + down / 2
    if character == "╌":
        return "" if heavy else f"M{x + 1} {middle_y}h3M{x + 5.5} {middle_y}h3"
    ends = {"l": (x, middle_y), "r": (x + across, middle_y), "u": (middle_x, y), "d": (middle_x, y + down)}
    if character == "║":
        return "" if heavy else f"M{middle_x - 1.5} {y}v{down}M{middle_x + 1.5} {y}v{down}"
    arms = [arm for arm in _ARMS[character].split() if (arm[1] == "2") == heavy]
    return "".join(f"M{middle_x} {middle_y}L{ends[arm[0]][0]} {ends[arm[0]][1]}" for arm in arms)


def main() -> None:
    """Write all pictures."""
    folder = ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    (folder / "lesson.svg").write_text(lesson_picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
