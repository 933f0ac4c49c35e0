"""Colours: that texts can be read, and that nothing depends on seeing red apart from green."""

from itertools import combinations

import pytest
from textual.theme import BUILTIN_THEMES

from virtviz.ui.palette import DARK, LIGHT, THEMES, Palette, palette_for

READABLE = (
    "text",
    "dim",
    "guest",
    "host",
    "hardware",
    "read",
    "other",
    "mark",
    "changed",
    "packet",
    "hot",
    "say",
    "cursor",
    "guest bold on guest-ground",
    "text bold on guest-ground",
    "host bold on host-ground",
    "text bold on host-ground",
    "hardware bold on hardware-ground",
    "good bold on say-ground",
    "mark on say-ground",
    "dim on say-ground",
)
DEUTERANOPIA = ((0.367, 0.861, -0.228), (0.280, 0.673, 0.047), (-0.012, 0.043, 0.969))
"""What is left of red, green and blue without the middle cones (Machado, Oliveira, Fernandes 2009)."""


@pytest.fixture(params=[DARK, LIGHT])
def palette(request):
    return palette_for(THEMES[request.param], coloured=True)


def linear(colour):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]


def contrast(style):
    lights = []
    for colour in (style.color, style.bgcolor):
        red, green, blue = linear(colour.get_truecolor())
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("name", READABLE)
def test_every_text_stands_out_from_its_ground(palette, name):
    """4.5 to 1 is what WCAG 2.2, 1.4.3, asks of text."""
    assert contrast(palette.style(name)) >= 4.5


def test_who_is_who_can_be_told_apart_without_seeing_red_and_green(palette):
    def seen(name):
        colour = linear(palette.style(name).color.get_truecolor())
        return [sum(weight * c for weight, c in zip(row, colour, strict=True)) for row in DEUTERANOPIA]

    for a, b in combinations(("guest", "host", "mark"), 2):
        assert sum((x - y) ** 2 for x, y in zip(seen(a), seen(b), strict=True)) ** 0.5 > 0.1, (a, b)


@pytest.mark.parametrize("name", sorted(BUILTIN_THEMES))
def test_every_theme_of_textual_gives_a_palette(name):
    theme = BUILTIN_THEMES[name]
    made = palette_for(theme, coloured=True)
    for style in READABLE:
        assert (made.style(style).color is None) == theme.ansi


def test_without_colours_signs_keep_an_attribute():
    plain = Palette(None)
    assert plain.style("changed").underline
    assert plain.style("packet").reverse
    assert plain.style("hot").reverse
    assert not plain.style("text").reverse
    assert all(plain.style(name).color is None for name in READABLE)
