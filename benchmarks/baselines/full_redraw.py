"""The baseline of the bytes rows: the same picture, drawn whole every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.terminal import Screen


def redrawn(screen: Screen) -> bytes:
    """Give the bytes of drawing all of a screen anew, row by row, with a style only where it changes."""
    drawn = []
    for number, (characters, styles) in enumerate(zip(screen.characters, screen.styles, strict=True)):
        drawn.append(f"\x1b[{number + 1};1H")
        before = ""
        for character, style in zip(characters, styles, strict=True):
            if style != before:
                drawn.append(style or "\x1b[0m")
                before = style
            drawn.append(character)
        drawn.append("\x1b[0m")
    return "".join(drawn).encode()
