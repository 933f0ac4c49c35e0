"""A grid of character cells: what the drawing functions write on, without colours and without widgets.

A cell holds a character and the name of a style, such as `dim` or `changed bold`; what the name looks like is the
palette's affair. Text that comes from elsewhere is made harmless here: control characters are shown as pictures of
themselves, and wide characters take two cells.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, get_character_cell_size

if TYPE_CHECKING:
    from collections.abc import Sequence

Run = tuple[str, str]
"""Text and the name of its style."""

_CONTROL: Final = {**{c: chr(0x2400 + c) for c in range(32)}, 127: "␡", **dict.fromkeys(range(128, 160), "�")}
_SPELT: Final = {ord("¼"): "1/4", ord("½"): "1/2", ord("¾"): "3/4"}
"""What a console without these characters could not show in one cell."""
_ODD: Final = dict.fromkeys((0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF), "�")
"""Characters that take no cell or turn text around."""
_READABLE: Final = {**_CONTROL, **_SPELT, **_ODD}

ASCII: Final = str.maketrans(
    {
        **dict.fromkeys("─╌┄\N{EN DASH}\N{EM DASH}", "-"),
        **dict.fromkeys("━═", "="),
        **dict.fromkeys("│║╎▌▏▕", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼┷", "+"),
        **dict.fromkeys("┏┓┗┛┃█", "#"),
        **dict.fromkeys("▶→", ">"),
        **dict.fromkeys("◀←", "<"),
        **dict.fromkeys("▲↑", "^"),
        **dict.fromkeys("▼↓", "v"),
        **dict.fromkeys("“”", '"'),
        **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}°", "'"),
        "■": "@",
        "□": "%",
        "◆": "*",
        "●": "o",
        "·": ".",
        "…": "~",
        "\N{MULTIPLICATION SIGN}": "x",
        "✓": "v",
        "✗": "x",
        "‖": "|",
        "µ": "u",
    }
)
"""One character for one: box drawing, arrows and signs in what every console has."""


def harmless(text: str) -> str:
    """Give a text in which nothing does anything: control characters and marks that turn text become visible."""
    if text.isascii() and text.isprintable():
        return text
    return text.translate(_READABLE)


@lru_cache(maxsize=4096)
def _prepared(text: str) -> tuple[str, bool]:
    """Give a text made harmless, and whether each of its characters takes one cell."""
    text = harmless(text)
    return text, text.isascii() or all(get_character_cell_size(c) == 1 for c in text)


@lru_cache(maxsize=4096)
def to_ascii(text: str) -> str:
    """Give a text in ASCII, of the same width; what has no likeness becomes a question mark for each cell."""
    if text.isascii():
        return text
    translated = text.translate(ASCII)
    if translated.isascii():
        return translated
    return "".join(c if c.isascii() else "?" * max(get_character_cell_size(c), 1) for c in translated)


def fit(text: str, width: int) -> str:
    """Give a text in at most so many cells, with an ellipsis where something was cut off."""
    text, narrow = _prepared(text)
    if narrow:
        return text if len(text) <= width else f"{text[: width - 1]}…" if width > 0 else ""
    if cell_len(text) <= width:
        return text
    made = ""
    for character in text:
        if cell_len(made + character) > width - 1:
            break
        made += character
    return (made + "…") if width > 0 else ""


def wrap(text: str, width: int) -> list[str]:
    """Break a text into lines of at most so many cells, at spaces where there are any."""
    return list(_wrapped(text, width))


@lru_cache(maxsize=256)
def _wrapped(text: str, width: int) -> tuple[str, ...]:
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        line = ""
        for word in harmless(paragraph).split(" "):
            longer = f"{line} {word}" if line else word
            if cell_len(longer) <= width:
                line = longer
                continue
            if line:
                lines.append(line)
            while cell_len(word) > width:
                part = word[:width]
                while cell_len(part) > width:
                    part = part[:-1]
                lines.append(part)
                word = word[len(part) :]  # noqa: PLW2901 - the rest of a word longer than a line
            line = word
        lines.append(line)
    return tuple(lines)


_PLAIN_FRONTS: Final = ("text", "dim", "faint", "guest", "host", "hardware", "key", "mark", "good", "bad", "other")
_BARE: Final = frozenset(name + more for name in _PLAIN_FRONTS for more in ("", " bold"))
"""Styles without a ground of their own and without lines, in which all spaces look the same."""


class Grid:
    """A rectangle of cells.

    Args:
        width, height: in cells.
        style: of the empty cells.
    """

    def __init__(self, width: int, height: int, style: str = "text") -> None:
        self.width = width
        self.height = height
        self._chars = [[" "] * width for _ in range(height)]
        self._styles = [[style] * width for _ in range(height)]

    def put(self, x: int, y: int, text: str, style: str | None = None, room: int | None = None) -> int:
        """Write a text, cut at the edge or after `room` cells; answers the column behind it.

        Args:
            x: the column in which it begins.
            y: the row.
            text: what to write.
            style: its style; None leaves the style of the cells as it is.
            room: cells it may take.
        """
        if not 0 <= y < self.height:
            return x
        end = self.width if room is None else min(self.width, x + room)
        text, narrow = _prepared(text)
        if not narrow or x < 0:
            return self._put_slowly(x, y, text, style, end)
        length = min(len(text), max(end - x, 0))
        behind = x + length
        self._chars[y][x:behind] = text[:length]
        if style is not None:
            self._styles[y][x:behind] = [style] * length
        return behind

    def _put_slowly(self, x: int, y: int, text: str, style: str | None, end: int) -> int:
        """Write a text with characters of several widths, or one that begins left of the edge."""
        chars, styles = self._chars[y], self._styles[y]
        for character in text:
            size = get_character_cell_size(character)
            if size == 0:
                continue
            if x + size > end:
                break
            if x >= 0:
                chars[x] = character
                if size > 1:
                    chars[x + 1] = ""
                if style is not None:
                    styles[x : x + size] = [style] * size
            x += size
        return x

    def char(self, x: int, y: int) -> str:
        """Give the character in a cell; empty outside."""
        return self._chars[y][x] if 0 <= y < self.height and 0 <= x < self.width else ""

    def paint(self, x: int, y: int, width: int, style: str) -> None:
        """Give some cells another style."""
        if 0 <= y < self.height:
            x, end = max(x, 0), min(x + width, self.width)
            self._styles[y][x:end] = [style] * max(end - x, 0)

    def line(self, x: int, y: int, length: int, character: str, style: str) -> None:
        """Draw a horizontal line."""
        self.put(x, y, character * length, style)

    def upright(self, x: int, y: int, length: int, character: str, style: str) -> None:
        """Draw a vertical line."""
        for row in range(y, y + length):
            self.put(x, row, character, style)

    def blit(self, other: Grid, x: int, y: int) -> None:
        """Copy another grid onto this one, cut at the edges."""
        left, right = max(0, -x), min(other.width, self.width - x)
        if left >= right:
            return
        for row in range(max(0, -y), min(other.height, self.height - y)):
            self._chars[y + row][x + left : x + right] = other._chars[row][left:right]
            self._styles[y + row][x + left : x + right] = other._styles[row][left:right]

    def top(self, rows: int) -> Grid:
        """Give the first so many rows as a grid of their own."""
        made = Grid(self.width, min(rows, self.height))
        made.blit(self, 0, 0)
        return made

    def text(self, y: int) -> str:
        """Give a row's characters."""
        return "".join(self._chars[y])

    def row(self, x: int, y: int, width: int) -> tuple[list[str], list[str]]:
        """Give part of a row: characters and styles, cell by cell."""
        return self._chars[y][x : x + width], self._styles[y][x : x + width]


def runs_of(chars: Sequence[str], styles: Sequence[str]) -> list[Run]:
    """Give cells as stretches of one style each.

    What colour a space would be written in cannot be seen, so on the common ground spaces join whatever is before
    them, or after them
    at the left edge: fewer stretches are fewer bytes.
    """
    made: list[Run] = []
    start, style, blank = 0, styles[0], True
    for x, new in enumerate(styles):
        if new is not style and new != style:
            if new in _BARE and style in _BARE:
                if chars[x] == " ":
                    continue
                if blank:
                    style, blank = new, False
                    continue
            made.append(("".join(chars[start:x]), style))
            start, style, blank = x, new, False
        if blank and chars[x] != " ":
            blank = False
    made.append(("".join(chars[start:]), style))
    return made
