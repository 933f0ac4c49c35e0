from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from virtviz.ui.grid import ASCII, Grid, fit, harmless, runs_of, to_ascii, wrap


def test_control_characters_and_turning_marks_become_visible():
    assert harmless("a\x1b[31mb\x07") == "a␛[31mb␇"
    assert "\u202e" not in harmless("abc\u202edef")
    assert harmless("\x9b") == "\N{REPLACEMENT CHARACTER}"


def test_markup_is_text():
    grid = Grid(20, 1)
    grid.put(0, 0, "[bold]not bold[/]")
    assert grid.text(0).startswith("[bold]not bold[/]")


def test_in_ascii_a_packet_looks_like_no_border_and_like_nothing_else():
    for sign in "■□":
        assert [chr(c) for c, likeness in ASCII.items() if likeness == ASCII[ord(sign)]] == [sign]


def test_what_does_not_fit_is_cut_at_the_edge():
    grid = Grid(5, 1)
    assert grid.put(3, 0, "abcdef") == 5
    assert grid.text(0) == "   ab"
    assert grid.put(0, 7, "outside") == 0
    assert Grid(5, 1).put(0, 0, "abcdef", room=2) == 2


def test_wide_characters_take_two_cells():
    grid = Grid(6, 1)
    grid.put(0, 0, "日本", "text")
    grid.put(4, 0, "x")
    assert grid.text(0) == "日本x "
    assert cell_len(grid.text(0)) == 6


def test_a_grid_is_laid_on_another_and_cut_at_its_edges():
    below, above = Grid(4, 2), Grid(3, 3, "dim")
    for y in range(3):
        above.put(0, y, f"{y}{y}{y}")
    below.blit(above, 2, -1)
    assert [below.text(y) for y in range(2)] == ["  11", "  22"]
    below.blit(above, 9, 0)
    assert below.text(0) == "  11"


@given(st.text(max_size=40), st.integers(1, 30))
def test_fitting_never_takes_more_cells_than_there_are(text, width):
    assert cell_len(fit(text, width)) <= width


@given(st.text(max_size=120), st.integers(4, 40))
def test_wrapping_never_takes_more_cells_than_there_are(text, width):
    assert all(cell_len(line) <= width for line in wrap(text, width))


def test_wrapping_keeps_every_word():
    text = "one two threeeeeeeeeeeeeee four"
    assert "".join(wrap(text, 6)).replace(" ", "") == text.replace(" ", "")


@given(st.text(max_size=40))
def test_ascii_text_is_as_wide_as_what_it_stands_for(text):
    text = harmless(text)
    assert to_ascii(text).isascii()
    assert len(to_ascii(text)) >= cell_len(text)


def test_stretches_of_one_style_are_joined_over_spaces_that_look_the_same():
    grid = Grid(9, 1)
    grid.put(0, 0, "ab", "dim")
    grid.put(3, 0, "cd", "dim")
    assert runs_of(*grid.row(0, 0, 9)) == [("ab cd    ", "dim")]


def test_spaces_on_another_ground_are_not_joined():
    grid = Grid(4, 1)
    grid.put(0, 0, "a ", "dim on raised")
    assert runs_of(*grid.row(0, 0, 4)) == [("a ", "dim on raised"), ("  ", "text")]
