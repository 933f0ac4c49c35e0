"""Colours: the themes, and what the names of styles look like in each.

Drawing functions say what a thing is (`guest`, `changed`, `packet`); this module says how that looks. Blue is the
guest, sand the host, orange what happens now; they differ in lightness as well as in hue, so that they can be told
apart by people who see red and green alike. Nothing is said by colour alone: whatever has a colour has a sign, a word
or a kind of line too, which is all that remains where there are no colours.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rich.style import Style
from textual.theme import Theme

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN_THEME: Final = "ansi-dark"
"""The theme for terminals without colours; Textual's own, so that it is there before any theme can be registered."""

_DARK: Final = {
    "background": "#10161d",
    "raised": "#18212b",
    "text": "#dbe3ea",
    "dim": "#8494a4",
    "faint": "#445261",
    "guest": "#74b9ff",
    "guest-ground": "#17395c",
    "host": "#d9c08c",
    "host-ground": "#453a1f",
    "hardware": "#a9b4be",
    "hardware-ground": "#36414c",
    "changed": "#ffa94d",
    "changed-ground": "#5a3200",
    "read": "#9adcd2",
    "packet": "#11161c",
    "packet-ground": "#ffe27a",
    "other": "#e6cf7c",
    "say": "#eef4fa",
    "say-ground": "#1d2a38",
    "good": "#8fd3ff",
    "bad": "#ffa94d",
}
_LIGHT: Final = {
    "background": "#fcfbf7",
    "raised": "#f0eee6",
    "text": "#1c2630",
    "dim": "#5c6875",
    "faint": "#b3b9bf",
    "guest": "#0a5ca8",
    "guest-ground": "#cfe4f8",
    "host": "#5a4208",
    "host-ground": "#f2e2b6",
    "hardware": "#4a545e",
    "hardware-ground": "#dde2e6",
    "changed": "#b83f00",
    "changed-ground": "#ffeeda",
    "read": "#00695e",
    "packet": "#1c1600",
    "packet-ground": "#ffc933",
    "other": "#7a5900",
    "say": "#101a24",
    "say-ground": "#e3edf6",
    "good": "#0a5ca8",
    "bad": "#b83f00",
}


def _theme(name: str, colours: Mapping[str, str], *, dark: bool) -> Theme:
    return Theme(
        name=name,
        primary=colours["guest"],
        secondary=colours["host"],
        accent=colours["changed"],
        warning=colours["changed"],
        error=colours["bad"],
        success=colours["good"],
        foreground=colours["text"],
        background=colours["background"],
        surface=colours["raised"],
        panel=colours["raised"],
        dark=dark,
    )


DARK: Final = "virtviz-dark"
LIGHT: Final = "virtviz-light"
SHORT_NAMES: Final = {"dark": DARK, "light": LIGHT}
"""What the two are called on the command line."""
THEMES: Final = {DARK: _theme(DARK, _DARK, dark=True), LIGHT: _theme(LIGHT, _LIGHT, dark=False)}
_COLOURS: Final = {DARK: _DARK, LIGHT: _LIGHT}

_PLAIN: Final = {
    "packet": "bold reverse",
    "changed": "bold underline",
    "read": "underline",
    "say": "bold",
    "dim": "",
    "faint": "dim",
    "key": "bold",
    "title": "reverse",
    "cursor": "bold reverse",
    "mark": "bold",
    "good": "bold",
    "other": "bold",
    "hot": "bold reverse",
}
"""Attributes that stand in where there are no colours; names that are not here look like text."""


class Palette:
    """What the names of styles look like in a theme.

    Args:
        colours: name -> colour, as in the themes of this module; None for no colours at all.
    """

    def __init__(self, colours: Mapping[str, str] | None) -> None:
        self._colours = colours
        self.style = lru_cache(maxsize=1024)(self._style)

    def _style(self, name: str) -> Style:
        """Give a style by its name: a word of the palette, then attributes, then `on` and the word of a ground."""
        words = name.split()
        front, attributes, ground = words[0], words[1:], ""
        if "on" in attributes:
            at = attributes.index("on")
            attributes, ground = attributes[:at], attributes[at + 1]
        if self._colours is None:
            return Style.parse(" ".join([*_PLAIN.get(front, "").split(), *attributes]) or "none")
        colours = self._colours
        special = {
            "packet": ("packet", "packet-ground", "bold"),
            "changed": ("changed", "changed-ground", "bold"),
            "hot": ("background", "changed", "bold"),
            "say": ("say", "say-ground", ""),
            "ask": ("say", "say-ground", ""),
            "title": ("text", "raised", ""),
            "key": ("changed", "", "bold"),
            "mark": ("changed", "", "bold"),
            "cursor": ("background", "text", "bold"),
        }
        foreground, own_ground, more = special.get(front, (front, "", ""))
        background = colours[ground or own_ground or "background"]
        return Style.parse(" ".join([more, *attributes, colours[foreground], "on", background]))


def palette_for(theme: Theme, *, coloured: bool) -> Palette:
    """Give the palette of a theme; a theme of somebody else's lends its own colours.

    Args:
        theme: the application's theme.
        coloured: whether there are colours at all.
    """
    if not coloured or theme.ansi:
        return Palette(None)
    own = _COLOURS.get(theme.name)
    return Palette(own if own is not None else _borrowed(theme))


def _borrowed(theme: Theme) -> Mapping[str, str]:
    """Make a palette from any theme's colours: its grounds are mixed from its background."""
    from textual.color import Color  # noqa: PLC0415 - only themes of somebody else's need mixing

    base = _DARK if theme.dark else _LIGHT
    made = dict(base)
    back = Color.parse(theme.background or base["background"])
    front = Color.parse(theme.foreground or base["text"])
    guest, host = Color.parse(theme.primary), Color.parse(theme.secondary or base["host"])
    accent = Color.parse(theme.accent or theme.warning or base["changed"])
    made |= {
        "background": back.hex6,
        "raised": back.blend(front, 0.08).hex6,
        "text": front.hex6,
        "dim": front.blend(back, 0.4).hex6,
        "faint": front.blend(back, 0.7).hex6,
        "guest": guest.blend(front, 0.3).hex6,
        "guest-ground": back.blend(guest, 0.3).hex6,
        "host": host.blend(front, 0.3).hex6,
        "host-ground": back.blend(host, 0.3).hex6,
        "hardware": front.blend(back, 0.25).hex6,
        "hardware-ground": back.blend(front, 0.2).hex6,
        "changed": accent.hex6,
        "changed-ground": back.blend(accent, 0.25).hex6,
        "read": guest.blend(front, 0.5).hex6,
        "say": front.hex6,
        "say-ground": back.blend(guest, 0.15).hex6,
    }
    return made
